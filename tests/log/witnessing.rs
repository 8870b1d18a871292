//! Witnesses over HTTP: what they cosign is kept and shown, and a log that went back is seen by them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use stagedoor::server::app::{RunningWitness, WitnessSetup, start_witness};
use stagedoor::server::log::note::{NoteError, split};
use stagedoor::server::log::witness::{CosignatureVerifier, request};
use stagedoor::server::log::witnessing::{WitnessAt, Witnesses};
use stagedoor::server::log::{Checkpoint, CheckpointSigner, Event, EventType, Log, Record};
use stagedoor::server::outbound::{Call, Outbound, OutboundConfig};
use stagedoor::server::store::cosig;
use stagedoor::token::{Clock as _, SystemEntropy};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Bench, HOST, both};

/// A witness of the bench's log on a port of its own.
fn witness(bench: &Bench, dir: &TempDir, name: &str) -> RunningWitness {
    let setup = WitnessSetup {
        listen: "127.0.0.1:0".parse().unwrap(),
        name: name.into(),
        logs: vec![Bench::signer().verifier().clone()],
        state: dir.path().join(name.replace('/', "_")),
    };
    start_witness(setup, Arc::clone(&bench.clock) as _, &SystemEntropy).unwrap()
}

fn outbound(url: String) -> Outbound {
    Outbound::new(&OutboundConfig { destinations: vec![url], allow_http: true, ..OutboundConfig::default() })
        .unwrap()
}

/// One witness, which is required, at `address` under `verifier`.
fn asked(address: std::net::SocketAddr, verifier: CosignatureVerifier) -> Witnesses {
    let outbound = outbound(format!("http://{address}"));
    let url = outbound.destination(&format!("http://{address}/add-checkpoint")).unwrap();
    Witnesses::new(vec![WitnessAt { url, verifier }], 1, outbound)
}

async fn record(log: &Log, count: usize) {
    let records = (0..count).map(|_| log.record(Record::of(Event::new(EventType::Explain))));
    for answer in futures_util::future::join_all(records).await {
        answer.unwrap();
    }
}

both! {
    /// Issue 3 §4: cosignatures are collected, kept, and shown with the checkpoint they are of.
    async fn a_witness_cosigns_what_grew(bench) {
        let dir = TempDir::new().unwrap();
        let running = witness(&bench, &dir, "witness.example/w1");
        let verifier = running.verifier.clone();
        let witnesses = asked(running.address, verifier.clone());
        let log = bench.log().await;
        let round = async || witnesses.round(&log, bench.clock.now()).await.unwrap();
        round().await;
        assert!(witnesses.witnessed(&log).await.unwrap().is_none(), "an empty log has nothing to cosign");
        for (more, advance) in [(3, 0), (300, 11), (1, 11), (0, 11)] {
            record(&log, more).await;
            bench.clock.advance(Duration::from_secs(advance));
            round().await;
            let note = log.checkpoint().await.unwrap();
            let shown = witnesses.cosigned(&log, note.clone()).await.unwrap();
            assert_eq!(witnesses.witnessed(&log).await.unwrap().as_deref(), Some(shown.as_str()));
            let (text, lines) = split(&shown).unwrap();
            assert!(shown.starts_with(&note) && verifier.verify(text, lines).is_ok(), "{shown}");
            assert!(Checkpoint::open(&shown, Bench::signer().verifier()).is_ok());
            assert_eq!(witnesses.unwitnessed(bench.clock.now()).num_seconds(), 0);
        }
        // one more entry waits until the next round is due, and is counted
        for _ in 0..2 {
            record(&log, 1).await;
            round().await;
        }
        bench.clock.advance(Duration::from_secs(7));
        assert_eq!(witnesses.unwitnessed(bench.clock.now()).num_seconds(), 7);
        assert_eq!(witnesses.refusals(), [("witness.example/w1".to_owned(), false)]);
        let newest = log.checkpoint().await.unwrap();
        assert_eq!(witnesses.cosigned(&log, newest.clone()).await.unwrap(), newest, "nobody has signed this one");
        // a line that the witness did not sign is neither shown nor counted, even if somebody writes it into the table
        let forged = "\u{2014} witness.example/w1 AAAA";
        for size in [306, 400] {
            cosig::add(&bench.service, size, "witness.example/w1", forged).await.unwrap();
        }
        assert_eq!(witnesses.cosigned(&log, newest.clone()).await.unwrap(), newest);
        // nor does a true one, put where another epoch would be
        let lines = cosig::newest(&bench.service, 0, 305, 1).await.unwrap();
        assert_eq!((lines[0].0, lines.len()), (305, 1));
        cosig::add(&bench.service, (1 << 40) + 305, "witness.example/w1", &lines[0].2).await.unwrap();
        for fresh in [&asked(running.address, verifier), &witnesses] {
            fresh.round(&log, bench.clock.now()).await.unwrap();
            assert!(!fresh.refusals()[0].1, "more than there is was cosigned by nobody");
            assert_eq!(fresh.unwitnessed(bench.clock.now()).num_seconds(), 7, "306 waits as before");
        }
        running.stop().await;
        log.close().await;
    }
}

/// Witnesses at these addresses, all of them required.
fn all_of(asked: &[(SocketAddr, &RunningWitness)]) -> Witnesses {
    let at = |address: &SocketAddr| format!("http://{address}");
    let destinations = asked.iter().map(|(address, _)| at(address)).collect();
    let config = OutboundConfig { destinations, allow_http: true, ..OutboundConfig::default() };
    let outbound = Outbound::new(&config).unwrap();
    let list = asked.iter().map(|(address, running)| WitnessAt {
        url: outbound.destination(&format!("{}/add-checkpoint", at(address))).unwrap(),
        verifier: running.verifier.clone(),
    });
    Witnesses::new(list.collect(), asked.len(), outbound.clone())
}

/// A way to the witness at `to` on which the log grows: by some entries before each call arrives.
async fn busy(log: &Log, to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let log = log.clone();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            record(&log, 2).await;
            let mut to = TcpStream::connect(to).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
        }
    });
    address
}

both! {
    /// Only lines on one size make a quorum: every witness is asked about the same checkpoint, however busy the log is.
    async fn two_witnesses_cosign_one_checkpoint_while_the_log_grows(bench) {
        let dir = TempDir::new().unwrap();
        let (first, second) = (witness(&bench, &dir, "witness.example/w1"), witness(&bench, &dir, "witness.example/w2"));
        let log = bench.log().await;
        record(&log, 3).await;
        let witnesses = all_of(&[(busy(&log, first.address).await, &first), (second.address, &second)]);
        witnesses.round(&log, bench.clock.now()).await.unwrap();
        assert!(log.known_size() > 3, "the log grew between the two");
        let witnessed = witnesses.witnessed(&log).await.unwrap().expect("both signed one checkpoint");
        let (text, lines) = split(&witnessed).unwrap();
        for running in [&first, &second] {
            assert!(running.verifier.verify(text, lines).is_ok(), "{witnessed}");
        }
        assert_eq!(Checkpoint::open(&witnessed, Bench::signer().verifier()).unwrap().size, 3);

        // another replica was quicker with the second: what this one signed before is asked anew, and no rollback
        let alone = Arc::new(all_of(&[(second.address, &second)]));
        let raced = all_of(&[(race(&log, alone, &bench, first.address).await, &first), (second.address, &second)]);
        bench.clock.advance(Duration::from_secs(11));
        record(&log, 1).await;
        raced.round(&log, bench.clock.now()).await.unwrap();
        assert!(raced.refusals().iter().all(|(_, alarm)| !alarm), "{:?}", raced.refusals());
        first.stop().await;
        second.stop().await;
        log.close().await;
    }
}

/// A way to the witness at `to`, on which another replica does a round with `others` and a longer log first.
async fn race(log: &Log, others: Arc<Witnesses>, bench: &Bench, to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (log, now) = (log.clone(), bench.clock.now());
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            record(&log, 1).await;
            others.round(&log, now + TimeDelta::minutes(5)).await.unwrap();
            let mut to = TcpStream::connect(to).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
        }
    });
    address
}

both! {
    /// What both signed is shown however long one of them has been away since.
    async fn what_was_witnessed_stays_so_while_one_is_down(bench) {
        let dir = TempDir::new().unwrap();
        let (first, second) = (witness(&bench, &dir, "witness.example/w1"), witness(&bench, &dir, "witness.example/w2"));
        let log = bench.log().await;
        record(&log, 3).await;
        let witnesses = all_of(&[(first.address, &first), (second.address, &second)]);
        witnesses.round(&log, bench.clock.now()).await.unwrap();
        let witnessed = witnesses.witnessed(&log).await.unwrap();
        assert!(witnessed.is_some());
        for size in 4..1100 {
            cosig::add(&bench.service, size, "witness.example/w1", "as if it had gone on alone").await.unwrap();
        }
        // nor do lines hide it that both are said to have written
        for size in 1100..1140 {
            for name in ["witness.example/w1", "witness.example/w2", "witness.example/w3"] {
                cosig::add(&bench.service, size, name, "forged").await.unwrap();
            }
        }
        assert_eq!(witnesses.witnessed(&log).await.unwrap(), witnessed);
        first.stop().await;
        second.stop().await;
        log.close().await;
    }
}

both! {
    /// Invariant 10: a log that went back, or grew another way, is refused by whoever saw more, and that is an alarm.
    async fn a_witness_that_saw_more_or_other_raises_the_alarm(bench) {
        let dir = TempDir::new().unwrap();
        let running = witness(&bench, &dir, "witness.example/w1");
        let witnesses = asked(running.address, running.verifier.clone());
        let log = bench.log().await;
        record(&log, 5).await;
        witnesses.round(&log, bench.clock.now()).await.unwrap();
        assert!(!witnesses.refusals()[0].1);
        // the same key signed another log elsewhere, before this database was put back: as long as this one, or longer
        let other = CheckpointSigner::from_seed(&crate::harness::SEED, HOST, 1).unwrap();
        for size in [5, 4] {
            let seen = stand_alone(&bench, &dir, &other, size).await;
            let forked = asked(seen.address, seen.verifier.clone());
            forked.round(&log, bench.clock.now()).await.unwrap();
            assert!(forked.refusals()[0].1, "FORK of size {size}");
            seen.stop().await;
            std::fs::remove_dir_all(dir.path().join("witness.example_w2")).unwrap();
        }
        let seen = stand_alone(&bench, &dir, &other, 40).await;
        let rolled_back = asked(seen.address, seen.verifier.clone());
        rolled_back.round(&log, bench.clock.now()).await.unwrap();
        assert!(rolled_back.refusals()[0].1, "ROLLBACK");
        // grown beyond what the witness saw, but another way
        record(&log, 100).await;
        bench.clock.advance(Duration::from_secs(11));
        rolled_back.round(&log, bench.clock.now()).await.unwrap();
        assert!(rolled_back.refusals()[0].1, "FORK");
        assert!(rolled_back.witnessed(&log).await.unwrap().is_none());
        seen.stop().await;
        running.stop().await;
        log.close().await;
    }
}

/// A witness that has cosigned `size` entries of another log under the same name and key.
async fn stand_alone(bench: &Bench, dir: &TempDir, signer: &CheckpointSigner, size: u64) -> RunningWitness {
    let running = witness(bench, dir, "witness.example/w2");
    let address = running.address;
    let url = format!("http://{address}/add-checkpoint");
    let outbound = outbound(url.clone());
    let note = signer.sign(size, [7; 32]);
    let url = outbound.destination(&url).unwrap();
    let answer =
        outbound.send(Call::post(url, "text/plain", request(0, &[], &note).into_bytes())).await.unwrap();
    assert_eq!(answer.status, 200);
    running
}

both! {
    /// What a witness is sent, and what it answers: the protocol's statuses, whoever asks.
    async fn a_witness_answers_as_the_protocol_says(bench) {
        let dir = TempDir::new().unwrap();
        let running = witness(&bench, &dir, "witness.example/w1");
        let url = format!("http://{}/add-checkpoint", running.address);
        let outbound = outbound(url.clone());
        let ask = async |body: String| {
            let url = outbound.destination(&url).unwrap();
            outbound.send(Call::post(url, "text/plain", body.into_bytes())).await.unwrap()
        };
        let signer = Bench::signer();
        assert_eq!(ask("nonsense".into()).await.status, 400);
        assert_eq!(ask("x".repeat(70_000)).await.status, 413);
        let stranger = CheckpointSigner::from_seed(&[9; 32], HOST, 1).unwrap();
        assert_eq!(ask(request(0, &[], &stranger.sign(3, [1; 32]))).await.status, 403);
        let unknown = CheckpointSigner::from_seed(&[9; 32], "unknown.example", 1).unwrap();
        assert_eq!(ask(request(0, &[], &unknown.sign(3, [1; 32]))).await.status, 404);
        let signed = ask(request(0, &[], &signer.sign(3, [1; 32]))).await;
        let line = String::from_utf8(signed.body).unwrap();
        let text = Checkpoint { origin: signer.origin().into(), size: 3, root: [1; 32] }.text();
        assert!(running.verifier.verify(&text, &line).is_ok());
        assert_eq!(running.verifier.line_in(&text.replace('3', "4"), &line), Err(NoteError::Signature), "forged");
        let conflict = ask(request(0, &[], &signer.sign(9, [2; 32]))).await;
        assert_eq!((conflict.status, conflict.content_type.as_deref()), (409, Some("text/x.tlog.size")));
        assert_eq!(conflict.body, b"3\n");
        assert_eq!(ask(request(3, &[], &signer.sign(9, [2; 32]))).await.status, 422);
        assert_eq!(ask(request(3, &[], &signer.sign(3, [2; 32]))).await.status, 422, "another root of that size");
        // a second witness over the same state could sign the other side of a fork
        let again = WitnessSetup {
            listen: "127.0.0.1:0".parse().unwrap(),
            name: "witness.example/w1".into(),
            logs: vec![],
            state: dir.path().join("witness.example_w1"),
        };
        assert!(start_witness(again, Arc::clone(&bench.clock) as _, &SystemEntropy).is_err());
        running.stop().await;
    }
}
