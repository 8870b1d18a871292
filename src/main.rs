//! The `stagedoor` binary: arguments → one call → exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    stagedoor::server::cli::run(std::env::args_os())
}
