//! Exports: complete, safe to open, verifiable from outside, never half there.

use stagedoor::server::log::export::{self, ExportError, ExportFormat, Notes};
use stagedoor::server::log::verify::{self, Directory, Finding};
use stagedoor::server::log::{Checkpoint, Event, EventType, Log, Record, read};

use crate::harness::{Bench, HOST, both, issue};

async fn filled(bench: &Bench) -> Log {
    let log = bench.log().await;
    for i in 0..10 {
        log.record(bench.grant("admin_7", &format!("user_{i}"))).await.unwrap();
    }
    let mut event = issue("=cmd|' /C calc'!A0", "user_x");
    event.personal.reason = Some("@SUM(1)\r\nsecond line, \"quoted\"".into());
    log.deny(event, "never_self").await.unwrap();
    log.record(Record::of(Event::new(EventType::Heartbeat))).await.unwrap();
    log
}

both! {
    async fn ndjson_csv_and_ocsf_hold_every_entry_and_no_formula(bench) {
        let log = filled(&bench).await;
        let dir = tempfile::tempdir().unwrap();
        let out = |name: &str| dir.path().join(name);
        let export = async |format, name: &str, personal| {
            export::entries(log.db(), format, HOST, &out(name), personal).await
        };
        assert_eq!(export(ExportFormat::Ndjson, "a.ndjson", true).await.unwrap(), 12);
        let text = std::fs::read_to_string(out("a.ndjson")).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((lines.len(), lines[3]["index"].as_u64()), (12, Some(3)));
        assert_eq!(lines[3]["personal"]["sub"], "user_3");
        assert_eq!(export(ExportFormat::Ndjson, "b.ndjson", false).await.unwrap(), 12);
        assert!(!std::fs::read_to_string(out("b.ndjson")).unwrap().contains("user_3"));

        assert_eq!(export(ExportFormat::Csv, "a.csv", true).await.unwrap(), 12);
        let csv = std::fs::read_to_string(out("a.csv")).unwrap();
        assert!(csv.contains("\"'=cmd|' /C calc'!A0\""), "{csv}");
        assert!(csv.contains("\"'@SUM(1)\r\nsecond line, \"\"quoted\"\"\""));
        assert!(!csv.contains(",=") && !csv.contains(",@") && !csv.contains(",\"="));

        assert_eq!(export(ExportFormat::Ocsf, "a.ocsf", true).await.unwrap(), 11, "attempts only");
        let text = std::fs::read_to_string(out("a.ocsf")).unwrap();
        let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!((first["class_uid"].as_u64(), first["type_uid"].as_u64()), (Some(3002), Some(300_207)));
        assert_eq!(first["metadata"]["uid"], "log.example/audit/1#0");
        assert_eq!((&first["actor"]["user"]["uid"], &first["user"]["uid"]), (&"admin_7".into(), &"user_0".into()));

        assert!(matches!(export(ExportFormat::Csv, "a.csv", true).await, Err(ExportError::Exists(_))));
        let nowhere = export::entries(log.db(), ExportFormat::Csv, HOST, &out("no/such/place"), true).await;
        assert!(matches!(nowhere, Err(ExportError::Write(..))));
        let names = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(names, 4, "nothing half-written is left");
        log.close().await;
    }
}

both! {
    async fn a_tile_directory_verifies_from_outside_and_a_changed_one_does_not(bench) {
        let log = filled(&bench).await;
        let verifier = Bench::signer().verifier().clone();
        let early = Checkpoint::open(&log.checkpoint().await.unwrap(), &verifier).unwrap();
        let more = (0..600).map(|_| log.record(Record::of(Event::new(EventType::Explain))));
        for answer in futures_util::future::join_all(more).await {
            answer.unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("log");
        let head = read::newest_head(log.db()).await.unwrap().unwrap();
        let note = log.checkpoint().await.unwrap();
        let notes = Notes { checkpoint: note, witnessed: None, vkey: log.vkey() };
        assert_eq!(export::tiles(log.db(), &head, &notes, &out).await.unwrap(), 612);
        let verify = async |earlier: &[Checkpoint]| {
            verify::published(&Directory(out.clone()), &verifier, earlier, &mut |done, all| assert!(done <= all)).await
        };
        let report = verify(std::slice::from_ref(&early)).await.unwrap();
        assert!(report.holds(), "{:?}", report.findings);
        assert_eq!(report.entries, 612);
        let later = Checkpoint { size: 700, ..early.clone() };
        let fork = Checkpoint { root: [1; 32], ..early };
        let found = verify(&[later, fork]).await.unwrap().findings;
        assert!(found.contains(&(1, Finding::Rollback { checkpoint: 700, size: 612 })));
        assert!(found.contains(&(1, Finding::Fork(12))), "{found:?}");

        let bundle = out.join("tile/entries/001");
        let mut bytes = std::fs::read(&bundle).unwrap();
        bytes[10] ^= 1;
        std::fs::write(&bundle, bytes).unwrap();
        assert!(verify(&[]).await.unwrap().findings.contains(&(1, Finding::Body(256))));
        let tile = out.join("tile/0/000");
        let mut bytes = std::fs::read(&tile).unwrap();
        bytes[0] ^= 1;
        std::fs::write(&tile, bytes).unwrap();
        let found = verify(&[]).await.unwrap().findings;
        assert!(found.contains(&(1, Finding::Head(612))) && found.contains(&(1, Finding::Subtree(1, 0))), "{found:?}");
        log.close().await;
    }
}
