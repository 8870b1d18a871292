//! The `stagedoor` binary: arguments → one call → exit code.

fn main() {}
