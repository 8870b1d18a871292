//! The real server, in this process, on a port of its own, over a database of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use stagedoor::server::app::{Running, Setup, start};
use stagedoor::server::clients::{self, ClientForm, SecretKind};
use stagedoor::server::config::{Config, Environment};
use stagedoor::server::keyring;
use stagedoor::server::log::{EntryFilter, LogOptions};
use stagedoor::server::master_key::MasterKey;
use stagedoor::server::store::{self, Db};
use stagedoor::token::{Alg, Clock, SystemClock, SystemEntropy};
use tempfile::TempDir;

use super::contract::Client;
use super::{pg, skip};

/// The audience of the clients that [`NewClient::minter`] describes.
pub const AUDIENCE: &str = "https://api.example.com";
/// Somebody else's.
pub const OTHER_AUDIENCE: &str = "https://other.example.com";

/// Any client named `test` may say who the actor is; what no policy loosens holds as everywhere.
const POLICY: &str = r#"
@id("test-read")
@client("test")
@asserted("allow")
@unknown("actor target")
@max_lifetime("900")
@scope("read")
permit (principal, action == Action::"impersonate", resource)
when { principal.assurance == "asserted" };

@id("reason-too-short")
@message("Give a reason of at least 10 characters.")
forbid (principal, action == Action::"impersonate", resource)
when { context.reason_length < 10 };
"#;

/// Where a test's log lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    /// A file in a temporary directory.
    Sqlite,
    /// A database of the test binary's own cluster, as the service role.
    Postgres,
}

/// A client as a test wants it.
#[derive(Debug, Clone, Copy)]
pub struct NewClient<'a> {
    /// What it may call.
    pub scopes: &'a [&'a str],
    /// Its audiences, the default first.
    pub audience: &'a [&'a str],
    /// Whom it may name.
    pub may_assert: &'a [&'a str],
}

impl NewClient<'static> {
    /// May mint for `admin_…`, read its grants and verify its tokens.
    pub fn minter() -> Self {
        Self {
            scopes: &[
                "actor_tokens:issue",
                "actor_tokens:assert_actor",
                "actor_tokens:read",
                "tokens:verify",
            ],
            audience: &[AUDIENCE],
            may_assert: &["admin_*"],
        }
    }
}

/// A client that is there, and how it calls.
#[derive(Debug)]
pub struct TestClient {
    /// `client_…`
    pub id: String,
    /// Its secret.
    pub secret: String,
    /// Calls with it.
    pub api: Client,
}

/// A body that [`NewClient::minter`] may mint with.
pub fn mint_body() -> Value {
    json!({ "user_id": "user_42", "actor": { "sub": "admin_7" }, "reason": "Ticket 4711: invoice missing" })
}

/// A running service and what is behind it.
pub struct TestApp {
    /// Calls it without a credential.
    pub api: Client,
    /// `iss` of its tokens.
    pub issuer: String,
    running: Running,
    parts: Parts,
}

/// What outlives a run: a stopped service can be started again over it.
struct Parts {
    config: Config,
    owner_url: String,
    master: MasterKey,
    _dir: TempDir,
}

impl TestApp {
    /// Starts a service over an empty log; `None`, said aloud, where the database cannot be had.
    pub async fn start(database: Database) -> Option<Self> {
        Self::start_with(database, LogOptions::default()).await
    }

    /// The same with a log that runs otherwise.
    pub async fn start_with(database: Database, log: LogOptions) -> Option<Self> {
        let dir = TempDir::new().expect("a temporary directory");
        let (owner_url, service_url) = match database {
            Database::Sqlite => {
                let url = format!("sqlite://{}", dir.path().join("stagedoor.db").display());
                (url.clone(), url)
            }
            Database::Postgres => {
                let Some(made) = pg::database().await else {
                    skip(std::thread::current().name().unwrap_or("a test"), "PostgreSQL is not installed");
                    return None;
                };
                (made.owner_url, made.service_url)
            }
        };
        let parts = Parts::make(dir, owner_url, &service_url).await;
        Some(Self::over(parts, false, log).await)
    }

    async fn over(parts: Parts, dev: bool, log: LogOptions) -> Self {
        let mut setup = Setup::new(parts.config.clone());
        setup.log = log;
        setup.dev = dev;
        setup.workers = Some(1);
        let running = start(setup).await.unwrap_or_else(|e| panic!("the service starts: {e}"));
        let api = Client::new(format!("http://{}", running.address));
        Self { api, issuer: running.issuer.to_string(), running, parts }
    }

    /// Where it listens.
    pub fn api_address(&self) -> SocketAddr {
        self.running.address
    }

    /// What signs its tokens, as a thief of the key would have it.
    pub fn signer(&self) -> std::sync::Arc<dyn stagedoor::token::Signer> {
        self.running.service.keyring.token_signer().expect("a key")
    }

    /// Makes a client, as `stagedoor client create` does, and waits until the service knows it.
    pub async fn client(&self, wanted: NewClient<'_>) -> TestClient {
        let words = |list: &[&str]| Some(list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        let form = ClientForm {
            name: Some("test".into()),
            scopes: words(wanted.scopes),
            audiences: words(wanted.audience),
            may_assert: words(wanted.may_assert),
            ..ClientForm::default()
        };
        let db = Db::connect(self.parts.config.database_url.expose()).await.expect("the database");
        let now = SystemClock::default().now();
        let made = clients::create(&db, &self.parts.master, &form, SecretKind::Live, now, &SystemEntropy)
            .await
            .expect("a client");
        db.close().await;
        let (id, secret) = (made.client.id.to_string(), made.secret.expose().to_owned());
        let clock = SystemClock::default();
        while self.running.service.clients.authenticate(&secret, now).is_none() {
            assert!(
                clock.monotonic() < Duration::from_secs(3),
                "a running server sees a change made by the CLI within 1 s"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        TestClient { api: self.api.with_secret(&secret), id, secret }
    }

    /// A client that may mint, read and verify its own.
    pub async fn minter(&self) -> TestClient {
        self.client(NewClient::minter()).await
    }

    /// A client that may read the log with the people in it.
    pub async fn auditor(&self) -> TestClient {
        let scopes = &["audit:read", "audit:read_personal"];
        self.client(NewClient { scopes, audience: &[], may_assert: &[] }).await
    }

    /// Stops the service and says what its log holds, oldest first.
    pub async fn stop_and_read_the_log(self) -> Vec<Value> {
        let Self { running, parts, .. } = self;
        running.stop().await.expect("a clean stop");
        let again = Self::over(parts, false, LogOptions::default()).await;
        let log = &again.running.service.log;
        let rows = log.entries_from(&EntryFilter::default(), 0, 10_000, false).await.expect("the log");
        let bodies = rows.into_iter().map(|entry| entry.body.expect("a body")).collect();
        again.running.stop().await.expect("a clean stop");
        bodies
    }

    /// The same service as `stagedoor dev` runs it.
    pub async fn restarted_as_dev(self) -> Self {
        let Self { running, parts, .. } = self;
        running.stop().await.expect("a clean stop");
        let db = Db::connect(&parts.owner_url).await.expect("the database");
        db.set_meta("dev", "1").await.expect("a stamp");
        db.close().await;
        Self::over(parts, true, LogOptions::default()).await
    }
}

impl Parts {
    /// What `stagedoor init` makes: schema, keys, master key.
    async fn make(dir: TempDir, owner_url: String, service_url: &str) -> Self {
        let policy = dir.path().join("policy.cedar");
        std::fs::write(&policy, POLICY).expect("a policy");
        let text = format!(
            "listen = \"127.0.0.1:0\"\ndata_dir = \"{dir}\"\ndatabase_url = \"{service_url}\"\n[policy]\npath = \"{policy}\"\n\
             [[gates]]\nname = \"default\"\naudience = \"{AUDIENCE}\"\nimpersonation = true\n\
             [[gates]]\nname = \"strict\"\naudience = \"{AUDIENCE}\"\n\
             [[gates]]\nname = \"other\"\naudience = \"{OTHER_AUDIENCE}\"\nimpersonation = true\n",
            dir = dir.path().display(),
            policy = policy.display(),
        );
        let config = Config::parse("test", &text, &Environment::default()).expect("settings");
        let db = Db::create(&owner_url).await.expect("a database");
        let service = Db::connect(service_url).await.expect("a database");
        store::migrate(&db, service.user()).await.expect("migrations");
        let master = MasterKey::create(Path::new(&dir.path().join("master.key")), &SystemEntropy)
            .expect("a master key");
        keyring::make_initial(&service, &master, Alg::Es256, SystemClock::default().now(), &SystemEntropy)
            .await
            .expect("keys");
        service.close().await;
        db.close().await;
        Self { config, owner_url, master, _dir: dir }
    }
}
