//! The binary: arguments in, exit code out.

#![forbid(unsafe_code)]

use std::process::ExitCode;

/// Gives memory back after a flood, and asks for no huge pages (its feature `no_thp`): with them an idle stream costs three
/// times the memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    obleth::cli::run()
}
