//! Keys change under everybody's feet, and nobody stumbles.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::json;
use stagedoor::guard::remote::{RemoteKeys, RemoteKeysHandle, RemoteRevocations, RevocationsHandle};
use stagedoor::server::keyring::{self, KeyPurpose};
use stagedoor::token::{Clock as _, Issuer, SystemClock, SystemEntropy, TrustedIssuer, Verifier};

use crate::site::{
    AUDIENCE, Caller, ISSUER, Replica, Site, is_active, mint, on_both, text, until, until_within,
};

/// How long a key is published before it signs, here: eight times as long as a guard keeps a key set, as in
/// production it is twice as long.
const PUBLISHED_BEFORE: TimeDelta = TimeDelta::milliseconds(1600);
const KEPT: Duration = Duration::from_millis(200);
const ROTATIONS: usize = 10;

struct Guard {
    verifier: Arc<Verifier>,
    _handles: (RemoteKeysHandle, RevocationsHandle),
}

async fn guard(replica: &Replica, caller: &Caller) -> Guard {
    let issuer: Issuer = ISSUER.parse().unwrap();
    let revocations = RemoteRevocations::of(&issuer, &replica.base).unwrap().client_secret(&caller.secret);
    let trusted = TrustedIssuer::stagedoor(issuer.clone()).audience(AUDIENCE.parse().unwrap());
    let verifier = Verifier::builder().issuer(trusted).revocations(revocations.knowledge()).build().unwrap();
    let verifier = Arc::new(verifier);
    let jwks = format!("{}/.well-known/jwks.json", replica.base);
    let keys = RemoteKeys::of(&verifier).jwks(&issuer, &jwks).unwrap().refresh_every(KEPT);
    let handles = (keys.start().await.unwrap(), revocations.start().await.unwrap());
    Guard { verifier, _handles: handles }
}

async fn rotate(site: &Site, purpose: KeyPurpose) -> String {
    let (db, now) = (site.db().await, SystemClock::default().now());
    let start = now + PUBLISHED_BEFORE;
    let made =
        keyring::rotate_at(&db, &site.master, purpose, None, start, now, &SystemEntropy).await.unwrap();
    db.close().await;
    made.kid.to_string()
}

on_both! {
    /// Issue 5, 6: published before use, kept after it, on all replicas, without a restart.
    async fn keys_rotate_ten_times_under_load_and_not_one_verification_fails(site) {
        let minter = site.minter().await;
        let (one, two) = (site.replica().await, if site.has_replicas() { Some(site.replica().await) } else { None });
        let other = two.as_ref().unwrap_or(&one);
        let mut guards = Vec::new();
        for replica in [&one, &one, other, other] {
            guards.push(guard(replica, &minter).await);
        }
        let guards = Arc::new(guards);
        let (over, checked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut load = Vec::new();
        for replica in [&one, other] {
            let (minting, verifying) = (minter.at(replica), minter.at(other));
            let (guards, over, checked) = (Arc::clone(&guards), Arc::clone(&over), Arc::clone(&checked));
            load.push(tokio::spawn(async move {
                let mut kept: Vec<String> = Vec::new();
                while !over.load(Ordering::SeqCst) {
                    let minted = mint(&minting).await;
                    kept.push(text(&minted, "token").to_owned());
                    // the newest, and some that an older key signed
                    let step = (kept.len() / 8).max(1);
                    for token in kept.iter().rev().step_by(step) {
                        for guard in guards.iter() {
                            guard.verifier.verify(token).map(drop).expect("every key is known in time");
                        }
                    }
                    let token = kept.last().expect("just minted");
                    assert!(is_active(&verifying, token).await, "online, on another replica");
                    checked.fetch_add(1, Ordering::SeqCst);
                }
            }));
        }
        let mut signed = Vec::new();
        for n in 0..ROTATIONS {
            let kid = rotate(&site, KeyPurpose::Token).await;
            if n % 3 == 0 {
                rotate(&site, KeyPurpose::Feed).await;
            }
            let signs = |replica: &Replica| {
                replica.running.service.keyring.token_signer().unwrap().kid().as_str() == kid
            };
            until_within(20, "the new key signs on every replica", || async { signs(&one) && signs(other) }).await;
            let before = checked.load(Ordering::SeqCst);
            until_within(20, "tokens of the new key are checked", || async {
                checked.load(Ordering::SeqCst) > before + 2 || load.iter().any(tokio::task::JoinHandle::is_finished)
            })
            .await;
            signed.push(kid);
        }
        over.store(true, Ordering::SeqCst);
        for task in load {
            task.await.expect("not one verification failed");
        }
        let jwks = one.api.get("/.well-known/jwks.json").await.ok();
        assert_eq!(jwks["keys"].as_array().unwrap().len(), ROTATIONS + 1, "kept as long as its tokens may live");
        one.stop().await;
        if let Some(two) = two {
            two.stop().await;
        }
    }

    async fn a_key_that_has_signed_for_long_is_followed_without_a_command(site) {
        site.age_keys(TimeDelta::days(61)).await;
        let replica = site.replica().await;
        let rotated = || async {
            let entries = replica.entries().await;
            entries.iter().filter(|e| e["typ"] == "key" && e["detail"]["change"] == "rotate").count() == 2
        };
        until("the next keys of tokens and feed are published and recorded", rotated).await;
        until("the next key is in the key set", || async {
            let jwks = replica.api.get("/.well-known/jwks.json").await.ok();
            jwks["keys"].as_array().unwrap().len() == 2
        })
        .await;
        let minter = site.minter().await;
        until("the client is known", || async { minter.at(&replica).get("/v1/actor_tokens").await.status == 200 }).await;
        let api = minter.at(&replica);
        let minted = mint(&api).await;
        assert!(is_active(&api, text(&minted, "token")).await, "the old key signs until the new one is known");
        assert_eq!(api.verify(text(&minted, "token")).await.ok()["act"], json!({ "sub": "admin_7" }));
        replica.stop().await;
    }
}
