//! What the append refuses and ends: ordered by the log, not by clocks.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use stagedoor::server::log::epoch::{self, EpochReason};
use stagedoor::server::log::{
    Beginning, CheckpointSigner, CodeRow, Condition, Effect, Event, EventType, GrantRow, Hold, KeyRow, Log,
    LogError, LogOptions, Record, Recorded, RedeemRow, Revoke, Selector, Tag,
};
use stagedoor::server::revoke::{RevocationState, tidy};
use stagedoor::server::store::Db;
use stagedoor::token::{Act, Clock as _, GrantId};

use crate::harness::{Bench, HOST, SEED, both};

fn tag(text: &str) -> Tag {
    Tag(text.into())
}

fn row(record: &Record) -> &GrantRow {
    let Effect::InsertGrant(row) = &record.effects[0] else { panic!("a grant") };
    row
}

fn row_mut(record: &mut Record) -> &mut GrantRow {
    let Effect::InsertGrant(row) = &mut record.effects[0] else { panic!("a grant") };
    row
}

fn revoking(selector: Selector) -> Record {
    Record {
        effects: vec![Effect::Revoke(Revoke { selector, of_client: None, hold: None })],
        ..Record::of(Event::new(EventType::Revoke)).from_the_reserve()
    }
}

fn actor(sub: &str, iss: Option<&str>) -> Selector {
    let iss = iss.map(|iss| iss.parse().unwrap());
    Selector::Actor { sub: sub.parse().unwrap(), iss, chain: tag(sub) }
}

fn held(mut record: Record, seconds: u32, person: Option<&str>) -> Record {
    let Effect::Revoke(revoke) = &mut record.effects[0] else { panic!("a revocation") };
    revoke.hold = Some(Hold { seconds, person: person.map(tag) });
    record
}

/// A mint as the desk makes it: whom it names stands in a condition.
fn mint(bench: &Bench, actor: &str, subject: &str) -> Record {
    let mut record = bench.grant(actor, subject);
    let row = row(&record).clone();
    let second = bench.clock.now().timestamp();
    let iat = chrono::DateTime::from_timestamp(second, 0).unwrap();
    row_mut(&mut record).iat = iat;
    record.conditions.push(Condition::NotHeld(Box::new(Beginning {
        client: row.client,
        kid: Some(row.kid),
        iat,
        people: vec![tag(actor), tag(subject)],
    })));
    record
}

async fn minted(log: &Log, record: Record) -> GrantId {
    let id = row(&record).id.clone();
    let recorded = log.record(record).await.unwrap();
    assert_eq!(recorded.failed, None);
    id
}

async fn is_live(log: &Log, grant: &GrantId) -> bool {
    let mut record = Record::of(Event::new(EventType::Explain));
    record.conditions.push(Condition::GrantLive(grant.clone()));
    log.record(record).await.unwrap().failed.is_none()
}

async fn known(bench: &Bench) -> RevocationState {
    RevocationState::load(bench.service.clone(), Arc::clone(&bench.clock) as _, 1, None).await.unwrap()
}

async fn revoke(log: &Log, record: Record) -> Recorded {
    let recorded = log.record(record).await.unwrap();
    assert_eq!(recorded.failed, None);
    recorded
}

both! {
    async fn a_revoked_grant_is_over_with_everything_delegated_from_it(bench) {
        let log = bench.log().await;
        let parent = minted(&log, mint(&bench, "admin_7", "user_1")).await;
        let mut child = mint(&bench, "agent_1", "user_1");
        row_mut(&mut child).parent = Some(parent.clone());
        let child = minted(&log, child).await;
        let mut grandchild = mint(&bench, "agent_2", "user_1");
        row_mut(&mut grandchild).parent = Some(child.clone());
        let grandchild = minted(&log, grandchild).await;
        let other = minted(&log, mint(&bench, "admin_7", "user_2")).await;

        let state = known(&bench).await;
        assert!(state.known().sids.is_empty());
        assert_eq!(revoke(&log, revoking(Selector::Grant(parent.clone()))).await.matched, 3);
        for over in [&parent, &child, &grandchild] {
            assert!(!is_live(&log, over).await);
        }
        assert!(is_live(&log, &other).await);
        state.refresh().await.unwrap();
        let known = state.known();
        assert!([&parent, &child, &grandchild].iter().all(|id| known.sids.contains(id.as_str())));
        assert!(!known.sids.contains(other.as_str()));
        assert_eq!(revoke(&log, revoking(Selector::Grant(parent))).await.matched, 0, "nothing is ended twice");
    }
}

both! {
    async fn a_revocation_by_person_finds_every_actor_of_a_chain_and_nobody_else(bench) {
        // contract.md §6: every `act` of a chain counts
        let log = bench.log().await;
        let direct = minted(&log, mint(&bench, "admin_7", "user_1")).await;
        let mut proven = mint(&bench, "admin_7", "user_2");
        let Some(act) = &mut proven.event.personal.actor else { panic!() };
        *act = Act { iss: Some("https://idp.example".parse().unwrap()), ..act.clone() };
        let proven = minted(&log, proven).await;
        let mut nested = mint(&bench, "agent_1", "user_3");
        let row = row(&nested).clone();
        nested.effects.push(Effect::InsertChain { grant: row.id, exp: row.exp, people: vec![tag("admin_7")] });
        let nested = minted(&log, nested).await;
        let as_target = minted(&log, mint(&bench, "admin_8", "admin_7")).await;
        let namesake = minted(&log, mint(&bench, "admin_77", "user_1")).await;

        assert_eq!(revoke(&log, revoking(actor("admin_7", Some("https://idp.example")))).await.matched, 2);
        assert!(!is_live(&log, &proven).await && !is_live(&log, &nested).await);
        assert!(is_live(&log, &direct).await, "compared as (iss, sub)");
        assert_eq!(revoke(&log, revoking(actor("admin_7", None))).await.matched, 1);
        assert!(!is_live(&log, &direct).await);
        assert!(is_live(&log, &as_target).await && is_live(&log, &namesake).await);
        assert_eq!(revoke(&log, revoking(Selector::Subject("admin_7".parse().unwrap()))).await.matched, 1);
        assert!(!is_live(&log, &as_target).await && is_live(&log, &namesake).await);
    }
}

both! {
    async fn a_revocation_by_person_reaches_over_a_new_epoch_and_counts_nothing_between(bench) {
        // between the positions of two epochs lie 2^28 buckets: listing them stopped everything for minutes
        let log = bench.log().await;
        minted(&log, mint(&bench, "admin_7", "user_1")).await;
        log.close().await;
        bench.clock.advance(Duration::from_secs(1));
        let next = || CheckpointSigner::from_seed(&SEED, HOST, 2).unwrap();
        let options = LogOptions { compare_database_clock: false, ..LogOptions::default() };
        let (clock, entropy) = (bench.clock.clone(), Arc::clone(&bench.entropy));
        let (db, why, twice) = (Db::connect(&bench.service_url).await.unwrap(), EpochReason::Restored, options.clone());
        epoch::begin(db.clone(), next(), clock.clone(), Arc::clone(&entropy), twice, why, None).await.unwrap();
        let log = Log::open(db, next(), clock, entropy, options).await.unwrap();
        minted(&log, mint(&bench, "admin_7", "user_2")).await;
        minted(&log, mint(&bench, "admin_8", "user_2")).await;
        let act = Act { sub: "admin_7".parse().unwrap(), iss: None, act: None };
        assert_eq!(log.targets_since(&act, bench.clock.now() - TimeDelta::hours(1)).await.unwrap().len(), 2);
        let mut counted = mint(&bench, "admin_7", "user_3");
        counted.conditions.push(Condition::TargetsBelow { actor: act, subject: "user_3".parse().unwrap(), max: 2 });
        assert!(log.record(counted).await.unwrap().failed.is_some(), "both epochs' targets count");
        let by_actor = revoke(&log, revoking(actor("admin_7", None))).await;
        assert_eq!(by_actor.matched, 2);
        log.close().await;
    }
}

both! {
    async fn a_client_ends_only_its_own_grants_when_confined(bench) {
        let log = bench.log().await;
        let own = minted(&log, mint(&bench, "admin_7", "user_1")).await;
        let mut record = mint(&bench, "admin_7", "user_1");
        row_mut(&mut record).client = "client_2".parse().unwrap();
        let foreign = minted(&log, record).await;
        let mut confined = revoking(actor("admin_7", None));
        let Effect::Revoke(revocation) = &mut confined.effects[0] else { panic!() };
        revocation.of_client = Some("client_1".parse().unwrap());
        assert_eq!(revoke(&log, confined).await.matched, 1);
        assert!(!is_live(&log, &own).await && is_live(&log, &foreign).await);
    }
}

both! {
    async fn a_cut_off_ends_what_was_issued_and_the_same_second_is_not_minted_again(bench) {
        let log = bench.log().await;
        bench.clock.advance(Duration::from_millis(300));
        let before = minted(&log, mint(&bench, "admin_7", "user_1")).await;
        let mut other = mint(&bench, "admin_7", "user_2");
        row_mut(&mut other).client = "client_2".parse().unwrap();
        if let Condition::NotHeld(beginning) = &mut other.conditions[0] {
            beginning.client = "client_2".parse().unwrap();
        }
        let spared = minted(&log, other.clone()).await;
        let mut delegated = mint(&bench, "agent_1", "user_1");
        row_mut(&mut delegated).parent = Some(before.clone());
        row_mut(&mut delegated).client = "client_2".parse().unwrap();
        let delegated = minted(&log, delegated).await;

        let state = known(&bench).await;
        let cut = revoke(&log, revoking(Selector::Client("client_1".parse().unwrap()))).await;
        assert_eq!(cut.matched, 2, "its own, and what was delegated from it to another client");
        assert!(!is_live(&log, &before).await && !is_live(&log, &delegated).await && is_live(&log, &spared).await);
        let second = bench.clock.now().timestamp();
        state.refresh().await.unwrap();
        assert_eq!(state.known().clients.get("client_1"), Some(&second), "this second");

        let Err(LogError::NotYet { after }) = log.record(mint(&bench, "admin_7", "user_1")).await else {
            panic!("nothing is minted with an iat at or below a cut-off");
        };
        assert_eq!(after.timestamp(), second);
        let mut again = other;
        row_mut(&mut again).id = GrantId::generate(bench.clock.now(), &*bench.entropy);
        row_mut(&mut again).jti = "another".parse().unwrap();
        again.event.jti = Some("another".parse().unwrap());
        minted(&log, again).await;
        bench.clock.advance(Duration::from_millis(700));
        let after = minted(&log, mint(&bench, "admin_7", "user_1")).await;
        assert!(is_live(&log, &after).await);

        assert_eq!(revoke(&log, revoking(Selector::All)).await.matched, 3, "the red button");
        assert!(!is_live(&log, &after).await && !is_live(&log, &spared).await);
        state.refresh().await.unwrap();
        assert_eq!(state.known().all, Some(bench.clock.now().timestamp()));
        assert!(matches!(log.record(mint(&bench, "admin_7", "user_1")).await, Err(LogError::NotYet { .. })));
    }
}

both! {
    async fn a_refused_key_ends_what_it_signed_and_signs_nothing_more(bench) {
        let log = bench.log().await;
        let signed = minted(&log, mint(&bench, "admin_7", "user_1")).await;
        assert_eq!(revoke(&log, revoking(Selector::Kid("kid1".parse().unwrap()))).await.matched, 1);
        assert!(!is_live(&log, &signed).await);
        bench.clock.advance(Duration::from_secs(10));
        assert!(matches!(log.record(mint(&bench, "admin_7", "user_1")).await, Err(LogError::NotYet { .. })));
        let mut record = mint(&bench, "admin_7", "user_1");
        row_mut(&mut record).kid = "kid2".parse().unwrap();
        if let Condition::NotHeld(beginning) = &mut record.conditions[0] {
            beginning.kid = Some("kid2".parse().unwrap());
        }
        minted(&log, record).await;
        let state = known(&bench).await;
        assert!(state.known().kids.contains("kid1"));
    }
}

both! {
    async fn a_hold_refuses_new_mints_until_it_is_over(bench) {
        let log = bench.log().await;
        let selector = || actor("admin_7", None);
        revoke(&log, held(revoking(selector()), 60, Some("admin_7"))).await;
        bench.clock.advance(Duration::from_secs(2));
        let refused = log.record(mint(&bench, "admin_7", "user_1")).await.unwrap();
        assert!(matches!(refused.failed, Some(Condition::NotHeld(_))));
        assert_eq!(refused.failed.unwrap().rule(), "on_hold");
        minted(&log, mint(&bench, "admin_8", "user_1")).await;
        // a shorter hold does not shorten a longer one
        revoke(&log, held(revoking(selector()), 5, Some("admin_7"))).await;
        bench.clock.advance(Duration::from_secs(30));
        assert!(log.record(mint(&bench, "admin_7", "user_1")).await.unwrap().failed.is_some());
        bench.clock.advance(Duration::from_secs(30));
        minted(&log, mint(&bench, "admin_7", "user_1")).await;

        revoke(&log, held(revoking(Selector::All), 60, None)).await;
        bench.clock.advance(Duration::from_secs(30));
        assert!(log.record(mint(&bench, "admin_9", "user_1")).await.unwrap().failed.is_some());
        bench.clock.advance(Duration::from_secs(31));
        minted(&log, mint(&bench, "admin_9", "user_1")).await;
        bench.service.clear_expired(bench.clock.now().timestamp_micros() + 3 * 3_600_000_000).await.unwrap();
    }
}

both! {
    async fn mints_and_revocations_at_once_leave_no_survivor_that_was_recorded_before(bench) {
        let log = bench.log().await;
        let mut mints = Vec::new();
        for i in 0..60 {
            let (log, record) = (log.clone(), mint(&bench, "admin_7", &format!("user_{i}")));
            mints.push(tokio::spawn(async move {
                let id = row(&record).id.clone();
                (id, log.record(record).await.unwrap())
            }));
        }
        let revocation = {
            let log = log.clone();
            tokio::spawn(async move { revoke(&log, revoking(actor("admin_7", None))).await })
        };
        let revocation = revocation.await.unwrap();
        let (mut before, mut after) = (0, 0);
        for task in mints {
            let (id, recorded) = task.await.unwrap();
            let live = is_live(&log, &id).await;
            assert_eq!(live, recorded.index > revocation.index, "index {}", recorded.index);
            if live { after += 1 } else { before += 1 }
        }
        assert_eq!(revocation.matched, before);
        assert_eq!(before + after, 60);
    }
}

both! {
    async fn of_a_hundred_uses_of_one_code_and_one_key_the_first_wins(bench) {
        let log = bench.log().await;
        let mut record = mint(&bench, "admin_7", "user_1");
        let grant = row(&record).clone();
        record.effects.push(Effect::InsertCode(CodeRow {
            grant: grant.id.clone(),
            code_hash: tag("hash"),
            redeem_client: "client_1".parse().unwrap(),
            code_challenge: None,
            sealed: vec![1, 2, 3],
            exp: grant.created_at + Duration::from_secs(60),
            keep_until: grant.exp,
        }));
        minted(&log, record).await;
        let stored = bench.service.handoff_code("hash").await.unwrap().unwrap();
        assert_eq!((stored.grant_id.as_str(), stored.used_idx), (grant.id.as_str(), None));

        let use_it = |i: usize| {
            let mut record = Record::of(Event::new(EventType::Redeem));
            record.conditions.push(Condition::CodeUnused(grant.id.clone()));
            record.conditions.push(Condition::KeyFree(tag(if i.is_multiple_of(2) { "even" } else { "odd" })));
            record.effects.push(Effect::Redeem(RedeemRow {
                grant: grant.id.clone(),
                kid: "kid9".parse().unwrap(),
                scope: grant.scope.clone(),
                iat: grant.iat,
                exp: grant.exp,
            }));
            record.effects.push(Effect::InsertKey(KeyRow {
                key: tag(if i.is_multiple_of(2) { "even" } else { "odd" }),
                body: tag("body"),
                grant: grant.id.clone(),
                exp: grant.exp,
            }));
            record
        };
        let other_replica = bench.log().await;
        let mut uses = Vec::new();
        for i in 0..100 {
            let log = if i % 3 == 0 { other_replica.clone() } else { log.clone() };
            let record = use_it(i);
            uses.push(tokio::spawn(async move { log.record(record).await.unwrap() }));
        }
        let mut won = Vec::new();
        for task in uses {
            let recorded = task.await.unwrap();
            match recorded.failed {
                None => won.push(recorded.index),
                Some(condition) => assert!(matches!(condition, Condition::CodeUnused(_) | Condition::KeyFree(_))),
            }
        }
        assert_eq!(won.len(), 1, "one wins");
        let stored = bench.service.handoff_code("hash").await.unwrap().unwrap();
        assert_eq!(stored.used_idx.map(i64::unsigned_abs), Some(won[0]));
        let now = bench.clock.now().timestamp_micros();
        let keys = [bench.service.idempotency("even", now).await, bench.service.idempotency("odd", now).await];
        assert_eq!(keys.iter().filter(|k| k.as_ref().unwrap().is_some()).count(), 1);
    }
}

both! {
    async fn rows_say_what_cut_offs_cover_and_go_when_nothing_is_refused_by_them(bench) {
        let log = bench.log().await;
        for i in 0..3 {
            minted(&log, mint(&bench, "admin_7", &format!("user_{i}"))).await;
        }
        let one = minted(&log, mint(&bench, "admin_8", "user_9")).await;
        revoke(&log, revoking(Selector::Grant(one))).await;
        revoke(&log, revoking(Selector::All)).await;
        let now = bench.clock.now().timestamp_micros();
        assert_eq!(bench.service.mark_cut_off(now).await.unwrap(), 3);
        assert_eq!(bench.service.mark_cut_off(now).await.unwrap(), 0);
        assert_eq!(bench.service.clear_expired(now).await.unwrap(), 0, "still alive");
        assert_eq!(bench.service.clear_expired(now + 700_000_000).await.unwrap(), 1, "the grant has ended");
        assert_eq!(bench.service.clear_expired(now + 3 * 3_600_000_000).await.unwrap(), 1, "the cut-off too");
        let state = known(&bench).await;
        assert!(state.known().sids.is_empty() && state.known().all.is_none());
        assert!(state.known().seq >= 6, "how far the log is known does not go back with the rows");
    }
}

both! {
    async fn what_is_known_to_be_revoked_stays_so_when_its_row_is_deleted(bench) {
        let log = bench.log().await;
        let grant = minted(&log, mint(&bench, "admin_7", "user_1")).await;
        revoke(&log, revoking(Selector::Grant(grant.clone()))).await;
        let state = known(&bench).await;
        revoke(&log, revoking(Selector::Client("client_1".parse().unwrap()))).await;
        revoke(&log, revoking(Selector::Kid("kid_1".parse().unwrap()))).await;
        revoke(&log, revoking(Selector::All)).await;
        state.refresh().await.unwrap();
        let before = state.known();
        assert!(before.all.is_some() && before.kids.contains("kid_1") && before.clients.contains_key("client_1"));

        // as a hand in the database would: everything goes that will have ended in some hours
        let far = bench.clock.now().timestamp_micros() + 3 * 3_600_000_000;
        assert_eq!(bench.service.clear_expired(far).await.unwrap(), 4);
        // everything is read again now and then
        let read_all = async || {
            for _ in 0..480 {
                state.refresh().await.unwrap();
            }
        };
        read_all().await;
        let after = state.known();
        assert_eq!((after.all, &after.kids, &after.clients), (before.all, &before.kids, &before.clients));
        assert!(after.sids.contains(grant.as_str()));
        assert_eq!(state.vanished(), 4, "seen");
        read_all().await;
        assert_eq!(state.vanished(), 4, "and not seen twice");
        assert!(known(&bench).await.known().all.is_none(), "docs/security.md: whoever starts now does not know");

        bench.clock.advance(Duration::from_secs(3661));
        read_all().await;
        let over = state.known();
        assert!(over.all.is_none() && over.kids.is_empty() && over.clients.is_empty());
        assert!(!over.sids.contains(grant.as_str()), "what would have ended by itself goes");
        assert_eq!(state.vanished(), 0);
    }
}

both! {
    async fn a_clock_that_ran_ahead_clears_nothing_and_is_forgotten_when_it_is_right_again(bench) {
        let log = bench.log().await;
        let grant = minted(&log, mint(&bench, "admin_7", "user_1")).await;
        revoke(&log, revoking(Selector::Grant(grant.clone()))).await;
        revoke(&log, revoking(Selector::All)).await;
        let state = known(&bench).await;
        let right = bench.clock.now();
        bench.clock.jump_to(right + TimeDelta::days(1));
        tidy(&bench.service, &*bench.clock).await.unwrap();
        for _ in 0..480 {
            state.refresh().await.unwrap();
        }
        bench.clock.jump_to(right + TimeDelta::milliseconds(250));
        assert!(state.is_stale(), "read in the future");
        state.refresh().await.unwrap();
        assert!(!state.is_stale(), "as soon as it is read again");
        for seen in [state.known(), known(&bench).await.known()] {
            assert!(seen.sids.contains(grant.as_str()) && seen.all.is_some());
        }
        assert_eq!(state.vanished(), 0);
    }
}

both! {
    async fn a_revocation_by_person_finds_a_grant_whose_id_is_younger_than_its_place(bench) {
        // ids are made when a request begins, places when it is recorded
        let log = bench.log().await;
        let slow = mint(&bench, "admin_7", "user_1");
        bench.clock.advance(Duration::from_secs(1));
        let fast = minted(&log, mint(&bench, "admin_7", "user_2")).await;
        let others = (0..4096).map(|_| log.record(Record::of(Event::new(EventType::Explain))));
        for recorded in futures_util::future::join_all(others).await {
            recorded.unwrap();
        }
        let slow = minted(&log, slow).await;
        assert_eq!(revoke(&log, revoking(actor("admin_7", None))).await.matched, 2);
        assert!(!is_live(&log, &fast).await && !is_live(&log, &slow).await);
    }
}

both! {
    async fn a_key_or_client_is_ended_with_what_others_got_from_it_each_counted_once(bench) {
        let log = bench.log().await;
        let parent = minted(&log, mint(&bench, "admin_7", "user_1")).await;
        let mut child = mint(&bench, "agent_1", "user_1");
        row_mut(&mut child).parent = Some(parent);
        let (kid, client) = (row(&child).kid.clone(), row(&child).client.clone());
        minted(&log, child).await;
        assert_eq!(revoke(&log, revoking(Selector::Client(client))).await.matched, 2);
        assert_eq!(revoke(&log, revoking(Selector::Kid(kid))).await.matched, 0, "nothing is ended twice");
    }
}

both! {
    async fn knowledge_that_was_not_read_again_grows_stale_and_a_look_makes_it_fresh(bench) {
        let log = bench.log().await;
        minted(&log, mint(&bench, "admin_7", "user_1")).await;
        let state = known(&bench).await;
        bench.clock.advance(Duration::from_secs(5));
        assert!(!state.is_stale());
        bench.clock.advance(Duration::from_secs(1));
        assert!(state.is_stale(), "older than five seconds (contract.md §7)");
        state.refresh().await.unwrap();
        assert!(!state.is_stale());
        bench.clock.jump_to(bench.clock.now() - chrono::TimeDelta::seconds(60));
        assert!(state.is_stale(), "a clock that was set back");
        state.refresh().await.unwrap();
        bench.clock.advance(Duration::from_secs(4));
        bench.clock.jump_to(bench.clock.now() - chrono::TimeDelta::seconds(4));
        bench.clock.advance(Duration::from_secs(2));
        assert!(state.is_stale(), "six seconds have passed, whatever the clock says");
    }
}

both! {
    async fn an_append_asks_the_database_whatever_the_one_before_it_knew(bench) {
        // on SQLite an append assumes, and checks as it inserts: a log that only remembered would let all of these stand
        let log = bench.log().await;
        log.record(Record::of(Event::new(EventType::Explain))).await.unwrap();
        let with_key = |mut record: Record| {
            let grant = row(&record).clone();
            record.conditions.push(Condition::KeyFree(tag("key")));
            let (key, body) = (tag("key"), tag("body"));
            record.effects.push(Effect::InsertKey(KeyRow { key, body, grant: grant.id, exp: grant.exp }));
            record
        };
        let first = log.record(with_key(mint(&bench, "admin_7", "user_1"))).await.unwrap();
        assert_eq!(first.failed, None);
        let second = log.record(with_key(mint(&bench, "admin_7", "user_1"))).await.unwrap();
        assert_eq!(second.failed, Some(Condition::KeyFree(tag("key"))));

        let mut stranger = mint(&bench, "admin_7", "user_1");
        let gone = Condition::ClientActive("client_gone".parse().unwrap());
        stranger.conditions.push(gone.clone());
        assert_eq!(log.record(stranger).await.unwrap().failed, Some(gone));

        let mut unused = mint(&bench, "admin_7", "user_1");
        let no_code = Condition::CodeUnused(row(&unused).id.clone());
        unused.conditions.push(no_code.clone());
        assert_eq!(log.record(unused).await.unwrap().failed, Some(no_code));
        assert_eq!(log.record(mint(&bench, "admin_7", "user_1")).await.unwrap().failed, None);
        log.close().await;
    }
}
