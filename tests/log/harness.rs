//! What every test of the log starts from.

use std::sync::Arc;
use std::time::Duration;

use stagedoor::server::log::{
    CheckpointSigner, Decision, Effect, Event, EventType, GrantRow, Log, LogOptions, Personal, Record,
};
use stagedoor::server::store::{Db, migrate};
use stagedoor::token::{
    Act, Assurance, Audience, Clock, Entropy, FixedClock, GrantId, Jti, Scope, SystemEntropy,
};

pub const NOW: i64 = 1_795_333_985;
pub const SEED: [u8; 32] = [42; 32];
pub const HOST: &str = "log.example";

/// A migrated database of its own, its clock and entropy.
pub struct Bench {
    pub service: Db,
    pub owner: Db,
    pub clock: Arc<FixedClock>,
    pub entropy: Arc<dyn Entropy>,
    pub service_url: String,
    pub super_url: Option<String>,
    /// Removed with the bench.
    pub _dir: tempfile::TempDir,
}

impl Bench {
    pub async fn sqlite() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("stagedoor.db").display());
        let service = Db::create(&url).await.unwrap();
        migrate(&service, None).await.unwrap();
        Some(Self::new(service.clone(), service, url, None, dir))
    }

    pub async fn postgres() -> Option<Self> {
        let made = crate::pg::database().await?;
        let owner = Db::connect(&made.owner_url).await.unwrap();
        migrate(&owner, Some(&made.service_user)).await.unwrap();
        owner.close().await;
        Some(Self::of_postgres(&made).await)
    }

    /// On a database that is migrated already.
    pub async fn of_postgres(made: &crate::pg::TestDatabase) -> Self {
        let owner = Db::connect(&made.owner_url).await.unwrap();
        let service = Db::connect(&made.service_url).await.unwrap();
        let (url, admin) = (made.service_url.clone(), Some(made.super_url.clone()));
        Self::new(service, owner, url, admin, tempfile::tempdir().unwrap())
    }

    fn new(
        service: Db,
        owner: Db,
        service_url: String,
        super_url: Option<String>,
        dir: tempfile::TempDir,
    ) -> Self {
        let clock = Arc::new(FixedClock::at_seconds(NOW));
        Self { service, owner, clock, entropy: Arc::new(SystemEntropy), service_url, super_url, _dir: dir }
    }

    pub fn signer() -> CheckpointSigner {
        CheckpointSigner::from_seed(&SEED, HOST, 1).unwrap()
    }

    /// What the log's heads are signed with.
    pub fn log_key() -> [u8; 32] {
        *Self::signer().verifier().public()
    }

    pub async fn log(&self) -> Log {
        self.log_with(LogOptions { compare_database_clock: false, ..LogOptions::default() }).await
    }

    pub async fn log_with(&self, options: LogOptions) -> Log {
        let db = Db::connect(&self.service_url).await.unwrap();
        self.open(db, options).await.unwrap()
    }

    pub async fn open(&self, db: Db, options: LogOptions) -> Result<Log, stagedoor::server::log::OpenError> {
        let (clock, entropy) = (Arc::clone(&self.clock), Arc::clone(&self.entropy));
        Log::open(db, Self::signer(), clock, entropy, options).await
    }

    /// A log whose heads another key signs.
    pub async fn log_of(&self, seed: &[u8; 32]) -> Log {
        let db = Db::connect(&self.service_url).await.unwrap();
        let signer = CheckpointSigner::from_seed(seed, HOST, 1).unwrap();
        let options = LogOptions { compare_database_clock: false, ..LogOptions::default() };
        let (clock, entropy) = (Arc::clone(&self.clock), Arc::clone(&self.entropy));
        Log::open(db, signer, clock, entropy, options).await.unwrap()
    }

    /// An attempt of `actor` on `subject`, granted, with its grant.
    pub fn grant(&self, actor: &str, subject: &str) -> Record {
        let now = self.clock.now();
        let (id, jti) = (GrantId::generate(now, &*self.entropy), Jti::generate(now, &*self.entropy));
        let mut event = issue(actor, subject);
        event.decision = Some(Decision::Granted);
        event.grant = Some(id.clone());
        event.jti = Some(jti.clone());
        event.signed_sha256 = Some(self.random());
        event.kid = Some("kid1".parse().unwrap());
        event.iat = Some(now);
        event.ttl_seconds = Some(600);
        let row = GrantRow {
            id,
            jti,
            client: "client_1".parse().unwrap(),
            kid: "kid1".parse().unwrap(),
            aud: event.aud.clone(),
            scope: Scope::parse("read").unwrap(),
            assurance: Assurance::Asserted,
            iat: now,
            exp: now + Duration::from_mins(10),
            created_at: now,
            parent: None,
        };
        Record { effects: vec![Effect::InsertGrant(row)], ..Record::of(event) }
    }

    pub fn random(&self) -> [u8; 32] {
        let mut out = [0; 32];
        self.entropy.fill(&mut out);
        out
    }
}

/// An attempt not yet decided.
pub fn issue(actor: &str, subject: &str) -> Event {
    let mut event = Event::new(EventType::Issue);
    event.client = Some("client_1".parse().unwrap());
    event.rule = Some("default".into());
    event.aud = vec![Audience::try_from("https://api.example.com").unwrap()];
    event.scope = Some(Scope::parse("read").unwrap());
    event.assurance = Some(Assurance::Asserted);
    event.personal = Personal {
        actor: Some(Act { sub: actor.parse().unwrap(), iss: None, act: None }),
        subject: Some(subject.parse().unwrap()),
        reason: Some("Ticket 4711: invoice missing".into()),
        ticket: Some("4711".into()),
        address: Some([192, 0, 2, 7].into()),
    };
    event
}

/// One test, run on SQLite and then on PostgreSQL.
macro_rules! both {
    ($(#[$doc:meta])* async fn $name:ident($bench:ident) $body:block) => {
        $(#[$doc])*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            async fn suite($bench: crate::harness::Bench) $body
            println!("on SQLite");
            suite(crate::harness::Bench::sqlite().await.expect("always there")).await;
            if let Some(bench) = crate::harness::Bench::postgres().await {
                println!("on PostgreSQL");
                suite(bench).await;
            }
        }
    };
}
pub(crate) use both;
