//! A picture that is redrawn in place on a terminal, and printed one after the other elsewhere.

use std::io::Write;

use rustix::termios::tcgetwinsize;

use super::terminal;

/// Lines of a terminal that does not say how many it has.
const ROWS: usize = 24;

/// Where pictures are shown.
pub(super) struct Screen {
    redraws: bool,
    /// Lines to go up before the next drawing.
    drawn: usize,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self {
            redraws: terminal::colours(&std::io::stdout()),
            drawn: 0,
        }
    }

    /// Whether a picture costs nothing: it is overwritten by the next.
    pub(super) fn redraws(&self) -> bool {
        self.redraws
    }

    /// How many lines a picture may have, so that going up reaches its first.
    pub(super) fn rows(&self) -> usize {
        if !self.redraws {
            return usize::MAX;
        }
        let size = tcgetwinsize(std::io::stdout()).map_or(0, |size| usize::from(size.ws_row));
        if size == 0 { ROWS } else { size }
    }

    /// Shows a text of whole lines.
    pub(super) fn show(&mut self, text: &str) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        if !self.redraws {
            out.write_all(text.as_bytes())?;
            return out.flush();
        }
        if self.drawn > 0 {
            write!(out, "\x1b[{}A", self.drawn)?;
        }
        for line in text.lines() {
            writeln!(out, "\x1b[2K{line}")?;
        }
        // What is left of a longer one before.
        write!(out, "\x1b[J")?;
        self.drawn = text.lines().count();
        out.flush()
    }
}
