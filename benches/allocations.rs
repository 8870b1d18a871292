//! How often a mint asks the allocator, beside the same server's ceiling: counted, not timed, so any machine will do.
//! The load generator's own (the same in both) are in it.
//!
//! `cargo bench --bench allocations`

#![expect(clippy::disallowed_methods, reason = "a benchmark measures the time that passes")]
#![expect(clippy::cast_precision_loss, reason = "figures for people, three digits of them")]

#[path = "shared/ceiling.rs"]
mod ceiling;
#[path = "shared/figures.rs"]
#[expect(dead_code, reason = "shared with the other benches")]
mod figures;
#[path = "shared/load.rs"]
#[expect(dead_code, reason = "shared with the other benches")]
mod load;
#[path = "shared/ours.rs"]
mod ours;

use std::alloc::System;
use std::net::SocketAddr;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use figures::{Asked, figure};
use load::{Until, load};
use ours::{on_sqlite, request};

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CONNECTIONS: usize = 64;
const REQUESTS: u64 = 20_000;

#[tokio::main]
async fn main() {
    let (running, secret, _dir) = on_sqlite(256).await;
    let (address, handle) = ceiling::start(running.service.clone());
    let (bare, bare_bytes) = count(address, request(address, "/", &secret)).await;
    handle.stop(false).await;
    let minted = request(running.address, "/v1/actor_tokens", &secret);
    let (mint, mint_bytes) = count(running.address, minted).await;
    running.stop().await.expect("a clean stop");
    figure("allocations of one mint, SQLite", mint, "", Asked::Nothing);
    figure("bytes allocated by one mint, SQLite", mint_bytes, "B", Asked::Nothing);
    figure("allocations of the ceiling's answer", bare, "", Asked::Nothing);
    figure("bytes allocated by the ceiling's answer", bare_bytes, "B", Asked::Nothing);
}

/// Allocations and bytes of one request, after a warm-up.
async fn count(address: SocketAddr, request: String) -> (f64, f64) {
    load(address, request.clone(), CONNECTIONS, Until::Requests(REQUESTS / 10)).await;
    let region = Region::new(COUNTED);
    load(address, request, CONNECTIONS, Until::Requests(REQUESTS)).await;
    let change = region.change();
    let each = |total: usize| total as f64 / REQUESTS as f64;
    (each(change.allocations + change.reallocations), each(change.bytes_allocated))
}
