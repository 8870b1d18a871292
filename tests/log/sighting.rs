//! Uses of tokens: sampled once a minute a token, over all replicas.

use std::sync::Arc;
use std::time::Duration;

use stagedoor::server::log::read::Step;
use stagedoor::server::log::sightings::Sightings;
use stagedoor::server::log::{Effect, Log, Record};
use stagedoor::token::{Clock as _, GrantId};

use crate::harness::{Bench, both};

async fn granted(bench: &Bench, log: &Log) -> GrantId {
    let record: Record = bench.grant("admin_7", "user_1");
    let Effect::InsertGrant(row) = &record.effects[0] else { panic!("a grant") };
    let id = row.id.clone();
    log.record(record).await.unwrap();
    id
}

async fn uses(log: &Log, grant: &GrantId) -> usize {
    let entries = log.entries_of_grant(grant, false).await.unwrap();
    entries.iter().filter(|entry| Step::of(entry) == Step::Used).count()
}

async fn until_used(log: &Log, grant: &GrantId, times: usize) {
    while uses(log, grant).await < times {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A replica with a memory of its own, recording into `log`.
fn replica(bench: &Bench, log: &Log) -> Arc<Sightings> {
    let sightings = Arc::new(Sightings::default());
    let (here, log, clock) = (Arc::clone(&sightings), log.clone(), Arc::clone(&bench.clock));
    tokio::spawn(async move { here.record(&log, &*clock).await });
    sightings
}

both! {
    async fn a_use_is_sampled_once_a_minute_over_all_replicas(bench) {
        let log = bench.log().await;
        let (first, second) = (replica(&bench, &log), replica(&bench, &log));
        let grant = granted(&bench, &log).await;
        let saw = |at: &Sightings, grant: &GrantId| at.saw(grant.as_str(), None, "verify", None, bench.clock.monotonic());
        for _ in 0..5 {
            saw(&first, &grant);
        }
        until_used(&log, &grant, 1).await;
        saw(&second, &grant);
        // what comes in later batches is recorded after it was looked at
        for _ in 0..2 {
            let other = granted(&bench, &log).await;
            saw(&second, &other);
            until_used(&log, &other, 1).await;
        }
        assert_eq!(uses(&log, &grant).await, 1, "another replica recorded it within the minute");
        bench.clock.advance(Duration::from_secs(61));
        saw(&second, &grant);
        until_used(&log, &grant, 2).await;
        log.close().await;
    }
}
