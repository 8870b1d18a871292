//! A company: its login service (whose keys the test holds), its directory, its policy, and replicas of the
//! service over one database.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use stagedoor::server::app::{Running, Setup, start};
use stagedoor::server::clients::{self, ClientForm, SecretKind};
use stagedoor::server::config::{Config, Environment};
use stagedoor::server::keyring;
use stagedoor::server::log::{EntryFilter, LogOptions};
use stagedoor::server::master_key::MasterKey;
use stagedoor::server::store::{self, Db};
use stagedoor::token::{
    Alg, ClientId, Clock, KeySet, LocalSigner, Signer as _, SystemClock, SystemEntropy, encode_jws,
};
use tempfile::TempDir;

use crate::support::contract::{Client, Reply};
use crate::support::pg;
use crate::support::until_within;

/// `iss` of every replica.
pub const ISSUER: &str = "https://stagedoor.test";
pub const AUDIENCE: &str = "https://api.example.com";
/// The company's login service, and a second one through which some of the same people come.
pub const LOGIN: &str = "https://login.example.com";
pub const PARTNERS: &str = "https://partners.example.com";

/// Looking needs nobody; changing needs a colleague of the same organisation; the on-call breaks glass.
pub const POLICY: &str = r#"
@id("break-glass")
@break_glass
@scope("read write")
@max_lifetime("300")
permit (principal in Role::"on-call", action == Action::"impersonate", resource)
when { principal.known && resource.known && context has reason && context.reason like "BREAK GLASS: *" };

@id("look")
@scope("read")
permit (principal in Role::"support", action == Action::"impersonate", resource)
when { principal.known && resource.known };

@id("change")
@require_approval
@scope("read write")
@max_lifetime("600")
permit (principal in Role::"support", action == Action::"impersonate", resource)
when { principal.known && resource.known };

@id("named-by-a-client")
@client("test")
@asserted("allow")
@scope("read")
permit (principal, action == Action::"impersonate", resource)
when { principal.assurance == "asserted" && principal.known && resource.known };

@id("agents")
@scope("read")
@max_lifetime("120")
permit (principal, action == Action::"delegate", resource)
when { principal.known && resource.known && context.depth <= 4 };

@id("colleagues-approve")
permit (principal in Role::"support", action == Action::"approve", resource)
when { principal.known && resource.known };

@id("protected")
@message("This user is protected.")
forbid (principal, action, resource in Role::"protected");

@id("deactivated")
@message("This account is deactivated.")
forbid (principal, action, resource)
when { (resource has active && !resource.active) || (principal has active && !principal.active) };
"#;

/// The machine's clock, that can be pushed on: wall and monotonic together.
#[derive(Default)]
pub struct Pushed {
    machine: SystemClock,
    by: Mutex<Duration>,
}

impl Pushed {
    pub fn now_seconds(&self) -> i64 {
        self.now().timestamp()
    }

    pub fn on(&self, seconds: u64) {
        *self.by.lock().unwrap() += Duration::from_secs(seconds);
    }
}

impl Clock for Pushed {
    fn now(&self) -> DateTime<Utc> {
        self.machine.now() + *self.by.lock().unwrap()
    }

    fn monotonic(&self) -> Duration {
        self.machine.monotonic() + *self.by.lock().unwrap()
    }
}

/// Where the log lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    Sqlite,
    Postgres,
}

pub struct Company {
    pub clock: Arc<Pushed>,
    pub config: Config,
    people: Mutex<BTreeMap<String, Value>>,
    signers: BTreeMap<&'static str, LocalSigner>,
    master: MasterKey,
    dir: TempDir,
}

/// One running server.
pub struct Replica {
    pub api: Client,
    pub running: Running,
}

/// A client that is there.
pub struct Caller {
    pub id: String,
    pub secret: String,
}

impl Caller {
    pub fn at(&self, replica: &Replica) -> Client {
        replica.api.with_secret(&self.secret)
    }
}

impl Company {
    /// `more` is added to the settings: keys, then tables.
    pub async fn found(database: Database, more: &str) -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let (owner_url, service_url) = match database {
            Database::Sqlite => {
                let url = format!("sqlite://{}", dir.path().join("stagedoor.db").display());
                (url.clone(), url)
            }
            Database::Postgres => {
                let made = pg::database().await?;
                (made.owner_url, made.service_url)
            }
        };
        let mut issuers = String::new();
        let mut signers = BTreeMap::new();
        for iss in [LOGIN, PARTNERS] {
            let signer = LocalSigner::generate(Alg::Es256).unwrap();
            let jwks = dir.path().join(format!("{}.json", iss.trim_start_matches("https://")));
            let keys = KeySet::new([signer.verifying_key().clone()]);
            std::fs::write(&jwks, keys.to_jwks().to_string()).unwrap();
            issuers.push_str(&format!(
                "[[issuers]]\niss = \"{iss}\"\njwks_file = \"{}\"\naudiences = [\"{ISSUER}\"]\nclients = [\"tool\"]\n\
                 roles_path = \"roles\"\nid_token = true\n{}",
                jwks.display(),
                if iss == PARTNERS { "directory_path = \"employee\"\n" } else { "" },
            ));
            signers.insert(iss, signer);
        }
        std::fs::write(dir.path().join("policy.cedar"), POLICY).unwrap();
        // tables come after the settings that stand in none
        let (settings, tables) = more.split_at(more.find('[').unwrap_or(more.len()));
        let text = format!(
            "listen = \"127.0.0.1:0\"\nissuer = \"{ISSUER}\"\ndata_dir = \"{dir}\"\ndatabase_url = \"{service_url}\"\n{settings}\n\
             [policy]\npath = \"{dir}/policy.cedar\"\n[directory]\nkind = \"file\"\npath = \"{dir}/people.json\"\n{issuers}{tables}",
            dir = dir.path().display(),
        );
        let config = Config::parse("test", &text, &Environment::default()).unwrap_or_else(|e| panic!("{e}"));
        let db = Db::create(&owner_url).await.unwrap();
        let service = Db::connect(&service_url).await.unwrap();
        store::migrate(&db, service.user()).await.unwrap();
        let master = MasterKey::create(&dir.path().join("master.key"), &SystemEntropy).unwrap();
        let now = SystemClock::default().now();
        keyring::make_initial(&service, &master, Alg::Es256, now, &SystemEntropy).await.unwrap();
        service.close().await;
        db.close().await;
        let company = Self {
            clock: Arc::new(Pushed::default()),
            config,
            people: Mutex::default(),
            signers,
            master,
            dir,
        };
        for (id, roles) in [
            ("agent_1", json!(["support"])),
            ("agent_2", json!(["support"])),
            ("agent_3", json!(["support"])),
            ("oncall_1", json!(["on-call", "support"])),
            ("clerk_1", json!(["clerk"])),
            ("robot_1", json!(["agent"])),
            ("robot_2", json!(["agent"])),
            ("robot_3", json!(["agent"])),
            ("robot_4", json!(["agent"])),
            ("user_42", json!(["customer"])),
            ("user_43", json!(["customer"])),
            ("user_99", json!(["customer", "protected"])),
        ] {
            company
                .people
                .lock()
                .unwrap()
                .insert(id.to_owned(), json!({ "id": id, "active": true, "roles": roles }));
        }
        company.write_people();
        Some(company)
    }

    fn write_people(&self) {
        let people: Vec<Value> = self.people.lock().unwrap().values().cloned().collect();
        let (path, new) = (self.dir.path().join("people.json"), self.dir.path().join("people.new"));
        std::fs::write(&new, json!({ "people": people }).to_string()).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    /// Changes what the directory's file says of somebody; what it says then.
    pub fn write(&self, id: &str, change: Value) -> Value {
        let wanted = {
            let mut people = self.people.lock().unwrap();
            let person = people.get_mut(id).unwrap();
            person.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            person.clone()
        };
        self.write_people();
        wanted
    }

    /// Changes what the directory says of somebody, and waits until `replicas` know it.
    pub async fn change(&self, id: &str, change: Value, replicas: &[&Replica]) {
        let wanted = self.write(id, change);
        let roles: Vec<String> = serde_json::from_value(wanted["roles"].clone()).unwrap();
        for replica in replicas {
            until("the directory changes", || async {
                let found = replica.running.service.desk.directory.look_up(&id.parse().unwrap()).await;
                found.is_ok_and(|person| {
                    person.is_some_and(|p| {
                        p.roles == roles
                            && json!(p.active) == wanted["active"]
                            && json!(p.opted_out) == *wanted.get("opted_out").unwrap_or(&json!(false))
                            && p.consent_until.map(|t| t.timestamp())
                                == wanted["consent_until"]
                                    .as_str()
                                    .map(|t| t.parse::<DateTime<Utc>>().unwrap().timestamp())
                    })
                })
            })
            .await;
        }
    }

    /// One more server over the database.
    pub async fn replica(&self) -> Replica {
        let mut setup = Setup::new(self.config.clone());
        setup.workers = Some(1);
        setup.clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        setup.log = LogOptions { compare_database_clock: false, ..LogOptions::default() };
        let running = start(setup).await.unwrap_or_else(|e| panic!("the service starts: {e}"));
        Replica { api: Client::new(format!("http://{}", running.address)), running }
    }

    pub async fn client(&self, scopes: &[&str]) -> Caller {
        self.client_with(scopes, |_| {}).await
    }

    pub async fn client_with(&self, scopes: &[&str], change: impl FnOnce(&mut ClientForm)) -> Caller {
        let words = |list: &[&str]| Some(list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        let mut form = ClientForm {
            name: Some("test".into()),
            scopes: words(scopes),
            audiences: words(&[AUDIENCE, "https://second.example.com"]),
            may_assert: words(&["*"]),
            ..ClientForm::default()
        };
        change(&mut form);
        let (db, now) = (self.db().await, self.clock.now());
        let made =
            clients::create(&db, &self.master, &form, SecretKind::Live, now, &SystemEntropy).await.unwrap();
        db.close().await;
        Caller { id: made.client.id.to_string(), secret: made.secret.expose().to_owned() }
    }

    /// Mints, reads, revokes, redeems and verifies.
    pub async fn tool(&self) -> Caller {
        self.client(&[
            "actor_tokens:issue",
            "actor_tokens:assert_actor",
            "actor_tokens:read",
            "actor_tokens:revoke",
            "tokens:verify",
        ])
        .await
    }

    /// Disables a client as the command line does.
    pub async fn disable(&self, id: &str) {
        let db = self.db().await;
        clients::disable(&db, &self.master, &ClientId::try_from(id).unwrap(), self.clock.now())
            .await
            .unwrap();
        db.close().await;
    }

    async fn db(&self) -> Db {
        Db::connect(self.config.database_url.expose()).await.unwrap()
    }

    /// Puts another policy in force, and waits until `replicas` have it.
    pub async fn policy(&self, text: &str, replicas: &[&Replica]) {
        let path: PathBuf = self.dir.path().join("policy.cedar");
        let version = |replica: &Replica| replica.running.service.desk.policy.current().version().to_owned();
        let before: Vec<String> = replicas.iter().map(|replica| version(replica)).collect();
        std::fs::write(path, text).unwrap();
        for (replica, before) in replicas.iter().zip(before) {
            until("the policy changes", || async { version(replica) != before }).await;
        }
    }

    /// The login service's access token for somebody; `change` puts members in or, null, takes them out.
    pub fn token_of(&self, iss: &str, sub: &str, change: Value) -> String {
        let now = self.clock.now().timestamp();
        let mut claims = json!({
            "iss": iss, "sub": sub, "aud": ISSUER, "client_id": "tool", "iat": now - 1, "exp": now + 300,
            "jti": format!("{sub}-{now}"), "scope": "act",
        });
        for (name, value) in change.as_object().unwrap() {
            let claims = claims.as_object_mut().unwrap();
            if value.is_null() {
                claims.remove(name);
            } else {
                claims.insert(name.clone(), value.clone());
            }
        }
        encode_jws(&self.signers[iss], "at+jwt", &claims).unwrap().into_string()
    }

    /// A fresh token of the company's own login service.
    pub fn login(&self, sub: &str) -> String {
        self.token_of(LOGIN, sub, json!({}))
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

    /// How often entries of this type ended like this by this rule.
    pub async fn recorded(&self, typ: &str, decision: &str, rule: &str) -> usize {
        let of = |e: &&Value| e["typ"] == typ && e["decision"] == decision && e["rule"] == rule;
        self.entries().await.iter().filter(of).count()
    }

    /// Calls with somebody's own token.
    pub async fn approve(&self, token: &str, id: &str, body: &Value) -> Reply {
        self.api.with_secret(token).post(&format!("/v1/actor_tokens/{id}/approve"), body).await
    }
}

/// Waits until something holds; fails after five seconds.
pub async fn until<F: Future<Output = bool>>(what: &str, holds: impl FnMut() -> F) {
    until_within(5, what, holds).await;
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

/// One test on both databases; settings may be added.
macro_rules! on_both {
    ($($(#[doc = $doc:expr])* async fn $name:ident($company:ident $(, $more:literal)?) $body:block)+) => {$(
        $(#[doc = $doc])*
        mod $name {
            use super::*;
            async fn run($company: crate::company::Company) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                let more = concat!("" $(, $more)?);
                let company = crate::company::Company::found(crate::company::Database::Sqlite, more).await;
                run(company.unwrap()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                let more = concat!("" $(, $more)?);
                match crate::company::Company::found(crate::company::Database::Postgres, more).await {
                    Some(company) => run(company).await,
                    None => crate::support::skip(stringify!($name), "PostgreSQL is not installed"),
                }
            }
        }
    )+};
}
pub(crate) use on_both;
