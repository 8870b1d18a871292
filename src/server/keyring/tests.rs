use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::server::clients::{self, AcceptedSecrets, ClientForm, Clients, SecretKind};
use crate::server::master_key::MasterKey;
use crate::server::store::{Db, migrate, on_db};
use crate::token::{Clock, FixedClock, Signer as _, SystemEntropy, encode_jws};

struct Fixture {
    db: Db,
    master: MasterKey,
    clock: Arc<FixedClock>,
    _dir: tempfile::TempDir,
}

async fn fixture(alg: Alg) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::create(&format!("sqlite://{}/a.db", dir.path().display())).await.unwrap();
    migrate(&db, None).await.unwrap();
    let clock = Arc::new(FixedClock::at_seconds(1_700_000_000));
    let master = MasterKey::from_bytes([1; 32]);
    make_initial(&db, &master, alg, clock.now(), &SystemEntropy).await.unwrap();
    Fixture { db, master, clock, _dir: dir }
}

impl Fixture {
    async fn load(&self) -> Result<Keyring, KeyringError> {
        Keyring::load(&self.db, &self.master, Arc::clone(&self.clock) as Arc<dyn Clock>).await
    }

    async fn tamper(&self, sql: &'static str) {
        on_db!(&self.db, write(pool) => sqlx::query(sql).execute(pool).await.map(drop)).unwrap();
    }

    async fn rotate(&self) -> Result<KeyInfo, KeyringError> {
        rotate(&self.db, &self.master, KeyPurpose::Token, None, self.clock.now(), &SystemEntropy).await
    }

    fn advance(&self, seconds: i64) {
        self.clock.advance(Duration::from_secs(seconds.unsigned_abs()));
    }
}

#[tokio::test]
async fn initial_keys_sign_what_the_published_set_verifies() {
    for alg in Alg::SIGNING {
        let f = fixture(alg).await;
        let keyring = f.load().await.unwrap();
        let signer = keyring.token_signer().unwrap();
        assert_eq!(signer.alg(), alg);
        let jws = encode_jws(&*signer, "at+jwt", &serde_json::json!({"a": 1})).unwrap();
        let keys = keyring.token_keys();
        let key = keys.get(signer.kid().as_str()).unwrap();
        assert_eq!(*key.kid(), key.thumbprint(), "kid is the RFC 7638 thumbprint");
        assert!(
            key.verifies(
                jws.signing_input().as_bytes(),
                &signer.sign(jws.signing_input().as_bytes()).unwrap()
            )
        );
        // the log's and the feed's keys stand apart
        assert_eq!(keys.len(), 1);
        assert_eq!(keyring.published(&KeyPurpose::Feed).len(), 1);
    }
}

#[tokio::test]
async fn the_logs_seed_is_the_same_after_a_restart_and_gives_its_public_key() {
    let f = fixture(Alg::Es256).await;
    let (one, two) = (f.load().await.unwrap(), f.load().await.unwrap());
    let seed = one.log_seed().unwrap();
    assert_eq!(*seed, *two.log_seed().unwrap());
    let again = crate::token::LocalSigner::from_pkcs8(Alg::EdDsa, &import::ed25519_pkcs8(&seed)).unwrap();
    assert_eq!(again.kid(), one.signer(&KeyPurpose::Log).unwrap().kid());
}

#[tokio::test]
async fn a_tampered_key_row_is_ignored_and_without_a_signer_nothing_starts() {
    for sql in [
        "UPDATE signing_key SET public_jwk = replace(public_jwk, 'sig', 'sih') WHERE purpose = 'token'",
        "UPDATE signing_key SET purpose = 'token' WHERE purpose = 'feed'",
        "UPDATE signing_key SET state = 'retired' WHERE purpose = 'token'",
        "UPDATE signing_key SET activated_at_us = 0 WHERE purpose = 'token'",
        "UPDATE signing_key SET retired_at_us = 9 WHERE purpose = 'token'",
        "UPDATE signing_key SET sealed = (SELECT sealed FROM signing_key WHERE purpose = 'feed') WHERE purpose = 'token'",
        "UPDATE signing_key SET alg = 'RS256' WHERE purpose = 'token'",
        "UPDATE signing_key SET mac = zeroblob(32) WHERE purpose = 'token'",
    ] {
        let f = fixture(Alg::Es256).await;
        f.tamper(sql).await;
        let error = f.load().await.expect_err(sql);
        assert!(matches!(error, KeyringError::NoSigner(_)), "{sql}: {error}");
    }
}

#[tokio::test]
async fn a_key_added_without_the_master_key_is_never_published() {
    let f = fixture(Alg::Es256).await;
    let thief = MasterKey::from_bytes([9; 32]);
    let theirs =
        create(&f.db, &thief, KeyPurpose::Token, Alg::Es256, f.clock.now(), &SystemEntropy).await.unwrap();
    let keyring = f.load().await.unwrap();
    assert_eq!(keyring.ignored_rows(), 1);
    assert!(keyring.token_keys().get(theirs.kid.as_str()).is_none());
    assert_ne!(*keyring.token_signer().unwrap().kid(), theirs.kid);
    assert_eq!(list(&f.db, &f.master).await.unwrap().1, [theirs.kid.to_string()]);
}

#[tokio::test]
async fn another_master_key_starts_nothing_and_says_so() {
    let f = fixture(Alg::Es256).await;
    let other = MasterKey::from_bytes([9; 32]);
    let error = Keyring::load(&f.db, &other, Arc::clone(&f.clock) as Arc<dyn Clock>).await.unwrap_err();
    assert!(error.to_string().contains("give the master key the keys were sealed under"), "{error}");
}

#[tokio::test]
async fn a_rotated_key_is_published_before_it_signs_and_the_old_one_until_its_tokens_end() {
    let f = fixture(Alg::Es256).await;
    let keyring = f.load().await.unwrap();
    let old = keyring.token_signer().unwrap().kid().clone();
    let new = f.rotate().await.unwrap().kid;
    assert!(keyring.refresh(&f.db).await.unwrap());
    let signs = || keyring.token_signer().unwrap().kid().clone();
    let published = |kid: &Kid| keyring.token_keys().get(kid.as_str()).is_some();
    assert!(signs() == old && published(&old) && published(&new));
    assert!(matches!(f.rotate().await, Err(KeyringError::Pending(kid)) if kid == new));
    f.advance(PUBLISHED_BEFORE_SECONDS - 1);
    assert_eq!(signs(), old);
    f.advance(1); // nothing is written or read: the calendar decides
    assert!(signs() == new && published(&old));
    f.advance(PUBLISHED_AFTER_SECONDS - 1);
    assert!(published(&old));
    f.advance(1);
    assert!(!published(&old) && published(&new));
    assert_ne!(f.rotate().await.unwrap().kid, new);
}

#[tokio::test]
async fn the_key_that_signs_is_retired_only_after_rotation() {
    let f = fixture(Alg::Es256).await;
    let keyring = f.load().await.unwrap();
    let old = keyring.token_signer().unwrap().kid().clone();
    let now = || f.clock.now();
    let error = retire(&f.db, &f.master, &old, now(), &SystemEntropy).await.unwrap_err();
    assert!(matches!(error, KeyringError::InUse(_)));
    f.rotate().await.unwrap();
    f.advance(PUBLISHED_BEFORE_SECONDS);
    let planned = list(&f.db, &f.master).await.unwrap().0.into_iter().find(|k| k.kid == old).unwrap();
    let retired = retire(&f.db, &f.master, &old, now(), &SystemEntropy).await.unwrap();
    assert_eq!(retired.retired_at, planned.retired_at, "retiring again does not postpone the end");
    let log = keyring.signer(&KeyPurpose::Log).unwrap().kid().clone();
    assert!(matches!(retire(&f.db, &f.master, &log, now(), &SystemEntropy).await, Err(KeyringError::LogKey)));
    assert!(matches!(revoke(&f.db, &f.master, &log, now(), &SystemEntropy).await, Err(KeyringError::LogKey)));
}

#[tokio::test]
async fn a_key_that_never_took_over_leaves_the_one_before_in_place() {
    for compromised in [false, true] {
        let f = fixture(Alg::Es256).await;
        let keyring = f.load().await.unwrap();
        let old = keyring.token_signer().unwrap().kid().clone();
        let (next, now) = (f.rotate().await.unwrap().kid, f.clock.now());
        if compromised {
            let (_, follower) = revoke(&f.db, &f.master, &next, now, &SystemEntropy).await.unwrap();
            assert!(follower.is_none());
        } else {
            retire(&f.db, &f.master, &next, now, &SystemEntropy).await.unwrap();
        }
        keyring.refresh(&f.db).await.unwrap();
        f.advance(PUBLISHED_BEFORE_SECONDS * 100);
        assert_eq!(*keyring.token_signer().unwrap().kid(), old);
        assert!(f.rotate().await.is_ok());
    }
}

#[tokio::test]
async fn a_compromised_key_is_gone_at_once_and_another_signs() {
    let f = fixture(Alg::Es256).await;
    let keyring = f.load().await.unwrap();
    let old = keyring.token_signer().unwrap().kid().clone();
    let now = f.clock.now();
    let (gone, follower) = revoke(&f.db, &f.master, &old, now, &SystemEntropy).await.unwrap();
    assert_eq!(gone.state(now), KeyState::Revoked);
    keyring.refresh(&f.db).await.unwrap();
    assert_eq!(*keyring.token_signer().unwrap().kid(), follower.unwrap().kid);
    assert!(keyring.token_keys().get(old.as_str()).is_none());
    assert_eq!(keyring.revoked_kids(), std::slice::from_ref(&old));
    // with a next key published, that one takes over instead of one that nobody knows
    let next = f.rotate().await.unwrap().kid;
    let signing = keyring.token_signer().unwrap().kid().clone();
    let (_, follower) = revoke(&f.db, &f.master, &signing, now, &SystemEntropy).await.unwrap();
    assert_eq!(follower.unwrap().kid, next);
    keyring.refresh(&f.db).await.unwrap();
    assert_eq!(*keyring.token_signer().unwrap().kid(), next);
}

#[tokio::test]
async fn pem_der_and_jwk_are_taken_in_and_sign_as_the_same_key() {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    for alg in Alg::SIGNING {
        let signer = crate::token::LocalSigner::generate(alg).unwrap();
        let der = signer.to_pkcs8().unwrap();
        let body = STANDARD.encode(&*der);
        let lines: Vec<&str> = body.as_bytes().chunks(64).map(|c| std::str::from_utf8(c).unwrap()).collect();
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"));
        for file in [pem.as_bytes(), &der] {
            assert_eq!(import::read_private_key(file).unwrap().kid(), signer.kid());
        }
        if alg == Alg::EdDsa {
            let jwk = serde_json::json!({"kty": "OKP", "crv": "Ed25519", "d": URL_SAFE_NO_PAD.encode(&der[16..48])});
            assert_eq!(import::read_private_key(jwk.to_string().as_bytes()).unwrap().kid(), signer.kid());
        }
    }
    let f = fixture(Alg::Es256).await;
    let der = crate::token::LocalSigner::generate(Alg::Rs256).unwrap().to_pkcs8().unwrap();
    let take = || import(&f.db, &f.master, KeyPurpose::Token, &der, f.clock.now(), &SystemEntropy);
    let info = take().await.unwrap();
    assert_eq!((info.state(f.clock.now()), info.alg), (KeyState::Next, Alg::Rs256));
    assert!(matches!(take().await, Err(KeyringError::Exists(_))));
}

/// RFC 7515 A.3 (EC) and A.2 (RSA), RFC 8037 A.1 (Ed25519): published private keys.
#[test]
fn the_rfcs_private_jwks_are_read() {
    let ec = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}"#;
    let ed = r#"{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    let rsa = r#"{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB","d":"Eq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyWPEAeP88vLNO97IjlA7_GQ5sLKMgvfTeXZx9SE-7YwVol2NXOoAJe46sui395IW_GO-pWJ1O0BkTGoVEn2bKVRUCgu-GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzjkn439X0M_V51gfpRLI9JYanrC4D4qAdGcopV_0ZHHzQlBjudU2QvXt4ehNYTCBr6XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl_x_jTj3ccPDVZFD9pIuhLhBOneufuBiB4cS98l2SR_RQyGWSeWjnczT0QU91p1DhOVRuOopznQ","p":"4BzEEOtIpmVdVEZNCqS7baC4crd0pqnRH_5IB3jw3bcxGn6QLvnEtfdUdiYrqBdss1l58BQ3KhooKeQTa9AB0Hw_Py5PJdTJNPY8cQn7ouZ2KKDcmnPGBY5t7yLc1QlQ5xHdwW1VhvKn-nXqhJTBgIPgtldC-KDV5z-y2XDwGUc","q":"uQPEfgmVtjL0Uyyx88GZFF1fOunH3-7cepKmtH4pxhtCoHqpWmT8YAmZxaewHgHAjLYsp1ZSe7zFYHj7C6ul7TjeLQeZD_YwD66t62wDmpe_HlB-TnBA-njbglfIsRLtXlnDzQkv5dTltRJ11BKBBypeeF6689rjcJIDEz9RWdc","dp":"BwKfV3Akq5_MFZDFZCnW-wzl-CCo83WoZvnLQwCTeDv8uzluRSnm71I3QCLdhrqE2e9YkxvuxdBfpT_PI7Yz-FOKnu1R6HsJeDCjn12Sk3vmAktV2zb34MCdy7cpdTh_YVr7tss2u6vneTwrA86rZtu5Mbr1C1XsmvkxHQAdYo0","dq":"h_96-mK1R_7glhsum81dZxjTnYynPbZpHziZjeeHcXYsXaaMwkOlODsWa7I9xXDoRwbKgB719rrmI2oKr6N3Do9U0ajaHF-NKJnwgjMd2w9cjz3_-kyNlxAr2v4IKhGNpmM5iIgOS1VZnOZ68m6_pbLBSp3nssTdlqvd0tIiTHU","qi":"IYd7DHOhrWvxkwPQsRM2tOgrjbcrfvtQJipd-DlcxyVuuM9sQLdgjVk2oy26F0EmpScGLq2MowX7fhd_QJQ3ydy5cY7YIBi87w93IKLEdfnbJtoOPLUW0ITrJReOgo1cq9SbsxYawBgfp_gh6A5603k2-ZQwVK0JKSHuLFkuQ3U"}"#;
    for jwk in [ec, ed, rsa] {
        let signer = import::read_private_key(jwk.as_bytes()).unwrap();
        let mut public: serde_json::Map<String, serde_json::Value> = serde_json::from_str(jwk).unwrap();
        public.retain(|k, _| matches!(k.as_str(), "kty" | "crv" | "x" | "y" | "n" | "e"));
        let public = crate::token::VerifyingKey::from_jwk(&public.into()).unwrap();
        assert_eq!(signer.verifying_key().thumbprint(), public.thumbprint());
        assert!(public.verifies(b"x", &signer.sign(b"x").unwrap()));
    }
    let without = ec.replace("\"d\"", "\"dd\"");
    assert_eq!(import::read_private_key(without.as_bytes()).unwrap_err(), ImportError::Member("d"));
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----";
    assert_eq!(import::read_private_key(encrypted.as_bytes()).unwrap_err(), ImportError::Pem);
    for bad in [&b"{}"[..], b"", b"\x30\x00", br#"{"kty":"oct","k":"AA"}"#] {
        assert_eq!(import::read_private_key(bad).unwrap_err(), ImportError::Kind);
    }
    assert_eq!(import::read_private_key(&vec![b'a'; 20_000]).unwrap_err(), ImportError::TooLarge);
}

#[tokio::test]
async fn a_new_master_key_opens_everything_and_the_old_one_nothing() {
    let f = fixture(Alg::Es256).await;
    let form = ClientForm { scopes: Some(vec!["admin".into()]), ..ClientForm::default() };
    let now = f.clock.now();
    let client =
        clients::create(&f.db, &f.master, &form, SecretKind::Live, now, &SystemEntropy).await.unwrap();
    let kid = f.load().await.unwrap().token_signer().unwrap().kid().clone();
    let new = MasterKey::from_bytes([2; 32]);
    assert_eq!(reseal(&f.db, &f.master, &new, now, &SystemEntropy).await.unwrap(), (3, 1));
    let clock = Arc::clone(&f.clock) as Arc<dyn Clock>;
    let keyring = Keyring::load(&f.db, &new, clock).await.unwrap();
    assert_eq!(*keyring.token_signer().unwrap().kid(), kid);
    let known = Clients::load(&f.db, &new, AcceptedSecrets::LiveOnly).await.unwrap();
    assert!(known.authenticate(client.secret.expose(), now).is_some(), "secrets survive a new master key");
    assert!(f.load().await.is_err());
    assert!(
        reseal(&f.db, &f.master, &new, now, &SystemEntropy).await.is_err(),
        "not under the old key again"
    );
}

#[tokio::test]
async fn a_key_that_signed_for_long_is_followed_once_however_many_replicas_look() {
    let f = fixture(Alg::Es256).await;
    let keyring = f.load().await.unwrap();
    let age = chrono::TimeDelta::days(60);
    let look = || keyring.rotate_aged(&f.db, age, &SystemEntropy);
    assert!(look().await.unwrap().is_empty(), "too young");
    f.advance(60 * 86_400);
    let (one, two, three) = tokio::join!(look(), look(), look());
    let made = [one.unwrap(), two.unwrap(), three.unwrap()].concat();
    let purposes: Vec<String> = made.iter().map(|key| key.purpose.to_string()).collect();
    assert_eq!(made.len(), 2, "{purposes:?}");
    assert!(
        purposes.contains(&"token".to_owned()) && purposes.contains(&"feed".to_owned()),
        "the log's stays"
    );
    assert!(look().await.unwrap().is_empty(), "one rotation at a time");
    keyring.refresh(&f.db).await.unwrap();
    let token = made.iter().find(|key| key.purpose == KeyPurpose::Token).unwrap();
    assert_ne!(keyring.token_signer().unwrap().kid(), &token.kid, "published before it signs");
    assert!(keyring.token_keys().get(token.kid.as_str()).is_some());
    f.advance(PUBLISHED_BEFORE_SECONDS);
    assert_eq!(keyring.token_signer().unwrap().kid(), &token.kid);
    assert_eq!(keyring.token_keys().len(), 2, "what the old one signed still verifies");
    assert!(look().await.unwrap().is_empty(), "the new one is young");
}

#[tokio::test]
async fn two_keys_that_are_revoked_at_once_both_stay_revoked() {
    // each would let the other's take over again
    let f = fixture(Alg::Es256).await;
    let active = f.load().await.unwrap().token_signer().unwrap().kid().clone();
    let next = f.rotate().await.unwrap().kid;
    let revoke = |kid| revoke(&f.db, &f.master, kid, f.clock.now(), &SystemEntropy);
    let (one, two) = tokio::join!(revoke(&active), revoke(&next));
    one.unwrap();
    two.unwrap();
    let keyring = f.load().await.unwrap();
    let signs = keyring.token_signer().unwrap().kid().clone();
    assert!(signs != active && signs != next);
    let revoked = keyring.revoked_kids();
    assert!(revoked.contains(&active) && revoked.contains(&next), "{revoked:?}");
}

#[tokio::test]
async fn a_change_on_stale_knowledge_writes_nothing() {
    // a rotation that read the keys before one was revoked must not write that one back
    let f = fixture(Alg::Es256).await;
    let version = row::version(&f.db).await.unwrap();
    let old = row::all(&f.db).await.unwrap();
    let kid = f.load().await.unwrap().token_signer().unwrap().kid().clone();
    revoke(&f.db, &f.master, &kid, f.clock.now(), &SystemEntropy).await.unwrap();
    assert!(!row::write_if(&f.db, &old, version.as_deref()).await.unwrap());
    assert_eq!(f.load().await.unwrap().revoked_kids(), [kid]);
}
