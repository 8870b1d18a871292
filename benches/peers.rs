//! Minting beside what others do under the same load, in one run: `cargo bench --bench peers`.
//!
//! npm `oidc-provider`'s token exchange in memory, without policy or log; npm `better-auth`'s impersonation on SQLite
//! with durable commits. Ours has policy, log and durability on. Needs node and npm.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures the time that passes")]
#![expect(clippy::cast_precision_loss, reason = "figures for people, three digits of them")]

#[path = "shared/allocator.rs"]
mod allocator;
#[path = "shared/figures.rs"]
#[expect(dead_code, reason = "shared with the other benches")]
mod figures;
#[path = "shared/load.rs"]
#[expect(dead_code, reason = "shared with the other benches")]
mod load;
#[path = "shared/ours.rs"]
mod ours;

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use figures::{Asked, figure};
use load::{Load, Until, load, post};

/// Each is measured under all of these loads and counts with the best: more connections make our batches larger, and are
/// of no use to who answers one after the other.
const CONNECTIONS: [usize; 3] = [64, 256, 512];
const SECONDS: Until = Until::Seconds(5);

/// A peer that runs, ended with this value.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a peer; it says in one line of JSON where and what to post.
fn start(script: &str) -> (Peer, SocketAddr, String) {
    let mut child = Command::new("node")
        .arg(script)
        .current_dir(folder())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("node is installed");
    let out = BufReader::new(child.stdout.take().expect("piped"));
    let line = out.lines().map_while(Result::ok).find(|line| line.starts_with('{')).expect("the peer starts");
    let told: Value = serde_json::from_str(&line).expect("JSON");
    let port = told["port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let headers = told["headers"].as_object().expect("headers").iter();
    let headers: String =
        headers.map(|(name, value)| format!("{name}: {}\r\n", value.as_str().unwrap_or_default())).collect();
    let text = |name: &str| told[name].as_str().unwrap_or_default().to_owned();
    (Peer(child), address, post(address, &text("path"), &headers, &text("body")))
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers"))
}

/// Requests answered in a second, under the load that suits it better.
async fn best(name: &str, address: SocketAddr, request: &str) -> f64 {
    let mut best = 0.0;
    for connections in CONNECTIONS {
        let Load { per_second, p50, p99 } = load(address, request.to_owned(), connections, SECONDS).await;
        println!(
            "{name:<48} {connections:>4} connections {per_second:>7.0} /s  p50 {p50:>7.2?}  p99 {p99:>7.2?}"
        );
        best = f64::max(best, per_second);
    }
    best
}

#[tokio::main]
async fn main() {
    if !folder().join("node_modules").exists() {
        let installed =
            Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(folder()).status();
        assert!(installed.is_ok_and(|status| status.success()), "npm ci in benches/peers");
    }
    let (running, secret, _dir) = ours::on_sqlite(256).await;
    let request = ours::request(running.address, "/v1/actor_tokens", &secret);
    let ours = best("stagedoor, SQLite: policy, log, durable", running.address, &request).await;
    running.stop().await.expect("a clean stop");
    for (name, script, asked) in [
        ("oidc-provider's token exchange, in memory", "oidc-provider.mjs", Asked::AtLeast(5.0)),
        ("better-auth's impersonation, SQLite FULL", "better-auth.mjs", Asked::Nothing),
    ] {
        let (peer, address, request) = start(script);
        // a first second for its compiler
        load(address, request.clone(), CONNECTIONS[0], Until::Seconds(2)).await;
        let seen = best(name, address, &request).await;
        drop(peer);
        figure(&format!("mint, sqlite, over {name}"), ours / seen, "x", asked);
    }
}
