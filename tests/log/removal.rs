//! Erasure, pruning, epochs: what leaves the log, what stays provable.

use std::time::Duration;

use chrono::TimeDelta;
use sqlx::Connection as _;
use stagedoor::server::log::epoch::{self, EpochError, EpochReason};
use stagedoor::server::log::erase::{ACTOR_RETENTION, RemovalError, Whom, erase, prune};
use stagedoor::server::log::verify::{self, Finding};
use stagedoor::server::log::{
    ApprovalRow, ApprovalState, Checkpoint, CheckpointSigner, CodeRow, Condition, Effect, EntryFilter, Event,
    EventType, Fatal, Log, LogError, LogOptions, ReadError, Record, Tag, proof,
};
use stagedoor::server::store::whole::private_rows;
use stagedoor::server::store::{Db, check_service_role};
use stagedoor::token::{Clock as _, GrantId};

use crate::harness::{Bench, HOST, SEED, both};

async fn owner_log(bench: &Bench) -> Log {
    let options = LogOptions { compare_database_clock: false, ..LogOptions::default() };
    bench.open(bench.owner.clone(), options).await.unwrap()
}

async fn holds(bench: &Bench, checkpoints: &[Checkpoint]) {
    let report =
        verify::database(&bench.service, checkpoints, Some(&Bench::log_key()), &mut |_, _| ()).await.unwrap();
    assert!(report.holds(), "{:?}", report.findings);
}

fn checkpoint(note: &str) -> Checkpoint {
    Checkpoint::open(note, Bench::signer().verifier()).unwrap()
}

both! {
    async fn an_erased_person_is_gone_and_every_proof_still_holds(bench) {
        // invariant 13
        let log = owner_log(&bench).await;
        for i in 0..30 {
            log.record(bench.grant("admin_7", if i % 3 == 0 { "user_forgetme" } else { "user_other" })).await.unwrap();
        }
        let before = checkpoint(&log.checkpoint().await.unwrap());
        let old = log.proof(3).await.unwrap();
        let whom = Whom::Subject("user_forgetme".parse().unwrap());
        let now = bench.clock.now();
        let erased = erase(&log, &whom, now, ACTOR_RETENTION).await.unwrap();
        assert_eq!((erased.entries, erased.too_young), (10, 0));
        assert_eq!(erase(&log, &whom, now, ACTOR_RETENTION).await.unwrap().entries, 0, "nothing left");
        let filter = EntryFilter { subject: "user_forgetme".parse().ok(), ..EntryFilter::default() };
        assert!(log.entries(&filter, None, 50, true).await.unwrap().rows.is_empty());
        let entry = log.entry(3, true).await.unwrap().unwrap();
        let personal = entry.personal.as_ref().unwrap();
        assert!(personal.get("sub").is_none() && personal.get("reason").is_none());
        assert_eq!(personal.get("act").unwrap()["sub"], "admin_7", "the actor's trail stays");
        let verifier = Bench::signer().verifier().clone();
        for receipt in [old, log.proof(3).await.unwrap()] {
            proof::verify(&receipt, entry.body_text.as_bytes(), &verifier).unwrap();
        }
        let erasures = EntryFilter { typ: Some("erase".into()), ..EntryFilter::default() };
        let logged = log.entries(&erasures, None, 5, true).await.unwrap().rows.remove(0);
        assert!(!logged.body_text.contains("forgetme"), "{}", logged.body_text);
        log.close().await;
        holds(&bench, &[before]).await;
        check_service_role(&bench.service).await.unwrap();
        bench.owner.forget().await.unwrap();
    }
}

both! {
    async fn two_erasures_at_once_bring_nothing_back(bench) {
        let (one, other) = (owner_log(&bench).await, owner_log(&bench).await);
        for _ in 0..40 {
            one.record(bench.grant("admin_forgetme", "user_forgetme")).await.unwrap();
        }
        let now = bench.clock.now() + ACTOR_RETENTION + Duration::from_hours(1);
        let whom = Whom::Actor { sub: "admin_forgetme".parse().unwrap(), iss: None, basis: "request".into() };
        // each has read every row before either of them has the log's lock
        let (his, hers) = tokio::join!(
            erase(&one, &whom, now, ACTOR_RETENTION),
            async { erase(&other, &Whom::Subject("user_forgetme".parse().unwrap()), bench.clock.now(), ACTOR_RETENTION).await }
        );
        assert_eq!((his.unwrap().entries, hers.unwrap().entries), (40, 40));
        let left = private_rows(&bench.service, -1, 1000).await.unwrap();
        assert!(left.is_empty(), "{left:?}");
        one.close().await;
        other.close().await;
        holds(&bench, &[]).await;
    }
}

both! {
    /// Both run beside the service: what goes between the start of a check and its last row is no tampering.
    async fn what_is_erased_while_the_log_is_verified_is_explained(bench) {
        let log = owner_log(&bench).await;
        // a check that has begun has read some thousand entries before it says how far it is
        for _ in 0..14 {
            let records = (0..700).map(|_| log.record(Record::of(Event::new(EventType::Explain))));
            for answer in futures_util::future::join_all(records).await {
                answer.unwrap();
            }
        }
        for subject in ["user_forgetme", "user_other"] {
            log.record(bench.grant("admin_7", subject)).await.unwrap();
        }
        let whom = Whom::Subject("user_forgetme".parse().unwrap());
        let (mut erased, now) = (0, bench.clock.now());
        let mut meanwhile = |_, _| {
            if erased == 0 {
                erased = tokio::task::block_in_place(|| {
                    let erasure = erase(&log, &whom, now, ACTOR_RETENTION);
                    tokio::runtime::Handle::current().block_on(erasure).unwrap().entries
                });
            }
        };
        let report = verify::database(&bench.service, &[], Some(&Bench::log_key()), &mut meanwhile).await.unwrap();
        assert!(report.holds(), "{:?}", report.findings);
        assert_eq!((erased, report.entries), (1, 9802), "as far as the log went when the check began");
        log.close().await;
        holds(&bench, &[]).await;
    }
}

both! {
    async fn what_the_policy_would_be_asked_with_goes_with_the_person(bench) {
        let log = owner_log(&bench).await;
        let mut grants = Vec::new();
        for (code, subject) in [("his", "user_forgetme"), ("other", "user_other")] {
            let mut record = bench.grant("admin_7", subject);
            let grant = record.event.grant.clone().unwrap();
            let exp = bench.clock.now() + Duration::from_mins(10);
            record.effects.push(Effect::InsertFacts { grant: grant.clone(), sealed: vec![7; 40], exp });
            record.effects.push(Effect::InsertCode(CodeRow {
                grant: grant.clone(),
                code_hash: Tag(code.into()),
                redeem_client: "client_1".parse().unwrap(),
                code_challenge: None,
                sealed: vec![7; 40],
                exp,
                keep_until: exp,
            }));
            log.record(record).await.unwrap();
            grants.push(grant);
        }
        let erased = erase(&log, &Whom::Subject("user_forgetme".parse().unwrap()), bench.clock.now(), ACTOR_RETENTION).await.unwrap();
        assert_eq!((erased.entries, erased.ended), (1, 1), "what is live on him ends: nobody could name him any more");
        let live = async |grant: &GrantId| log.grant(grant).await.unwrap().unwrap().is_live(bench.clock.now());
        assert_eq!((live(&grants[0]).await, live(&grants[1]).await), (false, true));
        let facts = async |grant: &GrantId| bench.service.grant_facts(grant.as_str()).await.unwrap();
        assert_eq!((facts(&grants[0]).await, facts(&grants[1]).await), (None, Some(vec![7; 40])));
        let code = async |code: &str| bench.service.handoff_code(code).await.unwrap().unwrap().sealed;
        assert_eq!((code("his").await, code("other").await), (vec![], vec![7; 40]));
        log.close().await;
        bench.owner.forget().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_byte_of_an_erased_person_stays_in_the_file() {
    // invariant 13: secure_delete, WAL truncated, searched byte by byte
    let bench = Bench::sqlite().await.unwrap();
    let Db::Sqlite(file) = &bench.service else { panic!("sqlite") };
    let path = file.path().to_path_buf();
    let secret = "user_forgetme_4711";
    let found = |path: &std::path::Path| {
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
    };
    let log = owner_log(&bench).await;
    for _ in 0..200 {
        log.record(bench.grant("admin_7", secret)).await.unwrap();
        log.record(bench.grant("admin_7", "user_other")).await.unwrap();
    }
    let wal = path.with_extension("db-wal");
    assert!(found(&path) || found(&wal), "it was there");
    erase(&log, &Whom::Subject(secret.parse().unwrap()), bench.clock.now(), ACTOR_RETENTION).await.unwrap();
    log.close().await;
    bench.owner.forget().await.unwrap();
    for file in std::fs::read_dir(path.parent().unwrap()).unwrap() {
        assert!(!found(&file.as_ref().unwrap().path()), "{file:?}");
    }
    holds(&bench, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_byte_of_an_erased_person_stays_in_a_relation_of_postgresql() {
    // invariant 13: deleted, rewritten, every relation's file searched, the planner's statistics included
    let Some(bench) = Bench::postgres().await else { return };
    let secret = "user_forgetme_4711";
    let mut admin = sqlx::PgConnection::connect(bench.super_url.as_ref().unwrap()).await.unwrap();
    let mut analyst = sqlx::PgConnection::connect(bench.super_url.as_ref().unwrap()).await.unwrap();
    let mut holding = async || {
        sqlx::raw_sql("CHECKPOINT").execute(&mut admin).await.unwrap();
        let sql = "SELECT oid::regclass::text FROM pg_class WHERE pg_relation_filepath(oid) IS NOT NULL \
             AND position(convert_to($1, 'UTF8') IN pg_read_binary_file(pg_relation_filepath(oid))) > 0";
        sqlx::query_scalar::<_, String>(sql).bind(secret).fetch_all(&mut admin).await.unwrap()
    };
    let log = owner_log(&bench).await;
    for _ in 0..50 {
        log.record(bench.grant("admin_7", secret)).await.unwrap();
        log.record(bench.grant("admin_7", "user_other")).await.unwrap();
    }
    sqlx::raw_sql("ANALYZE audit_private").execute(&mut analyst).await.unwrap();
    let before = holding().await;
    for place in ["audit_private", "audit_private_subject", "pg_statistic"] {
        assert!(before.iter().any(|name| name == place), "{place}: {before:?}");
    }
    // somebody's older view would keep the rows through any rewriting: it is waited for
    let mut reader = sqlx::PgConnection::connect(&bench.service_url).await.unwrap();
    let reading = async {
        let held = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM audit_private";
        sqlx::raw_sql(held).execute(&mut reader).await.unwrap();
        erase(&log, &Whom::Subject(secret.parse().unwrap()), bench.clock.now(), ACTOR_RETENTION)
            .await
            .unwrap();
        log.close().await;
        let ending = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            sqlx::raw_sql("COMMIT").execute(&mut reader).await.unwrap();
        };
        tokio::join!(bench.owner.forget(), ending).0.unwrap();
    };
    reading.await;
    assert_eq!(holding().await, Vec::<String>::new());
    holds(&bench, &[]).await;
}

both! {
    async fn nobody_erases_his_own_fresh_trail(bench) {
        let log = owner_log(&bench).await;
        log.record(bench.grant("admin_7", "user_1")).await.unwrap();
        bench.clock.advance(Duration::from_hours(24 * 200));
        log.record(bench.grant("admin_7", "user_2")).await.unwrap();
        bench.clock.advance(Duration::from_hours(24 * 200));
        let now = bench.clock.now();
        let actor = |basis: &str| Whom::Actor { sub: "admin_7".parse().unwrap(), iss: None, basis: basis.into() };
        assert!(matches!(erase(&log, &actor("his name is X"), now, ACTOR_RETENTION).await, Err(RemovalError::Basis)));
        let erased = erase(&log, &actor("art-17"), now, ACTOR_RETENTION).await.unwrap();
        assert_eq!((erased.entries, erased.too_young), (1, 1));
        let kept = log.entry(0, true).await.unwrap().unwrap().personal.unwrap();
        assert!(kept.get("act").is_none() && kept.get("addr").is_none());
        assert_eq!(kept.get("sub").unwrap(), "user_1");
        assert!(matches!(
            prune(&log, now - TimeDelta::days(3), now, ACTOR_RETENTION).await,
            Err(RemovalError::TooYoung(365))
        ));
        log.close().await;
        holds(&bench, &[]).await;
    }
}

both! {
    async fn the_service_role_can_neither_erase_nor_prune(bench) {
        // invariant 11: on PostgreSQL by privilege
        if bench.super_url.is_none() {
            return;
        }
        let log = bench.log().await;
        log.record(bench.grant("admin_7", "user_1")).await.unwrap();
        let whom = Whom::Subject("user_1".parse().unwrap());
        let refused = erase(&log, &whom, bench.clock.now(), ACTOR_RETENTION).await;
        assert!(matches!(refused, Err(RemovalError::Log(LogError::Unavailable(_)))), "{refused:?}");
        log.record(bench.grant("admin_7", "user_2")).await.unwrap();
        log.close().await;
        holds(&bench, &[]).await;
    }
}

both! {
    async fn pruned_bodies_leave_their_hashes_and_every_later_proof(bench) {
        let log = owner_log(&bench).await;
        let early = async |from: u64, to: u64| {
            let records = (from..to).map(|_| log.record(Record::of(Event::new(EventType::Explain))));
            for answer in futures_util::future::join_all(records).await {
                answer.unwrap();
            }
        };
        early(0, 600).await;
        let old = checkpoint(&log.checkpoint().await.unwrap());
        bench.clock.advance(Duration::from_hours(24 * 400));
        for part in 0..3 {
            early(600 + part * 700, 600 + (part + 1) * 700).await;
        }
        let now = bench.clock.now();
        let before = now - TimeDelta::days(370);
        assert_eq!(prune(&log, before, now, ACTOR_RETENTION).await.unwrap(), 512, "whole tiles only");
        assert_eq!(prune(&log, before, now, ACTOR_RETENTION).await.unwrap(), 0, "once");
        assert!(log.entry(100, false).await.unwrap().is_none());
        assert!(matches!(log.entry_bundle(0, None).await, Err(ReadError::Pruned)));
        assert_eq!(log.tile(0, 0, None).await.unwrap().bytes.len(), 8192, "hashes stay");
        let verifier = Bench::signer().verifier().clone();
        let late = log.entry(600, false).await.unwrap().unwrap();
        proof::verify(&log.proof(600).await.unwrap(), late.body_text.as_bytes(), &verifier).unwrap();
        assert!(!log.consistency(old.size, None).await.unwrap().hashes.is_empty());
        log.close().await;
        holds(&bench, &[old]).await;
        check_service_role(&bench.service).await.unwrap();
        bench.log().await.close().await;
    }
}

both! {
    async fn an_approval_planted_between_two_epochs_is_none(bench) {
        let log = bench.log().await;
        let mut asked = bench.grant("a", "u");
        let grant = asked.event.grant.clone().unwrap();
        asked.effects.push(Effect::InsertApproval(ApprovalRow {
            grant: grant.clone(),
            state: ApprovalState::Waiting,
            lapses_at: bench.clock.now() + Duration::from_mins(30),
            lifetime_seconds: 600,
            asker: None,
        }));
        log.record(asked).await.unwrap();
        log.close().await;
        let signer = || CheckpointSigner::from_seed(&SEED, HOST, 2).unwrap();
        let options = LogOptions { compare_database_clock: false, ..LogOptions::default() };
        let (clock, entropy) = (bench.clock.clone(), bench.entropy.clone());
        let reason = EpochReason::Restored;
        epoch::begin(bench.service.clone(), signer(), clock.clone(), entropy.clone(), options.clone(), reason, None)
            .await
            .unwrap();
        let log = Log::open(bench.service.clone(), signer(), clock, entropy, options).await.unwrap();
        let counts = async || {
            let conditions = vec![Condition::Approved(grant.clone())];
            let record = Record { conditions, ..Record::of(Event::new(EventType::Use)) };
            log.record(record).await.unwrap().failed.is_none()
        };
        let body = format!(r#"{{"typ":"approve","grant":"{grant}","decision":"granted"}}"#);
        let blob: String = body.bytes().map(|byte| format!("{byte:02x}")).collect();
        let url = bench.super_url.as_ref().unwrap_or(&bench.service_url);
        let (unguard, bytes, leaf) = if matches!(bench.service, Db::Sqlite(_)) {
            ("DROP TRIGGER audit_entry_no_replace", format!("x'{blob}'"), "zeroblob(32)")
        } else {
            (
                "ALTER TABLE audit_entry DISABLE TRIGGER audit_entry_follows",
                format!("decode('{blob}', 'hex')"),
                r"decode(repeat('00', 32), 'hex')",
            )
        };
        let plant = format!("INSERT INTO audit_entry (idx, t_us, leaf, body) VALUES (100, 0, {leaf}, {bytes})");
        let refused = crate::sql::try_execute(&bench.service_url, &plant).await;
        assert!(refused.is_err_and(|error| error.to_string().contains("append-only")), "nothing goes below the head");
        crate::sql::execute(url, unguard).await;
        for forge in [plant.as_str(), "UPDATE approval SET state = 'approved', decided_idx = 100"] {
            assert_eq!(crate::sql::execute(url, forge).await, 1);
        }
        assert!(!counts().await, "no head seals it");
        log.close().await;
    }
}

both! {
    async fn a_new_epoch_names_what_it_continues_and_stops_the_old_one(bench) {
        // invariants 9 and 10: the way on after a restore
        let running = bench.log().await;
        for i in 0..5 {
            running.record(bench.grant("a", &format!("u{i}"))).await.unwrap();
        }
        let known = checkpoint(&running.checkpoint().await.unwrap());
        let start = async |epoch: u32, known: Option<Checkpoint>| {
            let signer = CheckpointSigner::from_seed(&SEED, HOST, epoch).unwrap();
            let db = Db::connect(&bench.service_url).await.unwrap();
            let options = LogOptions { compare_database_clock: false, ..LogOptions::default() };
            let (clock, entropy) = (bench.clock.clone(), bench.entropy.clone());
            epoch::begin(db, signer, clock, entropy, options, EpochReason::Restored, known.as_ref()).await
        };
        assert!(matches!(start(3, None).await, Err(EpochError::Signer { next: 2, signer: 3 })));
        let first = start(2, Some(known.clone())).await.unwrap();
        assert_eq!((first.epoch, first.index), (2, 0));
        let refused = running.record(bench.grant("a", "u")).await;
        assert!(matches!(refused, Err(LogError::Stopped(Fatal::Epoch { database: 2, seen: 1 }))), "{refused:?}");
        let signer = CheckpointSigner::from_seed(&SEED, HOST, 2).unwrap();
        let options = LogOptions { compare_database_clock: false, ..LogOptions::default() };
        let db = Db::connect(&bench.service_url).await.unwrap();
        let log = Log::open(db, signer, bench.clock.clone(), bench.entropy.clone(), options).await.unwrap();
        assert_eq!(log.origin(), "log.example/audit/2");
        for i in 0..300 {
            log.record(bench.grant("a", if i % 2 == 0 { "u1" } else { "u2" })).await.unwrap();
        }
        let entry = log.entry(0, false).await.unwrap().unwrap();
        assert_eq!(entry.body.as_ref().unwrap()["detail"]["continues"]["size"], 5);
        let all = log.entries(&EntryFilter::default(), None, 500, false).await.unwrap().rows;
        assert_eq!(all.len(), 306, "both epochs are listed");
        let of_user = EntryFilter { subject: "u1".parse().ok(), ..EntryFilter::default() };
        assert_eq!(log.entries(&of_user, None, 500, false).await.unwrap().rows.len(), 151, "across epochs");
        assert!(matches!(log.find_jti("none", false).await, Ok(None)));
        proof::verify(
            &log.proof(256).await.unwrap(),
            log.entry(256, false).await.unwrap().unwrap().body_text.as_bytes(),
            CheckpointSigner::from_seed(&SEED, HOST, 2).unwrap().verifier(),
        )
        .unwrap();
        log.close().await;
        holds(&bench, std::slice::from_ref(&known)).await;
        let forged = Checkpoint { size: 6, ..known };
        let report = verify::database(&bench.service, &[forged], Some(&Bench::log_key()), &mut |_, _| ()).await.unwrap();
        assert_eq!(report.findings, vec![(1, Finding::Rollback { checkpoint: 6, size: 5 })]);
    }
}
