//! Uses of tokens: sampled once a minute a token, over all replicas.

use std::sync::Arc;
use std::time::Duration;

use stagedoor::server::log::read::Step;
use stagedoor::server::log::sightings::Sightings;
use stagedoor::server::log::{Decision, Effect, Event, EventType, Log, Record, Revoke, Selector};
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
    let waits = async {
        while uses(log, grant).await < times {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waits).await.expect("the use is recorded");
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
        let saw = |at: &Sightings, grant: &GrantId| at.saw(grant.as_str(), None, "verify", None, &*bench.clock);
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

        // seen before a stop and recorded after it, as by a replica that was busy
        let stopped = granted(&bench, &log).await;
        let late = Arc::new(Sightings::default());
        saw(&late, &stopped);
        bench.clock.advance(Duration::from_secs(1));
        let ends = Revoke { selector: Selector::Grant(stopped.clone()), of_client: None, hold: None };
        let mut event = Event { decision: Some(Decision::Granted), ..Event::new(EventType::Revoke) };
        event.grant = Some(stopped.clone());
        log.record(Record { effects: vec![Effect::Revoke(ends)], ..Record::of(event) }).await.unwrap();
        bench.clock.advance(Duration::from_secs(1));
        let (here, into, clock) = (Arc::clone(&late), log.clone(), Arc::clone(&bench.clock));
        tokio::spawn(async move { here.record(&into, &*clock).await });
        until_used(&log, &stopped, 1).await;
        let now = bench.clock.now();
        let grant = log.grant(&stopped).await.unwrap().unwrap();
        let steps: Vec<Step> = log.history(&grant, now, false).await.unwrap().iter().map(|stage| stage.step).collect();
        assert_eq!(steps, [Step::Issued, Step::Used, Step::Stopped], "in the order of their time");
        log.close().await;
    }
}
