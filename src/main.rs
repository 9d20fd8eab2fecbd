//! Parses the command line, hands over to [`finishline::cli`], ends with its exit code.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    finishline::cli::run().await
}
