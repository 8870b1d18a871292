//! What several tests need: the server in-process, a client that knows the contract, the vectors.
#![expect(dead_code, reason = "each test binary uses its own part of the support")]

pub mod app;
pub mod contract;
pub mod dice;
pub mod pg;
pub mod sql;

use std::io::Read;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use stagedoor::token::{Clock as _, SystemClock};

/// The vectors nobody in the project wrote: `STAGEDOOR_VECTORS`, or `../shared/vectors` beside the project.
#[expect(
    clippy::disallowed_methods,
    reason = "where the vectors are is a setting of the tests, not of the service"
)]
pub fn vectors() -> Option<PathBuf> {
    let named = std::env::var("STAGEDOOR_VECTORS").ok().map(PathBuf::from);
    let dir = named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/vectors"));
    dir.is_dir().then_some(dir)
}

/// Says that a test could not run here; `scripts/test` collects these lines.
pub fn skip(name: &str, why: &str) {
    println!("SKIP {name}: {why}");
}

/// Everything the other side still sends, as text; a reset ends it like a close.
pub fn read_to_end(mut stream: TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let (mut out, mut buffer) = (Vec::new(), [0_u8; 4096]);
    while let Ok(n) = stream.read(&mut buffer) {
        if n == 0 {
            break;
        }
        out.extend_from_slice(&buffer[..n]);
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Waits until something holds; fails after so many seconds.
pub async fn until_within<F: Future<Output = bool>>(seconds: u64, what: &str, mut holds: impl FnMut() -> F) {
    let clock = SystemClock::default();
    while !holds().await {
        assert!(clock.monotonic() < Duration::from_secs(seconds), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
