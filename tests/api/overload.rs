//! More than the log can record: refused early with 503 and `Retry-After`, one client's flood does not starve another,
//! and what was answered with a token is in the log.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use stagedoor::server::log::LogOptions;

use crate::support::app::{Database, TestApp, mint_body};

/// A log that takes four attempts a commit and a quarter of a second for each.
fn slow() -> LogOptions {
    LogOptions { batch: 4, commit_delay: Duration::from_millis(250), ..LogOptions::default() }
}

/// How many a lone client may have waiting then: half of what four commits take.
const SHARE: usize = 8;

async fn a_flood_is_shed_and_another_client_is_served(database: Database) {
    let Some(app) = TestApp::start_with(database, slow()).await else { return };
    let (flooding, quiet) = (app.minter().await, app.minter().await);
    let body = mint_body();
    let flood = join_all((0..100).map(|_| flooding.api.mint(&body)));
    let others = async {
        let mut tokens = Vec::new();
        for _ in 0..3 {
            // comes while the flood waits, and finds room each time
            tokens.push(quiet.api.mint(&body).await.ok()["token"].clone());
        }
        tokens
    };
    let (flood, others) = tokio::join!(flood, others);
    let mut released: HashSet<String> =
        others.iter().map(|token| token.as_str().expect("a token").to_owned()).collect();
    let mut shed = 0;
    for reply in flood {
        match reply.status.as_u16() {
            200 => assert!(released.insert(reply.json()["token"].as_str().expect("a token").to_owned())),
            503 => {
                assert_eq!(reply.json()["errors"][0]["code"], "log_unavailable");
                assert_eq!(reply.header("retry-after"), Some("1"));
                shed += 1;
            }
            other => panic!("{other}: {}", reply.text()),
        }
    }
    assert!(shed >= 100 - 2 * SHARE, "only {shed} were shed");
    assert!(released.len() > 3 + SHARE / 2, "the flooding client is served too: {}", released.len());
    // it recovers at once: nothing is left over
    quiet.api.mint(&body).await.ok();
    let metrics = app.api.get("/metrics").await.text();
    assert!(metrics.contains(&format!("\nstagedoor_log_shed_total {shed}\n")), "{metrics}");
    assert!(metrics.contains("\nstagedoor_log_waiting 0\n"), "{metrics}");
    let entries = app.stop_and_read_the_log().await;
    let issued = entries.iter().filter(|e| e["typ"] == "issue" && e["decision"] == "granted").count();
    assert_eq!(issued, released.len() + 1, "what was released is recorded, what was shed is not");
}

/// A stop is not an attempt: however many wait, it gets in.
async fn a_flood_never_takes_the_red_button_away(database: Database) {
    let Some(app) = TestApp::start_with(database, slow()).await else { return };
    let (flooding, body) = (app.minter().await, mint_body());
    let token = flooding.api.mint(&body).await.ok()["token"].as_str().expect("a token").to_owned();
    let flood = join_all((0..100).map(|_| flooding.api.mint(&body)));
    let stop = async {
        // the flood was polled first, so it waits already
        app.api.with_secret(&token).post("/v1/actor_tokens/stop", &serde_json::json!({})).await.ok()
    };
    let (flood, stopped) = tokio::join!(flood, stop);
    assert_eq!(stopped["status"], "revoked");
    assert!(flood.iter().any(|reply| reply.status.as_u16() == 503));
}

macro_rules! both {
    ($($name:ident)+) => {
        mod sqlite { $(#[tokio::test] async fn $name() { super::$name(super::Database::Sqlite).await; })+ }
        mod postgres { $(#[tokio::test] async fn $name() { super::$name(super::Database::Postgres).await; })+ }
    };
}

both! { a_flood_is_shed_and_another_client_is_served a_flood_never_takes_the_red_button_away }
