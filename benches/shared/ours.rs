//! Our own service as the benches start it, and what they ask it for.

use std::net::SocketAddr;

use serde_json::{Value, json};
use stagedoor::server::app::{self, Setup};
use stagedoor::server::clients::{self, ClientForm, ClientScope, SecretKind};
use stagedoor::server::config::{Config, Environment, SecretSource};
use stagedoor::server::keyring;
use stagedoor::server::master_key::MasterKey;
use stagedoor::server::store::{self, Db};
use stagedoor::token::{Alg, Clock as _, SystemClock, SystemEntropy};

use super::load::post;

const POLICY: &str = r#"
@id("bench") @client("bench") @asserted("allow") @unknown("actor target") @scope("read") @max_lifetime("900")
permit (principal, action == Action::"impersonate", resource);
"#;

/// A mint.
pub fn request(address: SocketAddr, path: &str, secret: &str) -> String {
    asking(address, path, secret, &wanted("token"))
}

/// What is asked for in a mint.
pub fn wanted(delivery: &str) -> Value {
    json!({
        "user_id": "user_42", "actor": {"sub": "admin_7"}, "reason": "Ticket 4711: invoice missing", "ticket": "4711",
        "delivery": delivery,
    })
}

/// A POST of JSON by a client.
pub fn asking(address: SocketAddr, path: &str, secret: &str, body: &Value) -> String {
    let headers = format!("Authorization: Bearer {secret}\r\nContent-Type: application/json\r\n");
    post(address, path, &headers, &body.to_string())
}

/// A service on a fresh database whose policy permits whatever the client says, and the secret of a client that
/// may mint.
pub async fn service(url: &str, owner: &str, dir: &std::path::Path, batch: usize) -> (app::Running, String) {
    let policy = dir.join("policy.cedar");
    std::fs::write(&policy, POLICY).expect("a policy file");
    let settings = format!("[policy]\npath = \"{}\"\n", policy.display());
    service_with(url, owner, dir, batch, &settings).await
}

/// A service with these settings (tables), and the secret of a client that may mint.
pub async fn service_with(
    url: &str,
    owner: &str,
    dir: &std::path::Path,
    batch: usize,
    settings: &str,
) -> (app::Running, String) {
    let environment = Environment::from_pairs([
        ("STAGEDOOR_LISTEN", "127.0.0.1:0".to_owned()),
        ("STAGEDOOR_DATA_DIR", dir.display().to_string()),
        ("STAGEDOOR_DATABASE_URL", url.to_owned()),
    ]);
    let config = Config::parse("bench", settings, &environment).expect("a good configuration");
    let clock = SystemClock::default();
    let (service, owned) =
        (Db::create(url).await.expect("a database"), Db::create(owner).await.expect("a database"));
    store::migrate(&owned, service.user()).await.expect("migrations");
    owned.close().await;
    let db = service;
    let key = dir.join("master.key");
    let master = if key.exists() {
        MasterKey::load(&SecretSource::File(key)).expect("the master key")
    } else {
        MasterKey::create(&key, &SystemEntropy).expect("a master key")
    };
    keyring::make_initial(&db, &master, Alg::Es256, clock.now(), &SystemEntropy).await.expect("keys");
    let form = ClientForm {
        name: Some("bench".into()),
        scopes: Some(ClientScope::ALL.iter().map(|s| s.as_str().to_owned()).collect()),
        audiences: Some(vec!["https://api.example.com".into()]),
        may_assert: Some(vec!["*".into()]),
        ..ClientForm::default()
    };
    let made = clients::create(&db, &master, &form, SecretKind::Live, clock.now(), &SystemEntropy)
        .await
        .expect("a client");
    db.close().await;
    let mut setup = Setup::new(config);
    setup.log.batch = batch;
    // one a commit is slow on purpose: everybody waits, nobody is refused
    setup.log.patience = std::time::Duration::from_secs(10);
    let running = app::start(setup).await.expect("the service starts");
    (running, made.secret.expose().to_owned())
}

/// A fresh service; the directory lives as long as it.
pub async fn on_sqlite(batch: usize) -> (app::Running, String, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let url = format!("sqlite://{}/bench.db", dir.path().display());
    let (running, secret) = service(&url, &url, dir.path(), batch).await;
    (running, secret, dir)
}
