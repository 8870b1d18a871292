//! The wall, as a downstream service sees it.

use std::process::Command;

#[test]
fn a_downstream_service_gets_the_guard_and_nothing_of_the_server() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/downstream_crate/Cargo.toml");
    // The versions that this package is built with; cargo drops from the copy what is not needed.
    let (ours, copy) = ("/Cargo.lock", "/tests/downstream_crate/Cargo.lock");
    let root = env!("CARGO_MANIFEST_DIR");
    std::fs::copy(format!("{root}{ours}"), format!("{root}{copy}")).unwrap();
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "-e", "normal", "--prefix", "none", "--manifest-path", manifest])
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    let has = |name: &str| tree.lines().any(|line| line.split(' ').next() == Some(name));
    assert!(has("actix-web") && has("jsonwebtoken") && has("stagedoor"));
    for servers in
        ["sqlx", "sqlx-core", "libsqlite3-sys", "cedar-policy", "clap", "toml", "reqwest", "axum-core", "h2"]
    {
        assert!(!has(servers), "{servers} came along");
    }
}
