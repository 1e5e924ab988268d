//! What may be written to a terminal.

use std::env;
use std::io::IsTerminal;

/// Whether colours and redrawing are wanted: on a terminal, and `NO_COLOR` (no-color.org) is absent or empty.
pub(super) fn colours(to: &impl IsTerminal) -> bool {
    to.is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
