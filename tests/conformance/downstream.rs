//! The wall, as a downstream service sees it.

use std::process::Command;

#[test]
fn a_downstream_service_gets_the_guard_and_nothing_of_the_server() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/downstream_crate/Cargo.toml");
    // Our own versions, so that nothing has to be fetched; what is left over is dropped by cargo.
    let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock");
    std::fs::copy(lock, manifest.replace("Cargo.toml", "Cargo.lock")).unwrap();
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
