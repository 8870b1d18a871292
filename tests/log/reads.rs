//! Reading: filters, stable cursors, grants, proofs and tiles.

use std::time::Duration;

use stagedoor::server::log::read::Step;
use stagedoor::server::log::tree::{self, Hash, leaf_hash};
use stagedoor::server::log::{
    ApprovalRow, ApprovalState, Checkpoint, Condition, Cursor, CursorError, Decision, Effect, EntryFilter,
    Event, EventType, GrantFilter, GrantStatus, LogOptions, ReadError, Record, Revoke, Selector, proof,
};
use stagedoor::token::{Clock as _, GrantId, Sub};

use crate::harness::{Bench, both, issue};

fn sub(text: &str) -> Sub {
    text.parse().unwrap()
}

/// 40 entries: every fourth denied, users alternating between two.
async fn filled(bench: &Bench) -> stagedoor::server::log::Log {
    let log = bench.log().await;
    for i in 0..40u64 {
        bench.clock.advance(Duration::from_secs(1));
        let subject = if i % 2 == 0 { "user_even" } else { "user_odd" };
        if i % 4 == 3 {
            let mut event = issue("admin_7", subject);
            event.personal.ticket = Some(format!("T{i}"));
            log.deny(event, "never_self").await.unwrap();
        } else {
            log.record(bench.grant(if i < 20 { "admin_7" } else { "admin_8" }, subject)).await.unwrap();
        }
    }
    log
}

async fn indexes(log: &stagedoor::server::log::Log, filter: &EntryFilter) -> Vec<u64> {
    let mut out = Vec::new();
    let mut cursor = None;
    loop {
        let page = log.entries(filter, cursor, 7, false).await.unwrap();
        assert!(page.rows.len() <= 7);
        out.extend(page.rows.iter().map(|row| row.index));
        let Some(next) = page.next else { break };
        cursor = Cursor::read(Some(&next), filter).unwrap();
    }
    assert!(out.is_sorted_by(|a, b| a > b), "newest first, none twice: {out:?}");
    out.reverse();
    out
}

both! {
    async fn filters_find_what_they_name_and_pages_join_without_gaps(bench) {
        let log = filled(&bench).await;
        let all = EntryFilter::default();
        assert_eq!(indexes(&log, &all).await, (0..40).collect::<Vec<_>>());
        let denied = EntryFilter { decision: Some("denied".into()), ..all.clone() };
        let expected: Vec<u64> = (0..40).filter(|i| i % 4 == 3).collect();
        assert_eq!(indexes(&log, &denied).await, expected);
        let rule = EntryFilter { rule: Some("never_self".into()), ..all.clone() };
        assert_eq!(indexes(&log, &rule).await, expected);
        let odd = EntryFilter { subject: Some(sub("user_odd")), ..all.clone() };
        assert_eq!(indexes(&log, &odd).await, (0..40).filter(|i| i % 2 == 1).collect::<Vec<_>>());
        let both = EntryFilter { actor: Some(sub("admin_8")), subject: Some(sub("user_odd")), ..all.clone() };
        assert_eq!(indexes(&log, &both).await, vec![21, 25, 29, 33, 37]);
        let ticket = EntryFilter { ticket: Some("T23".into()), ..all.clone() };
        assert_eq!(indexes(&log, &ticket).await, vec![23]);
        let client = EntryFilter { client: "client_1".parse().ok(), typ: Some("issue".into()), ..all.clone() };
        assert_eq!(indexes(&log, &client).await.len(), 40);
        let nobody = EntryFilter { subject: Some(sub("nobody")), ..all.clone() };
        assert!(indexes(&log, &nobody).await.is_empty());
        let start = bench.clock.now() - Duration::from_secs(39);
        let window = EntryFilter {
            since: Some(start + Duration::from_secs(5)),
            until: Some(start + Duration::from_secs(9)),
            ..all.clone()
        };
        assert_eq!(indexes(&log, &window).await, vec![5, 6, 7, 8]);
        let future = EntryFilter { since: Some(bench.clock.now() + Duration::from_secs(1)), ..all.clone() };
        assert!(indexes(&log, &future).await.is_empty());
        let ascending: Vec<u64> =
            log.entries_from(&denied, 8, 3, false).await.unwrap().iter().map(|row| row.index).collect();
        assert_eq!(ascending, vec![11, 15, 19]);
        assert_eq!(log.entries_from(&all, 38, 10, false).await.unwrap().len(), 2);
        log.close().await;
    }
}

both! {
    async fn a_cursor_belongs_to_its_query_and_new_entries_do_not_move_it(bench) {
        let log = filled(&bench).await;
        let all = EntryFilter::default();
        let page = log.entries(&all, None, 5, false).await.unwrap();
        log.record(bench.grant("a", "u")).await.unwrap();
        let next = page.next.unwrap();
        let second = log.entries(&all, Cursor::read(Some(&next), &all).unwrap(), 5, false).await.unwrap();
        assert_eq!(second.rows[0].index, 34);
        let other = EntryFilter { typ: Some("issue".into()), ..all.clone() };
        assert_eq!(Cursor::read(Some(&next), &other), Err(CursorError::OtherQuery));
        for bad in ["", "x", "////", &"A".repeat(100)] {
            assert!(Cursor::read(Some(bad), &all).is_err(), "{bad}");
        }
        log.close().await;
    }
}

both! {
    async fn personal_data_is_shown_only_when_asked_for(bench) {
        let log = bench.log().await;
        log.record(bench.grant("admin_7", "user_42")).await.unwrap();
        let filter = EntryFilter::default();
        let plain = log.entries(&filter, None, 1, false).await.unwrap().rows.remove(0);
        assert!(plain.personal.is_none() && plain.disclosures.is_empty());
        assert!(!plain.body_text.contains("user_42"));
        let full = log.entries(&filter, None, 1, true).await.unwrap().rows.remove(0);
        let personal = full.personal.as_ref().unwrap().to_json();
        assert_eq!(personal["sub"], "user_42");
        assert_eq!(personal["act"]["sub"], "admin_7");
        assert_eq!(personal["addr"], "192.0.2.7");
        assert_eq!(full.leaf_hex().len(), 64);
        log.close().await;
    }
}

both! {
    async fn grants_are_listed_newest_first_with_their_people_and_status(bench) {
        let log = filled(&bench).await;
        let now = bench.clock.now();
        let filter = GrantFilter::default();
        let page = log.grants(&filter, None, 100, now).await.unwrap();
        assert_eq!(page.rows.len(), 30);
        assert!(page.next.is_none());
        assert!(page.rows.is_sorted_by(|a, b| a.index > b.index));
        assert_eq!(page.rows[0].subject, Some(sub("user_even")));
        assert_eq!(page.rows[0].actor.as_ref().unwrap().sub, sub("admin_8"));
        assert_eq!(page.rows[0].status, GrantStatus::Pending);
        let one = log.grant(&page.rows[3].row.id).await.unwrap().unwrap();
        assert_eq!(one, page.rows[3]);
        let by = |subject: Option<&str>, actor: Option<&str>, status| GrantFilter {
            client: "client_1".parse().ok(),
            subject: subject.map(sub),
            actor: actor.map(sub),
            status,
        };
        for (filter, expected) in [
            (by(Some("user_odd"), None, None), 10),
            (by(Some("user_odd"), Some("admin_8"), None), 5),
            (by(None, Some("admin_7"), Some(GrantStatus::Active)), 15),
            (by(None, Some("admin_7"), Some(GrantStatus::Expired)), 0),
            (by(None, None, Some(GrantStatus::Active)), 30),
            (by(None, None, Some(GrantStatus::Pending)), 30),
            (by(None, None, Some(GrantStatus::Revoked)), 0),
            (by(None, None, Some(GrantStatus::Accepted)), 0),
            (GrantFilter { client: "client_other".parse().ok(), ..GrantFilter::default() }, 0),
        ] {
            let mut found = 0;
            let mut cursor = None;
            loop {
                let page = log.grants(&filter, cursor, 4, now).await.unwrap();
                found += page.rows.len();
                let Some(next) = page.next else { break };
                cursor = Cursor::read(Some(&next), &filter).unwrap();
            }
            assert_eq!(found, expected, "{filter:?}");
        }
        let later = now + Duration::from_secs(700);
        let expired = by(None, None, Some(GrantStatus::Expired));
        assert_eq!(log.grants(&expired, None, 100, later).await.unwrap().rows.len(), 30);
        assert!(log.grant(&"act_none".parse().unwrap()).await.unwrap().is_none());
        log.close().await;
    }
}

both! {
    async fn targets_per_hour_are_counted_inside_the_append(bench) {
        let log = bench.log().await;
        let with_limit = |subject: &str| {
            let mut record = bench.grant("admin_7", subject);
            let actor = record.event.personal.actor.clone().unwrap();
            record.conditions.push(Condition::TargetsBelow { actor, subject: sub(subject), max: 2 });
            record
        };
        for (subject, allowed) in [("u1", true), ("u2", true), ("u3", false), ("u2", true), ("u3", false)] {
            let recorded = log.record(with_limit(subject)).await.unwrap();
            assert_eq!(recorded.failed.is_none(), allowed, "{subject}");
        }
        let actor = with_limit("x").event.personal.actor.unwrap();
        let now = bench.clock.now();
        assert_eq!(log.targets_since(&actor, now - Duration::from_mins(1)).await.unwrap().len(), 2);
        bench.clock.advance(Duration::from_secs(3601));
        assert!(log.record(with_limit("u3")).await.unwrap().failed.is_none(), "an hour later");
        // in one batch: the first of them counts for the second
        let together = futures_util::future::join_all(
            (0..10).map(|i| log.record(with_limit(&format!("v{i}")))),
        )
        .await;
        let granted = together.iter().filter(|r| r.as_ref().unwrap().failed.is_none()).count();
        assert_eq!(granted, 1, "u3 was the other");
        log.close().await;
    }
}

both! {
    async fn a_delegated_grant_needs_a_living_parent(bench) {
        let log = bench.log().await;
        let parent = bench.grant("a", "u");
        let id = parent.event.grant.clone().unwrap();
        let mut child = bench.grant("service", "u");
        child.conditions.push(Condition::GrantLive(id.clone()));
        assert!(log.record(child.clone()).await.unwrap().failed.is_some(), "no such grant yet");
        log.record(parent).await.unwrap();
        let mut second = bench.grant("service", "u");
        second.conditions.push(Condition::GrantLive(id.clone()));
        assert!(log.record(second).await.unwrap().failed.is_none());
        bench.clock.advance(Duration::from_secs(601));
        let mut late = bench.grant("service", "u");
        late.conditions.push(Condition::GrantLive(id));
        assert!(log.record(late).await.unwrap().failed.is_some(), "it has ended");
        log.close().await;
    }
}

/// Fills the log to exactly `size` entries, in large batches.
async fn grow(bench: &Bench, log: &stagedoor::server::log::Log, from: u64, size: u64) {
    let mut left = size - from;
    while left > 0 {
        let take = left.min(512);
        let records = (0..take).map(|_| log.record(Record::of(Event::new(EventType::Explain))));
        for answer in futures_util::future::join_all(records).await {
            answer.unwrap();
        }
        left -= take;
    }
    let _ = bench;
}

both! {
    async fn proofs_and_tiles_agree_at_the_sizes_where_trees_change_shape(bench) {
        // invariants 5, 15
        let options = LogOptions { compare_database_clock: false, ..LogOptions::default() };
        let log = bench.log_with(options).await;
        let verifier = Bench::signer().verifier().clone();
        let empty = Checkpoint::open(&log.checkpoint().await.unwrap(), &verifier).unwrap();
        assert_eq!((empty.size, empty.root), (0, tree::empty_root()));
        assert!(matches!(log.proof(0).await, Err(ReadError::Range(_))));
        assert!(matches!(log.tile(0, 0, None).await, Err(ReadError::Range(_))));
        let mut checkpoints = vec![empty];
        let mut size = 0;
        for next in [1u64, 2, 255, 256, 257, 511, 513, 700] {
            grow(&bench, &log, size, next).await;
            size = next;
            let checkpoint = Checkpoint::open(&log.checkpoint().await.unwrap(), &verifier).unwrap();
            assert_eq!(checkpoint.size, size);
            for index in [0, 1, 254, 255, 256, 510, size - 1] {
                if index >= size {
                    assert!(matches!(log.proof(index).await, Err(ReadError::Range(_))));
                    continue;
                }
                let body = log.entry(index, false).await.unwrap().unwrap().body_text;
                let (at, under) = proof::verify(&log.proof(index).await.unwrap(), body.as_bytes(), &verifier).unwrap();
                assert_eq!((at, &under), (index, &checkpoint));
            }
            for old in &checkpoints {
                let shown = log.consistency(old.size, Some(size)).await.unwrap();
                let path: Vec<Hash> = shown.hashes.iter().map(|hash| decode(hash)).collect();
                assert!(tree::verify_consistency(old.size, &old.root, size, &checkpoint.root, &path));
            }
            checkpoints.push(checkpoint);
        }
        check_tiles(&log, size).await;
        assert!(matches!(log.consistency(5, Some(701)).await, Err(ReadError::Range(_))));
        assert!(matches!(log.consistency(9, Some(5)).await, Err(ReadError::Range(_))));
        log.close().await;
    }
}

fn decode(hash: &str) -> Hash {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(hash).unwrap().try_into().unwrap()
}

async fn check_tiles(log: &stagedoor::server::log::Log, size: u64) {
    let full = log.tile(0, 0, None).await.unwrap();
    assert!(full.full && full.bytes.len() == 8192);
    let upper = log.tile(1, 0, Some(2)).await.unwrap();
    assert!(!upper.full && upper.bytes.len() == 64);
    let partial = log.tile(0, 2, Some(size - 512)).await.unwrap();
    assert_eq!(partial.bytes.len() as u64, (size - 512) * 32);
    let bundle = log.entry_bundle(0, None).await.unwrap();
    let mut rest = bundle.bytes.as_slice();
    for leaf in full.bytes.chunks(32) {
        let length = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
        assert_eq!(leaf_hash(&rest[2..2 + length]), leaf);
        rest = &rest[2 + length..];
    }
    assert!(rest.is_empty());
    for (level, n, width) in [
        (0, 3, None),
        (0, 2, None),
        (0, 2, Some(size - 511)),
        (2, 0, Some(1)),
        (6, 0, Some(1)),
        (0, 0, Some(0)),
        (0, 0, Some(256)),
        (0, u64::MAX, None),
    ] {
        assert!(matches!(log.tile(level, n, width).await, Err(ReadError::Range(_))), "{level}/{n}/{width:?}");
    }
}

both! {
    async fn a_token_is_found_by_its_id_and_by_what_was_signed(bench) {
        let log = filled(&bench).await;
        let verifier = Bench::signer().verifier().clone();
        let record = bench.grant("a", "u");
        let (jti, signed) = (record.event.jti.clone().unwrap(), record.event.signed_sha256.unwrap());
        let recorded = log.record(record).await.unwrap();
        for found in [log.find_jti(jti.as_str(), false).await.unwrap(), log.find_signed(&signed, false).await.unwrap()] {
            let found = found.unwrap();
            assert_eq!(found.entry.index, recorded.index);
            proof::verify(&found.proof, found.entry.body_text.as_bytes(), &verifier).unwrap();
        }
        let mut near = signed;
        near[31] ^= 1;
        assert!(log.find_signed(&near, false).await.unwrap().is_none(), "the whole hash is compared");
        assert!(log.find_jti("unknown", false).await.unwrap().is_none());
        log.close().await;
    }
}

both! {
    /// Two people's grants ended in one microsecond, as in one batch: each history names its own revocation.
    async fn a_history_names_the_revocation_that_ended_its_grant(bench) {
        let log = bench.log().await;
        let granted = async |subject: &str| {
            let record = bench.grant("admin_7", subject);
            let id = record.event.grant.clone().unwrap();
            log.record(record).await.unwrap();
            id
        };
        let revoke = async |decision: Decision, selector: Option<Selector>| {
            let event = Event { decision: Some(decision), ..Event::new(EventType::Revoke) };
            let ends = selector.map(|selector| Effect::Revoke(Revoke { selector, of_client: None, hold: None }));
            let record = Record { effects: ends.into_iter().collect(), ..Record::of(event) };
            log.record(record).await.unwrap().index
        };
        let ended_by = async |grant: &GrantId| {
            let grant = log.grant(grant).await.unwrap().unwrap();
            let stage = log.history(&grant, bench.clock.now(), false).await.unwrap().pop().unwrap();
            assert_eq!(stage.step, Step::Stopped);
            stage.entry.map(|entry| entry.index)
        };
        let (his, hers, theirs) = (granted("user_1").await, granted("user_2").await, granted("user_3").await);
        let first = revoke(Decision::Granted, Some(Selector::Subject(sub("user_1")))).await;
        let second = revoke(Decision::Granted, Some(Selector::Subject(sub("user_2")))).await;
        bench.clock.advance(Duration::from_secs(1));
        let third = revoke(Decision::Granted, Some(Selector::Subject(sub("user_3")))).await;
        revoke(Decision::Denied, None).await;
        let of_all = async || [ended_by(&his).await, ended_by(&hers).await, ended_by(&theirs).await];
        assert_eq!(of_all().await, [Some(first), Some(second), Some(third)]);
        // once it is not kept any more which entry ended which grant, none is named that may be another's
        bench.clock.advance(Duration::from_mins(20));
        bench.service.clear_expired(bench.clock.now().timestamp_micros()).await.unwrap();
        assert_eq!(of_all().await, [None, None, Some(third)]);
        log.close().await;
    }
}

both! {
    async fn open_requests_come_in_the_order_in_which_they_lapse(bench) {
        let log = bench.log().await;
        let now = bench.clock.now();
        for minutes in [20, 10, 30, 15] {
            let mut record = bench.grant("admin_7", &format!("user_{minutes}"));
            record.effects.push(Effect::InsertApproval(ApprovalRow {
                grant: record.event.grant.clone().unwrap(),
                state: ApprovalState::Waiting,
                lapses_at: now + Duration::from_mins(minutes),
                lifetime_seconds: 600,
                asker: None,
            }));
            log.record(record).await.unwrap();
        }
        let open = async |limit: u32| {
            let open = log.open_requests(now, true, limit).await.unwrap();
            open.iter().map(|grant| grant.subject.as_ref().unwrap().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(open(9).await, ["user_10", "user_15", "user_20", "user_30"]);
        assert_eq!(open(2).await, ["user_10", "user_15"], "what is cut off has the most time");
        log.close().await;
    }
}
