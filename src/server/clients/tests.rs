use std::time::Duration;

use super::*;
use crate::server::master_key::MasterKey;
use crate::server::store::{Db, migrate, on_db};
use crate::token::{Alg, Clock as _, FixedClock, LocalSigner, Signer as _, Sub, SystemEntropy};

struct Fixture {
    db: Db,
    master: MasterKey,
    clock: FixedClock,
    _dir: tempfile::TempDir,
}

async fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::create(&format!("sqlite://{}/a.db", dir.path().display())).await.unwrap();
    migrate(&db, None).await.unwrap();
    let clock = FixedClock::at_seconds(1_700_000_000);
    Fixture { db, master: MasterKey::from_bytes([1; 32]), clock, _dir: dir }
}

fn form(scopes: &str) -> ClientForm {
    ClientForm {
        name: Some("backend".into()),
        scopes: Some(scopes.split(',').map(str::to_owned).collect()),
        audiences: Some(vec!["https://api.example.com".into(), "https://b.example.com".into()]),
        may_assert: Some(vec!["admin_*".into()]),
        ..ClientForm::default()
    }
}

impl Fixture {
    async fn create(&self, kind: SecretKind) -> Created {
        let form = form("actor_tokens:issue,actor_tokens:assert_actor");
        create(&self.db, &self.master, &form, kind, self.clock.now(), &SystemEntropy).await.unwrap()
    }

    async fn clients(&self, accepted: AcceptedSecrets) -> Clients {
        Clients::load(&self.db, &self.master, accepted).await.unwrap()
    }

    async fn tamper(&self, sql: &'static str) {
        on_db!(&self.db, write(pool) => sqlx::query(sql).execute(pool).await.map(drop)).unwrap();
    }
}

#[tokio::test]
async fn a_created_client_is_known_by_its_secret_and_by_nothing_else() {
    let f = fixture().await;
    let made = f.create(SecretKind::Live).await;
    let clients = f.clients(AcceptedSecrets::LiveOnly).await;
    let found = clients.authenticate(made.secret.expose(), f.clock.now()).unwrap();
    assert_eq!(*found, made.client);
    assert_eq!(found.default_audience().unwrap().as_str(), "https://api.example.com");
    assert!(found.may(ClientScope::Issue) && !found.may(ClientScope::Admin));
    assert!(found.may_assert(&Sub::try_from("admin_7").unwrap(), None));
    assert!(!found.may_assert(&Sub::try_from("user_7").unwrap(), None));
    let other = ClientSecret::generate(SecretKind::Live, &SystemEntropy);
    for wrong in ["", "sk_live_x", other.expose()] {
        assert!(clients.authenticate(wrong, f.clock.now()).is_none());
    }
    assert!(!format!("{made:?} {clients:?}").contains(made.secret.expose()));
}

#[tokio::test]
async fn serve_refuses_test_secrets_and_does_not_know_their_clients() {
    let f = fixture().await;
    let made = f.create(SecretKind::Test).await;
    assert!(made.secret.expose().starts_with("sk_test_"));
    let serve = f.clients(AcceptedSecrets::LiveOnly).await;
    assert!(serve.authenticate(made.secret.expose(), f.clock.now()).is_none());
    assert!(serve.get(&made.client.id).is_none());
    let dev = f.clients(AcceptedSecrets::LiveAndTest).await;
    assert!(dev.authenticate(made.secret.expose(), f.clock.now()).is_some());
}

#[tokio::test]
async fn a_tampered_row_is_ignored_and_counted() {
    for sql in [
        "UPDATE client SET row = replace(row, 'actor_tokens:issue', 'admin')",
        "UPDATE client SET created_at_us = created_at_us + 1",
        "UPDATE client SET version = version + 1",
        "UPDATE client SET disabled_at_us = 5",
        "UPDATE client SET id = 'client_other'",
        "UPDATE client SET mac = zeroblob(32)",
    ] {
        let f = fixture().await;
        let made = f.create(SecretKind::Live).await;
        f.tamper(sql).await;
        let clients = f.clients(AcceptedSecrets::LiveOnly).await;
        assert!(clients.authenticate(made.secret.expose(), f.clock.now()).is_none(), "{sql}");
        assert!(clients.get(&made.client.id).is_none(), "{sql}");
        assert_eq!(clients.ignored_rows(), 1, "{sql}");
        assert!(list(&f.db, &f.master).await.unwrap().1.len() == 1, "{sql}");
    }
}

#[tokio::test]
async fn a_client_written_under_another_master_key_is_ignored() {
    let f = fixture().await;
    let made = f.create(SecretKind::Live).await;
    let other = MasterKey::from_bytes([2; 32]);
    let clients = Clients::load(&f.db, &other, AcceptedSecrets::LiveOnly).await.unwrap();
    assert!(clients.authenticate(made.secret.expose(), f.clock.now()).is_none());
    let error = find(&f.db, &other, &made.client.id).await.unwrap_err();
    assert!(matches!(error, ClientError::NotAuthentic(_)));
}

#[tokio::test]
async fn a_client_cannot_be_re_enabled_by_clearing_the_column() {
    let f = fixture().await;
    let made = f.create(SecretKind::Live).await;
    disable(&f.db, &f.master, &made.client.id, f.clock.now()).await.unwrap();
    f.tamper("UPDATE client SET disabled_at_us = NULL").await;
    let clients = f.clients(AcceptedSecrets::LiveOnly).await;
    assert!(clients.authenticate(made.secret.expose(), f.clock.now()).is_none());
    assert_eq!(clients.ignored_rows(), 1);
}

#[tokio::test]
async fn rotated_secrets_overlap_as_long_as_asked_and_no_longer() {
    let f = fixture().await;
    let first = f.create(SecretKind::Live).await;
    let (id, hour) = (&first.client.id, Duration::from_hours(1));
    let second = rotate_secret(&f.db, &f.master, id, hour, f.clock.now(), &SystemEntropy).await.unwrap();
    let clients = f.clients(AcceptedSecrets::LiveOnly).await;
    let accepted = |secret: &ClientSecret| clients.authenticate(secret.expose(), f.clock.now()).is_some();
    assert!(accepted(&first.secret) && accepted(&second.secret));
    f.clock.advance(Duration::from_secs(3599));
    assert!(accepted(&first.secret));
    f.clock.advance(Duration::from_secs(1));
    assert!(!accepted(&first.secret) && accepted(&second.secret));
    // what has ended is dropped at the next change, and an overlap of nothing ends the old one at once
    let third =
        rotate_secret(&f.db, &f.master, id, Duration::ZERO, f.clock.now(), &SystemEntropy).await.unwrap();
    assert_eq!(third.client.secrets.len(), 1);
    clients.refresh(&f.db).await.unwrap();
    assert!(!accepted(&second.secret) && accepted(&third.secret));
}

#[tokio::test]
async fn too_many_secrets_at_a_time_are_refused() {
    let f = fixture().await;
    let made = f.create(SecretKind::Live).await;
    let day = Duration::from_hours(24);
    let rotate = || rotate_secret(&f.db, &f.master, &made.client.id, day, f.clock.now(), &SystemEntropy);
    for _ in 1..MAX_SECRETS {
        rotate().await.unwrap();
    }
    assert!(rotate().await.unwrap_err().to_string().contains("--overlap 0s"));
    let error =
        rotate_secret(&f.db, &f.master, &made.client.id, day * 365, f.clock.now(), &SystemEntropy).await;
    assert!(error.unwrap_err().to_string().contains("at most 90d"));
}

#[tokio::test]
async fn a_running_server_sees_changes_made_elsewhere() {
    let f = fixture().await;
    let clients = f.clients(AcceptedSecrets::LiveOnly).await;
    assert!(!clients.refresh(&f.db).await.unwrap());
    let made = f.create(SecretKind::Live).await;
    assert!(clients.refresh(&f.db).await.unwrap());
    assert!(clients.authenticate(made.secret.expose(), f.clock.now()).is_some());
    let widened = ClientForm { scopes: Some(vec!["audit:read".into()]), ..ClientForm::default() };
    let updated = update(&f.db, &f.master, &made.client.id, &widened).await.unwrap();
    assert_eq!((updated.version, updated.name.as_str(), updated.audiences.len()), (2, "backend", 2));
    let seen = tokio::time::timeout(Duration::from_secs(1), async {
        let follow = clients.follow(&f.db);
        let wait = async {
            while !clients.get(&made.client.id).is_some_and(|c| c.may(ClientScope::AuditRead)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! { () = follow => {}, () = wait => {} }
    });
    seen.await.expect("the change is seen within a second");
    disable(&f.db, &f.master, &made.client.id, f.clock.now()).await.unwrap();
    clients.refresh(&f.db).await.unwrap();
    assert!(clients.authenticate(made.secret.expose(), f.clock.now()).is_none());
    assert!(!clients.get(&made.client.id).unwrap().is_active());
    let error = update(&f.db, &f.master, &made.client.id, &widened).await.unwrap_err();
    assert!(matches!(error, ClientError::Disabled(_)));
}

#[tokio::test]
async fn an_rsa_key_without_alg_is_of_the_algorithm_that_the_client_uses() {
    let f = fixture().await;
    let make = |alg: &str, key: &serde_json::Value| {
        let form = ClientForm { alg: Some(alg.into()), jwks: Some(key.clone()), ..form("tokens:verify") };
        let (f, now) = (&f, f.clock.now());
        async move { create(&f.db, &f.master, &form, SecretKind::Live, now, &SystemEntropy).await }
    };
    let mut key = LocalSigner::generate(Alg::Rs256).unwrap().verifying_key().to_jwk();
    let refused = make("PS256", &key).await.map(drop).unwrap_err().to_string();
    assert!(refused.contains("--alg is PS256, for which --jwks holds no key"), "it says RS256: {refused}");
    key.as_object_mut().unwrap().remove("alg");
    for alg in [Alg::Ps256, Alg::Rs256] {
        let client = make(alg.name(), &key).await.unwrap().client;
        assert_eq!(client.assertion_keys().unwrap().iter().map(|k| k.alg()).collect::<Vec<_>>(), [alg]);
    }
    assert!(make("ES256", &key).await.is_err(), "not of another kind");
}

#[tokio::test]
async fn a_name_in_use_is_refused_and_a_disabled_client_frees_it() {
    let f = fixture().await;
    let made = f.create(SecretKind::Live).await.client;
    let taken = |name: &'static str, of| refuse_used_name(&f.db, &f.master, name, of);
    let error = taken("backend", None).await.unwrap_err().to_string();
    assert!(error.contains("\"backend\" is that of client") && error.contains(made.id.as_str()), "{error}");
    assert!(taken("backend", Some(&made.id)).await.is_ok() && taken("Backend", None).await.is_ok());
    disable(&f.db, &f.master, &made.id, f.clock.now()).await.unwrap();
    assert!(taken("backend", None).await.is_ok());
}

#[tokio::test]
async fn values_a_client_cannot_have_are_refused_with_what_to_write() {
    let f = fixture().await;
    let some = |t: &str| Some(vec![t.to_owned()]);
    let base = form("admin");
    let key = serde_json::json!({"kty": "oct", "k": "AAAA"});
    let table: Vec<(ClientForm, &str)> = vec![
        (
            form("actor_tokens:mint"),
            "\"actor_tokens:mint\" is not a scope; write some of actor_tokens:issue,",
        ),
        (form(""), "--scopes must name what the client may call"),
        (ClientForm { name: Some(" ".into()), ..base.clone() }, "--name must be 1 to 100 bytes"),
        (ClientForm { audiences: some("a\nb"), ..base.clone() }, "--audience"),
        (ClientForm { may_assert: some("https://a#"), ..base.clone() }, "write ISS#SUB"),
        (ClientForm { origins: some("https://a.example/x"), ..base.clone() }, "write https://a.example"),
        (ClientForm { origins: some("http://a.example"), ..base.clone() }, "must begin with https://"),
        (ClientForm { handoff_url: Some("https://a/?c={code}".into()), ..base.clone() }, "after the # only"),
        (ClientForm { profile: Some("okta".into()), ..base.clone() }, "is not standard or clerk"),
        (ClientForm { profile: Some("clerk".into()), ..base.clone() }, "add --origin"),
        (ClientForm { alg: Some("HS256".into()), ..base.clone() }, "is not a known algorithm"),
        (ClientForm { jwks: Some(key), ..base.clone() }, "give public keys only"),
        (ClientForm { jwks: Some(serde_json::json!({"keys": []})), ..base }, "must hold 1 to 10 keys"),
    ];
    for (form, expected) in table {
        let made = create(&f.db, &f.master, &form, SecretKind::Live, f.clock.now(), &SystemEntropy).await;
        let error = made.map(|_| ()).expect_err(expected).to_string();
        assert!(error.contains(expected), "gave: {error}\nnot:  {expected}");
    }
    assert!(list(&f.db, &f.master).await.unwrap().0.is_empty());
}

#[tokio::test]
async fn lists_are_kept_unless_named_and_cleared_by_an_empty_one() {
    let f = fixture().await;
    let made = f.create(SecretKind::Live).await;
    let clear = ClientForm { audiences: Some(vec![String::new()]), ..ClientForm::default() };
    let client = update(&f.db, &f.master, &made.client.id, &clear).await.unwrap();
    assert!(client.audiences.is_empty() && client.may_assert.len() == 1);
    let unknown = crate::token::ClientId::try_from("client_x").unwrap();
    let error = update(&f.db, &f.master, &unknown, &clear).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no client client_x; `stagedoor client list` shows those there are"
    );
}
