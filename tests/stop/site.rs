//! Replicas of one service: the real servers, in this process, over one database.

use std::path::PathBuf;

use serde_json::{Value, json};
use stagedoor::server::app::{Running, Setup, start};
use stagedoor::server::clients::{self, ClientForm, SecretKind};
use stagedoor::server::config::{Config, Environment};
use stagedoor::server::keyring;
use stagedoor::server::log::EntryFilter;
use stagedoor::server::master_key::MasterKey;
use stagedoor::server::store::{self, Db};
use stagedoor::token::{Alg, ClientId, Clock as _, SystemClock, SystemEntropy};
use tempfile::TempDir;

use crate::support::contract::{Client, Reply};
pub use crate::support::until_within;

/// `iss` of every replica.
pub const ISSUER: &str = "https://stagedoor.test";
pub const AUDIENCE: &str = "https://api.example.com";

/// Any client named `test` may say who the actor is.
pub const POLICY: &str = r#"
@id("test-read")
@client("test")
@asserted("allow")
@unknown("actor target")
@max_lifetime("900")
@scope("read")
permit (principal, action == Action::"impersonate", resource)
when { principal.assurance == "asserted" };
"#;

/// Nobody may do anything.
pub const CLOSED: &str = r#"
@id("closed")
@message("Nobody acts as anybody today.")
forbid (principal, action, resource);
"#;

/// A database with keys and clients, and the replicas that run over it.
pub struct Site {
    text: String,
    config: Config,
    policy: PathBuf,
    database: Option<crate::support::pg::TestDatabase>,
    pub master: MasterKey,
    _dir: TempDir,
}

/// One running server.
pub struct Replica {
    pub api: Client,
    pub base: String,
    pub running: Running,
}

/// A client that is there.
pub struct Caller {
    pub id: String,
    pub secret: String,
}

impl Caller {
    /// Calls `replica` with its secret.
    pub fn at(&self, replica: &Replica) -> Client {
        replica.api.with_secret(&self.secret)
    }
}

// Not every test binary uses everything here.
const _: fn(&Site) -> &str = Site::owner_url;
const _: fn(Site, &str) -> Site = Site::with;

impl Site {
    pub async fn sqlite() -> Self {
        let dir = TempDir::new().unwrap();
        let url = format!("sqlite://{}", dir.path().join("stagedoor.db").display());
        Self::make(dir, url.clone(), &url, None).await
    }

    pub async fn postgres() -> Option<Self> {
        let made = crate::support::pg::database().await?;
        let (owner, service) = (made.owner_url.clone(), made.service_url.clone());
        Some(Self::make(TempDir::new().unwrap(), owner, &service, Some(made)).await)
    }

    async fn make(
        dir: TempDir,
        owner_url: String,
        service_url: &str,
        database: Option<crate::support::pg::TestDatabase>,
    ) -> Self {
        let policy = dir.path().join("policy.cedar");
        std::fs::write(&policy, POLICY).unwrap();
        let text = format!(
            "listen = \"127.0.0.1:0\"\nissuer = \"{ISSUER}\"\ndata_dir = \"{dir}\"\ndatabase_url = \"{service_url}\"\n\
             #settings\n[policy]\npath = \"{policy}\"\n[[gates]]\nname = \"default\"\naudience = \"{AUDIENCE}\"\nimpersonation = true\n",
            dir = dir.path().display(),
            policy = policy.display(),
        );
        let config = Config::parse("test", &text, &Environment::default()).unwrap();
        let db = Db::create(&owner_url).await.unwrap();
        let service = Db::connect(service_url).await.unwrap();
        store::migrate(&db, service.user()).await.unwrap();
        let master = MasterKey::create(&dir.path().join("master.key"), &SystemEntropy).unwrap();
        let now = SystemClock::default().now();
        keyring::make_initial(&service, &master, Alg::Es256, now, &SystemEntropy).await.unwrap();
        service.close().await;
        db.close().await;
        Self { text, config, policy, database, master, _dir: dir }
    }

    /// The same site, configured further: replicas made from now on are as `settings` say.
    pub fn with(self, settings: &str) -> Self {
        let text = self.text.replace("#settings", settings);
        let config = Config::parse("test", &text, &Environment::default()).unwrap();
        Self { config, ..self }
    }

    /// One more server over the database.
    pub async fn replica(&self) -> Replica {
        self.replica_with(|_| {}).await
    }

    /// One whose settings are changed.
    pub async fn replica_with(&self, change: impl FnOnce(&mut Config)) -> Replica {
        let mut config = self.config.clone();
        change(&mut config);
        let mut setup = Setup::new(config);
        setup.workers = Some(1);
        let running = start(setup).await.unwrap_or_else(|e| panic!("the service starts: {e}"));
        let base = format!("http://{}", running.address);
        Replica { api: Client::new(base.clone()), base, running }
    }

    /// The address of the database for its owner: what `audit erase` works with.
    pub fn owner_url(&self) -> &str {
        self.database.as_ref().map_or(self.config.database_url.expose(), |made| &made.owner_url)
    }

    /// The address of the database for the service.
    pub fn database_url(&self) -> &str {
        self.config.database_url.expose()
    }

    /// Whether several servers may run over the database.
    pub const fn has_replicas(&self) -> bool {
        self.database.is_some()
    }

    /// Other keys, made so long ago, in place of those there are.
    pub async fn age_keys(&self, age: chrono::TimeDelta) {
        use sqlx::{Connection as _, Executor as _};
        let sql = "DELETE FROM signing_key WHERE purpose <> 'log'";
        let deleted = match &self.database {
            Some(made) => {
                let mut owner = sqlx::PgConnection::connect(&made.super_url).await.unwrap();
                owner.execute(sql).await.unwrap().rows_affected()
            }
            None => {
                let mut owner =
                    sqlx::SqliteConnection::connect(self.config.database_url.expose()).await.unwrap();
                owner.execute(sql).await.unwrap().rows_affected()
            }
        };
        assert_eq!(deleted, 2, "tokens and feed");
        let (db, then) = (self.db().await, SystemClock::default().now() - age);
        keyring::make_initial(&db, &self.master, Alg::Es256, then, &SystemEntropy).await.unwrap();
        db.close().await;
    }

    /// The database, as the service's role.
    pub async fn db(&self) -> Db {
        Db::connect(self.config.database_url.expose()).await.unwrap()
    }

    /// Makes a client; replicas that run already see it within a second.
    pub async fn client(&self, scopes: &[&str], handoff_url: Option<&str>) -> Caller {
        let words = |list: &[&str]| Some(list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        let form = ClientForm {
            name: Some("test".into()),
            scopes: words(scopes),
            audiences: words(&[AUDIENCE]),
            may_assert: words(&["*"]),
            handoff_url: handoff_url.map(str::to_owned),
            ..ClientForm::default()
        };
        let (db, now) = (self.db().await, SystemClock::default().now());
        let made =
            clients::create(&db, &self.master, &form, SecretKind::Live, now, &SystemEntropy).await.unwrap();
        db.close().await;
        Caller { id: made.client.id.to_string(), secret: made.secret.expose().to_owned() }
    }

    /// Mints, reads, revokes, redeems and verifies.
    pub async fn minter(&self) -> Caller {
        let scopes = [
            "actor_tokens:issue",
            "actor_tokens:assert_actor",
            "actor_tokens:read",
            "actor_tokens:revoke",
            "tokens:verify",
        ];
        self.client(&scopes, None).await
    }

    pub async fn admin(&self) -> Caller {
        self.client(&["admin", "tokens:verify", "actor_tokens:revoke"], None).await
    }

    pub async fn redeemer(&self, handoff_url: Option<&str>) -> Caller {
        self.client(&["actor_tokens:redeem", "tokens:verify"], handoff_url).await
    }

    /// Disables a client as the command line does.
    pub async fn disable(&self, id: &str) {
        let (db, now) = (self.db().await, SystemClock::default().now());
        clients::disable(&db, &self.master, &ClientId::try_from(id).unwrap(), now).await.unwrap();
        db.close().await;
    }

    /// PostgreSQL: throws every replica out of the database and lets none in, or lets them in again.
    pub async fn cut_off(&self, away: bool) {
        use sqlx::{Connection as _, Executor as _};
        let database = self.database.as_ref().unwrap();
        let mut admin = sqlx::PgConnection::connect(&database.super_url).await.unwrap();
        let (user, login) = (&database.service_user, if away { "NOLOGIN" } else { "LOGIN" });
        admin.execute(sqlx::AssertSqlSafe(format!("ALTER ROLE {user} {login}"))).await.unwrap();
        if away {
            let sql =
                format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{user}'");
            admin.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
        }
    }

    /// Puts another policy in force, and waits until `replica` has it.
    pub async fn policy(&self, text: &str, replica: &Replica) {
        let before = replica.running.service.desk.policy.current().version().to_owned();
        std::fs::write(&self.policy, text).unwrap();
        until("the policy changes", || async {
            replica.running.service.desk.policy.current().version() != before
        })
        .await;
    }
}

impl Replica {
    pub async fn stop(self) {
        self.running.stop().await.expect("a clean stop");
    }

    /// The entries of the log so far, oldest first.
    pub async fn entries(&self) -> Vec<Value> {
        let log = &self.running.service.log;
        let rows = log.entries_from(&EntryFilter::default(), 0, 10_000, false).await.unwrap();
        rows.into_iter().map(|entry| entry.body.unwrap()).collect()
    }

    /// How often a rule stands in the log for entries of a type.
    pub async fn recorded(&self, typ: &str, rule: &str) -> usize {
        self.entries().await.iter().filter(|e| e["typ"] == typ && e["rule"] == rule).count()
    }
}

/// Waits until something holds; fails after five seconds.
pub async fn until<F: Future<Output = bool>>(what: &str, holds: impl FnMut() -> F) {
    until_within(5, what, holds).await;
}

pub fn body_for(actor: &str, user: &str) -> Value {
    json!({ "user_id": user, "actor": { "sub": actor }, "reason": "Ticket 4711: invoice missing" })
}

pub async fn mint(api: &Client) -> Value {
    api.mint(&body_for("admin_7", "user_42")).await.ok()
}

pub fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} in {value}"))
}

/// Claims of a compact JWS, not verified.
pub fn claims(token: &str) -> Value {
    use base64::Engine as _;
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap())
        .unwrap()
}

pub async fn is_active(api: &Client, token: &str) -> bool {
    api.verify(token).await.ok()["active"] == true
}

/// A call with an idempotency key.
pub async fn keyed(api: &Client, path: &str, key: &str, body: &Value) -> Reply {
    api.call(reqwest::Method::POST, path).header("idempotency-key", key).json(body).send().await
}

/// One test on both databases.
macro_rules! on_both {
    ($($(#[doc = $doc:expr])* async fn $name:ident($site:ident) $body:block)+) => {$(
        $(#[doc = $doc])*
        mod $name {
            use super::*;
            async fn run($site: crate::site::Site) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                run(crate::site::Site::sqlite().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                if let Some(site) = crate::site::Site::postgres().await {
                    run(site).await;
                }
            }
        }
    )+};
}
pub(crate) use on_both;
