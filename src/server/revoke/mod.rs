//! Ending grants before their time, and telling everybody who has to know.
//!
//! Every stop is an entry of the log and a row, made in one transaction; [`RevocationState`] is what a
//! replica knows of the rows, [`Feed`] what it tells the guards.

mod by_person;
mod feed;
mod own_token;
mod people;
mod places;
mod state;

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;

pub use by_person::ByPerson;
pub use feed::{Feed, FeedError, LastEvent, Listener, Snapshot};
pub use own_token::OwnTokens;
pub use people::PeopleTags;
pub use places::{Place, PlaceLimits};
pub use state::{POLL_EVERY, Published, RevocationState};

use super::clients::{Client, ClientScope, Clients};
use super::keyring::{self, Keyring, KeyringError};
use super::limits::{MintLimits, seconds_to_wait};
use super::log::{
    Condition, Decision, Effect, Event, EventType, Grant, GrantStatus, Hold, Log, LogError, Personal, Record,
    Recorded, Reserve, Revoke, Selector,
};
use super::master_key::MasterKey;
use super::store::Db;
use crate::token::{Act, ClientId, Clock, Entropy, GrantId, Issuer, Kid, RequestId, Sub};

/// The longest hold, seconds: thirty days. Whoever is to stay out longer is a matter of policy.
pub const MAX_HOLD_SECONDS: u32 = 30 * 24 * 3600;

/// Who ends grants, as the edge knows him.
#[derive(Debug, Clone, Copy)]
pub struct By<'a> {
    /// The authenticated client.
    pub client: &'a Client,
    /// The request.
    pub request: &'a RequestId,
    /// Where it came from.
    pub address: Option<IpAddr>,
}

/// What is to end, as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Every grant in whose chain this actor stands. Without `iss`: whoever names him.
    Actor {
        /// His id.
        sub: Sub,
        /// Who names him.
        iss: Option<Issuer>,
    },
    /// Every grant on this user.
    User(Sub),
    /// Everything issued to a client.
    Client(ClientId),
    /// Everything a key of ours signed.
    Kid(Kid),
    /// Everything.
    All,
}

impl Target {
    const fn word(&self) -> &'static str {
        match self {
            Self::Actor { .. } => "actor",
            Self::User(_) => "user",
            Self::Client(_) => "client",
            Self::Kid(_) => "kid",
            Self::All => "all",
        }
    }
}

/// A revocation as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// What ends.
    pub target: Target,
    /// Why.
    pub reason: String,
    /// Refuses new mints for as long, at most [`MAX_HOLD_SECONDS`].
    pub hold_seconds: Option<u32>,
}

/// A revocation that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// `rev_…`
    pub id: String,
    /// How many grants it ended.
    pub matched: u64,
    /// The entry.
    pub index: u64,
}

/// Why nothing was ended; recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The client may not.
    Scope(ClientScope),
    /// There is no such grant, or it is not this client's.
    Unknown,
    /// The grant is over already.
    Over,
    /// There is no such key, or it signs no tokens.
    UnknownKey,
    /// No such client.
    UnknownClient,
    /// The client was refused too often, and waits these seconds; counted, not recorded.
    TooOften(u32),
}

impl Refused {
    const fn rule(&self) -> &'static str {
        match self {
            Self::Scope(_) => "scope_missing",
            Self::Unknown => "grant_unknown",
            Self::Over => "grant_ended",
            Self::UnknownKey => "key_unknown",
            Self::UnknownClient => "client_unknown",
            Self::TooOften(_) => "rate_limited",
        }
    }
}

/// Why a revocation could not be carried through; whoever asked must ask again.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// It is not known to be recorded: everything may still be valid.
    #[error("the revocation is not known to be recorded")]
    Log(#[from] LogError),
    /// It is recorded and in force, but the key still signs, so that nothing can be minted.
    #[error("the key is refused, and could not be replaced")]
    Key(#[source] KeyringError),
}

impl RevokeError {
    /// How long a caller does well to wait, seconds.
    #[must_use]
    pub const fn retry_after_seconds(&self) -> u32 {
        match self {
            Self::Log(error) => error.retry_after_seconds(),
            Self::Key(_) => 1,
        }
    }
}

/// Called with the keys as they are now.
pub type KeysChanged = Box<dyn Fn(&Keyring) + Send + Sync>;

/// What a [`Revoker`] works with.
pub struct RevokerParts {
    /// What records.
    pub log: Log,
    /// What is known of revocations.
    pub state: Arc<RevocationState>,
    /// `iss` of our tokens.
    pub issuer: Issuer,
    /// Who may call.
    pub clients: Arc<Clients>,
    /// What signs.
    pub keyring: Arc<Keyring>,
    /// How often a client is refused at most.
    pub limits: Arc<MintLimits>,
    /// Told when a key was replaced, so that this replica verifies what the next one signs.
    pub keys_changed: KeysChanged,
    /// What people's tags are made under, and keys sealed.
    pub master: MasterKey,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness for ids and keys.
    pub entropy: Arc<dyn Entropy>,
}

/// What ends grants.
pub struct Revoker {
    log: Log,
    state: Arc<RevocationState>,
    people: Arc<PeopleTags>,
    own: OwnTokens,
    clients: Arc<Clients>,
    keyring: Arc<Keyring>,
    limits: Arc<MintLimits>,
    keys_changed: KeysChanged,
    master: MasterKey,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl Revoker {
    /// A revoker that records in the log and tells the state.
    #[must_use]
    pub fn new(parts: RevokerParts) -> Self {
        let RevokerParts {
            log,
            state,
            issuer,
            clients,
            keyring,
            limits,
            keys_changed,
            master,
            clock,
            entropy,
        } = parts;
        let people = Arc::new(PeopleTags::new(&master));
        let own = OwnTokens::new(issuer, Arc::clone(&keyring));
        Self { log, state, people, own, clients, keyring, limits, keys_changed, master, clock, entropy }
    }

    /// What stands for people in tables.
    #[must_use]
    pub const fn people(&self) -> &Arc<PeopleTags> {
        &self.people
    }

    /// Ends one grant, and what was delegated from it; the grant as it is then.
    ///
    /// # Errors
    /// [`LogError`]: it may still be valid.
    pub async fn revoke_grant(
        &self,
        by: By<'_>,
        id: &GrantId,
        reason: Option<String>,
    ) -> Result<Result<Grant, Refused>, LogError> {
        let mut event = event(&by, "grant");
        event.grant = Some(id.clone());
        event.personal.reason = reason;
        if !by.client.may(ClientScope::Revoke) {
            return self.refuse(event, Refused::Scope(ClientScope::Revoke)).await;
        }
        let found = self.log.grant(id).await?;
        let Some(grant) = found.filter(|grant| may_end(by.client, grant)) else {
            return self.refuse(event, Refused::Unknown).await;
        };
        if !self.is_live(&grant) {
            return self.refuse(event, Refused::Over).await;
        }
        name_people(&mut event, &grant);
        let reserve = if by.client.may(ClientScope::Admin) { Reserve::Open } else { Reserve::Half };
        if self.end_grant(event, &grant.row.id, reserve).await?.failed.is_some() {
            // somebody else ended it a moment ago; that record is a denial already
            return Ok(Err(Refused::Over));
        }
        Ok(Ok(self.read_again(grant).await))
    }

    /// Ends the impersonation that a token stands for, for whoever holds it; a second time changes nothing.
    /// `None`: the text is no token of ours that has not expired.
    ///
    /// # Errors
    /// [`LogError`]: it may still be valid.
    pub async fn stop(
        &self,
        token: &str,
        request: &RequestId,
        address: Option<IpAddr>,
    ) -> Result<Option<Grant>, LogError> {
        let now = self.clock.now();
        let Some(token) = self.own.read(token, now) else { return Ok(None) };
        let Some(id) = token.sid.as_deref().and_then(|sid| GrantId::try_from(sid).ok()) else {
            return Ok(None);
        };
        let Some(grant) = self.log.grant(&id).await? else { return Ok(None) };
        if self.is_live(&grant) {
            let mut event = Event::new(EventType::Revoke);
            event.decision = Some(Decision::Granted);
            event.rule = Some("stopped_by_holder".into());
            event.detail = Some(detail("holder"));
            event.client = Some(grant.row.client.clone());
            event.req = Some(request.clone());
            event.grant = Some(id.clone());
            event.jti.clone_from(&token.jti);
            event.personal.address = address;
            event.personal.actor.clone_from(&token.actor);
            event.personal.subject = Some(token.sub.clone());
            self.end_grant(event, &id, Reserve::Half).await?;
        }
        Ok(Some(self.read_again(grant).await))
    }

    /// RFC 7009: ends the grant of a token that was issued to this client (RV-2). Whatever else the text is,
    /// there is nothing to end, and that is no error (RV-3).
    ///
    /// # Errors
    /// [`LogError`]: the token is still valid (RV-5).
    pub async fn revoke_token(
        &self,
        client: &Client,
        request: &RequestId,
        address: Option<IpAddr>,
        token: &str,
    ) -> Result<(), LogError> {
        let Some(token) = self.own.read(token, self.clock.now()) else { return Ok(()) };
        let Some(id) = token.sid.as_deref().and_then(|sid| GrantId::try_from(sid).ok()) else {
            return Ok(());
        };
        let by = By { client, request, address };
        self.revoke_grant(by, &id, None).await.map(drop)
    }

    /// Ends everything that `ask` names. A client that is no administrator ends its own grants only.
    ///
    /// # Errors
    /// [`RevokeError`]: to be asked again.
    pub async fn revoke(&self, by: By<'_>, ask: Ask) -> Result<Result<Revocation, Refused>, RevokeError> {
        let id = self.new_id();
        let mut event = event(&by, ask.target.word());
        describe(&mut event, &id, &ask);
        let admin = by.client.may(ClientScope::Admin);
        if !admin && !by.client.may(ClientScope::Revoke) {
            return Ok(self.refuse(event, Refused::Scope(ClientScope::Revoke)).await?);
        }
        let own = ask.target == Target::Client(by.client.id.clone());
        if !admin && !own && matches!(ask.target, Target::Client(_) | Target::Kid(_) | Target::All) {
            return Ok(self.refuse(event, Refused::Scope(ClientScope::Admin)).await?);
        }
        let of_client = (!admin).then(|| by.client.id.clone());
        Ok(match self.carry_out(event, ask, of_client).await? {
            Ok((index, matched)) => Ok(Revocation { id, matched, index }),
            Err(refused) => Err(refused),
        })
    }

    /// As [`Self::revoke`], by an operator at the command line.
    ///
    /// # Errors
    /// [`RevokeError`]: to be asked again.
    pub async fn revoke_as_operator(&self, ask: Ask) -> Result<Result<Revocation, Refused>, RevokeError> {
        let id = self.new_id();
        let mut event = Event::new(EventType::Revoke);
        event.decision = Some(Decision::Granted);
        event.rule = Some("operator".into());
        event.detail = Some(detail(ask.target.word()));
        describe(&mut event, &id, &ask);
        Ok(match self.carry_out(event, ask, None).await? {
            Ok((index, matched)) => Ok(Revocation { id, matched, index }),
            Err(refused) => Err(refused),
        })
    }

    async fn carry_out(
        &self,
        mut event: Event,
        ask: Ask,
        of_client: Option<ClientId>,
    ) -> Result<Result<(u64, u64), Refused>, RevokeError> {
        let (selector, person) = match &ask.target {
            Target::Actor { sub, iss } => {
                // Whoever revokes in person is the entry's actor; then this one is whom it concerns.
                if event.personal.actor.is_some() {
                    event.personal.subject = Some(sub.clone());
                } else {
                    event.personal.actor = Some(Act { sub: sub.clone(), iss: iss.clone(), act: None });
                }
                let chain = self.people.actor(sub, iss.as_ref(), None);
                let held = self.people.actor(sub, iss.as_ref(), of_client.as_ref());
                (Selector::Actor { sub: sub.clone(), iss: iss.clone(), chain }, Some(held))
            }
            Target::User(sub) => {
                event.personal.subject = Some(sub.clone());
                (Selector::Subject(sub.clone()), Some(self.people.subject(sub, of_client.as_ref())))
            }
            Target::Client(client) => {
                if self.clients.get(client).is_none() {
                    return Ok(self.refuse(event, Refused::UnknownClient).await?);
                }
                (Selector::Client(client.clone()), None)
            }
            Target::Kid(kid) => {
                if !self.signs_tokens(kid).await? {
                    return Ok(self.refuse(event, Refused::UnknownKey).await?);
                }
                (Selector::Kid(kid.clone()), None)
            }
            Target::All => (Selector::All, None),
        };
        let hold = ask.hold_seconds.map(|seconds| Hold { seconds: seconds.min(MAX_HOLD_SECONDS), person });
        let reserve = if of_client.is_some() { Reserve::Half } else { Reserve::Open };
        let effects = vec![Effect::Revoke(Revoke { selector, of_client, hold })];
        let recorded = self.log.record(Record { effects, ..Record::of(event).from(reserve) }).await?;
        self.tell().await;
        if let Target::Kid(kid) = &ask.target {
            self.replace_key(kid).await?;
        }
        if matches!(ask.target, Target::Client(_) | Target::Kid(_) | Target::All) {
            self.mark_rows();
        }
        Ok(Ok((recorded.index, recorded.matched)))
    }

    async fn signs_tokens(&self, kid: &Kid) -> Result<bool, RevokeError> {
        let (keys, _) = keyring::list(self.log.db(), &self.master).await.map_err(RevokeError::Key)?;
        let signs = |purpose: &keyring::KeyPurpose| {
            matches!(purpose, keyring::KeyPurpose::Token | keyring::KeyPurpose::Clerk(_))
        };
        Ok(keys.iter().any(|key| key.kid == *kid && signs(&key.purpose)))
    }

    /// The refused key signs no more, here at once and on other replicas within a second.
    async fn replace_key(&self, kid: &Kid) -> Result<(), RevokeError> {
        let now = self.clock.now();
        keyring::revoke(self.log.db(), &self.master, kid, now, &*self.entropy)
            .await
            .map_err(RevokeError::Key)?;
        let again = self.keyring.refresh(self.log.db()).await;
        again.map_err(|error| RevokeError::Key(KeyringError::Store(error)))?;
        (self.keys_changed)(&self.keyring);
        Ok(())
    }

    /// Replaces keys that are refused and would still sign: whoever revoked one was cut off between the two steps. Until
    /// then nothing is minted.
    pub async fn replace_refused_keys(&self) {
        let now = self.clock.now();
        let known = self.state.known();
        for key in self.keyring.infos() {
            if key.state(now) == keyring::KeyState::Active && known.kids.contains(key.kid.as_str()) {
                tracing::warn!(key.id = %key.kid, "a refused key still signed: it is replaced");
                if let Err(error) = self.replace_key(&key.kid).await {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "a refused key could not be replaced"
                    );
                }
            }
        }
    }

    async fn end_grant(&self, event: Event, id: &GrantId, reserve: Reserve) -> Result<Recorded, LogError> {
        let selector = Selector::Grant(id.clone());
        let record = Record {
            conditions: vec![Condition::GrantLive(id.clone())],
            effects: vec![Effect::Revoke(Revoke { selector, of_client: None, hold: None })],
            ..Record::of(event).from(reserve)
        };
        let recorded = self.log.record(record).await?;
        self.tell().await;
        Ok(recorded)
    }

    /// Records the refused second use of a code, and ends its grant with it.
    ///
    /// # Errors
    /// [`LogError`]: it may still be valid.
    pub async fn end_reused(&self, denied: Event, id: &GrantId) -> Result<Recorded, LogError> {
        let selector = Selector::Grant(id.clone());
        let record = Record {
            effects: vec![Effect::Revoke(Revoke { selector, of_client: None, hold: None })],
            ..Record::of(denied).from(Reserve::Half)
        };
        let recorded = self.log.record(record).await?;
        self.tell().await;
        Ok(recorded)
    }

    /// This replica knows before anybody is answered; the others are told by the database.
    async fn tell(&self) {
        if let Err(error) = self.state.refresh().await {
            // The revocation stands, and the next look finds it. Until then this replica grows stale.
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "a revocation was recorded but not read back"
            );
        }
    }

    /// Lists and filters say what a cut-off covers; nothing waits for that.
    fn mark_rows(&self) {
        let (db, now_us) = (self.log.db().clone(), self.clock.now().timestamp_micros());
        tokio::spawn(async move {
            if let Err(error) = mark_rows(&db, now_us).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "grants under a cut-off are marked later"
                );
            }
        });
    }

    async fn refuse<T>(&self, event: Event, refused: Refused) -> Result<Result<T, Refused>, LogError> {
        // a revocation always gets in; a refusal is an attempt like others, and fills the log like others
        if let Some(wait) = event.client.as_ref().and_then(|client| self.limits.client(client)) {
            return Ok(Err(Refused::TooOften(seconds_to_wait(wait))));
        }
        self.log.deny(event, refused.rule()).await?;
        Ok(Err(refused))
    }

    /// The grant after its end. Should it not be readable just now, what is known of it has to do.
    async fn read_again(&self, mut grant: Grant) -> Grant {
        match self.log.grant(&grant.row.id).await {
            Ok(Some(again)) => self.seen(again),
            Ok(None) | Err(_) => {
                grant.status = GrantStatus::Revoked;
                grant
            }
        }
    }

    /// The grant as it is, when a cut-off covers it that is not written into its row yet.
    #[must_use]
    pub fn seen(&self, mut grant: Grant) -> Grant {
        if grant.revoked_at.is_none() && self.state.covers(&grant.row) {
            grant.status = GrantStatus::Revoked;
        }
        grant
    }

    fn is_live(&self, grant: &Grant) -> bool {
        grant.is_live(self.clock.now()) && !self.state.covers(&grant.row)
    }

    fn new_id(&self) -> String {
        let id = GrantId::generate(self.clock.now(), &*self.entropy);
        format!("rev_{}", id.as_str().trim_start_matches("act_"))
    }
}

/// Writes into rows what cut-offs cover, and clears what has expired: for a task that runs each minute.
///
/// What has expired is told by the log's time, too: a clock that runs ahead makes no entries, and may not
/// clear what still refuses tokens either.
///
/// # Errors
/// The database could not do it; the next run goes on.
pub async fn tidy(db: &Db, clock: &dyn Clock) -> Result<(), super::store::StoreError> {
    let Some(head) = super::store::read::newest_head(db).await? else { return Ok(()) };
    let now_us = clock.now().timestamp_micros().min(head.t_us);
    mark_rows(db, now_us).await?;
    while db.clear_expired(now_us).await? > 0 {
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn mark_rows(db: &Db, now_us: i64) -> Result<(), super::store::StoreError> {
    while db.mark_cut_off(now_us).await? > 0 {
        // between chunks others may write
        tokio::task::yield_now().await;
    }
    Ok(())
}

fn may_end(client: &Client, grant: &Grant) -> bool {
    grant.row.client == client.id || client.may(ClientScope::Admin)
}

fn event(by: &By<'_>, what: &'static str) -> Event {
    Event {
        decision: Some(Decision::Granted),
        client: Some(by.client.id.clone()),
        req: Some(by.request.clone()),
        detail: Some(detail(what)),
        personal: Personal { address: by.address, ..Personal::default() },
        ..Event::new(EventType::Revoke)
    }
}

fn detail(what: &'static str) -> serde_json::Map<String, Value> {
    std::iter::once(("by".to_owned(), what.into())).collect()
}

/// What the entry says of a revocation: no person stands outside the disclosures.
fn describe(event: &mut Event, id: &str, ask: &Ask) {
    event.personal.reason = Some(ask.reason.clone());
    let detail = event.detail.get_or_insert_default();
    detail.insert("id".into(), id.into());
    if let Some(seconds) = ask.hold_seconds {
        detail.insert("hold_seconds".into(), seconds.min(MAX_HOLD_SECONDS).into());
    }
    match &ask.target {
        Target::Client(client) => {
            detail.insert("client".into(), client.as_str().into());
        }
        Target::Kid(kid) => event.kid = Some(kid.clone()),
        Target::Actor { .. } | Target::User(_) | Target::All => {}
    }
}

fn name_people(event: &mut Event, grant: &Grant) {
    event.personal.actor.clone_from(&grant.actor);
    event.personal.subject.clone_from(&grant.subject);
}
