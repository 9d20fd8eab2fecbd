//! Parses the command line, hands over to [`finishline::cli`], ends with its exit code.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Bounded memory needs an allocator that gives back what large bodies took.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    finishline::cli::run()
}
