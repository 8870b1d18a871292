//! The `stagedoor` binary: arguments → one call → exit code.

use std::process::ExitCode;

/// What one thread takes another gives back: requests become rows in SQLite's thread. The C library's allocator locks for
/// that, and a mint cost a fifth more (`benches/mint.rs`, 256 connections).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    stagedoor::server::cli::run(std::env::args_os())
}
