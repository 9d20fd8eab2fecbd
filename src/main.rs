//! Parses the command line, hands over to [`finishline::cli`], ends with its exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    finishline::cli::run()
}
