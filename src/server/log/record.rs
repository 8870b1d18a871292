//! What is recorded: one [`Record`] an attempt, with the conditions it depends on and the effects it has.
//!
//! Conditions and effects belong to the append's own transaction (audit-log.md §1): a condition that
//! fails turns its record into a denial before the leaf is hashed, and never hurts its neighbours.

use std::net::IpAddr;

use chrono::{DateTime, Utc};

use super::approval::ApprovalRow;
use super::stopping::{Beginning, CodeRow, KeyRow, RedeemRow, Revoke, Tag};
use crate::token::{Act, Assurance, Audience, ClientId, GrantId, Jti, Kid, RequestId, Scope, Sub};

/// What kind of thing happened (`typ` of an entry).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// An attempt to mint, granted or denied.
    Issue,
    /// A handoff code was used, or its use refused; carries the token's `signed_sha256`.
    Redeem,
    /// A revocation, or a stop by the holder.
    Revoke,
    /// A second person's approval.
    Approve,
    /// The policy changed.
    Policy,
    /// Somebody read personal data.
    View,
    /// A token was used online (sampled at most once a minute a token).
    Use,
    /// A question to the policy, answered without minting.
    Explain,
    /// The process began to serve.
    Start,
    /// The process stopped cleanly.
    Stop,
    /// A setting or a client changed.
    Config,
    /// A key was made, rotated, retired.
    Key,
    /// Nothing happened for five minutes: bounds time and shows liveness.
    Heartbeat,
    /// Personal data was erased.
    Erase,
    /// Old bodies were dropped; their hashes stay.
    Prune,
    /// Sums of refused anonymous noise (400, 401, 429).
    Suppressed,
    /// The first entry of an epoch, naming what it continues.
    Epoch,
    /// A rule of anomaly fired.
    Anomaly,
}

impl EventType {
    /// The words there are.
    pub const WORDS: &'static [&'static str] = &[
        Self::Issue.as_str(),
        Self::Redeem.as_str(),
        Self::Revoke.as_str(),
        Self::Approve.as_str(),
        Self::Policy.as_str(),
        Self::View.as_str(),
        Self::Use.as_str(),
        Self::Explain.as_str(),
        Self::Start.as_str(),
        Self::Stop.as_str(),
        Self::Config.as_str(),
        Self::Key.as_str(),
        Self::Heartbeat.as_str(),
        Self::Erase.as_str(),
        Self::Prune.as_str(),
        Self::Suppressed.as_str(),
        Self::Epoch.as_str(),
        Self::Anomaly.as_str(),
    ];

    /// The word in the entry's body.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Issue => "issue",
            Self::Redeem => "redeem",
            Self::Revoke => "revoke",
            Self::Approve => "approve",
            Self::Policy => "policy",
            Self::View => "view",
            Self::Use => "use",
            Self::Explain => "explain",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Config => "config",
            Self::Key => "key",
            Self::Heartbeat => "heartbeat",
            Self::Erase => "erase",
            Self::Prune => "prune",
            Self::Suppressed => "suppressed",
            Self::Epoch => "epoch",
            Self::Anomaly => "anomaly",
        }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    /// It was allowed.
    Granted,
    /// It was refused.
    Denied,
    /// It waits for a second person.
    Pending,
}

impl Decision {
    /// The word in the entry's body.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Denied => "denied",
            Self::Pending => "pending",
        }
    }
}

/// What identifies people or was written by them: goes into salted disclosures, never into a body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Personal {
    /// The actor, with his chain (`act`).
    pub actor: Option<Act>,
    /// The target user.
    pub subject: Option<Sub>,
    /// Why, in the caller's words.
    pub reason: Option<String>,
    /// The ticket.
    pub ticket: Option<String>,
    /// Where the request came from.
    pub address: Option<IpAddr>,
}

/// The non-personal facts of an entry, and the personal ones apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What happened.
    pub typ: EventType,
    /// How it ended, where that is a question.
    pub decision: Option<Decision>,
    /// The client that asked.
    pub client: Option<ClientId>,
    /// The request it came with.
    pub req: Option<RequestId>,
    /// The grant it made or touched.
    pub grant: Option<GrantId>,
    /// The token's id.
    pub jti: Option<Jti>,
    /// SHA-256 of the token's `header.payload`.
    pub signed_sha256: Option<[u8; 32]>,
    /// The key that signed.
    pub kid: Option<Kid>,
    /// Who the token is for.
    pub aud: Vec<Audience>,
    /// What it allows.
    pub scope: Option<Scope>,
    /// When it was issued.
    pub iat: Option<DateTime<Utc>>,
    /// How long it lives, seconds.
    pub ttl_seconds: Option<u32>,
    /// How the actor is known.
    pub assurance: Option<Assurance>,
    /// The rule that decided, or the condition that failed.
    pub rule: Option<String>,
    /// The policy that decided: `id@sha256`.
    pub policy: Option<String>,
    /// Further non-personal facts of this type of entry (counts, indexes, setting names): restricted JSON.
    pub detail: Option<serde_json::Map<String, serde_json::Value>>,
    /// What can be erased later.
    pub personal: Personal,
}

impl Event {
    /// A key was made, taken in, or ended.
    #[must_use]
    pub fn key(kid: &Kid, change: &str, purpose: &str) -> Self {
        let detail = [("change", change), ("purpose", purpose)];
        let detail = detail.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        Self { kid: Some(kid.clone()), detail: Some(detail), ..Self::new(EventType::Key) }
    }

    /// An event with nothing but its type.
    #[must_use]
    pub const fn new(typ: EventType) -> Self {
        Self {
            typ,
            decision: None,
            client: None,
            req: None,
            grant: None,
            jti: None,
            signed_sha256: None,
            kid: None,
            aud: Vec::new(),
            scope: None,
            iat: None,
            ttl_seconds: None,
            assurance: None,
            rule: None,
            policy: None,
            detail: None,
            personal: Personal { actor: None, subject: None, reason: None, ticket: None, address: None },
        }
    }

    /// The same attempt, refused by `rule`: whatever describes a token that will not be is dropped.
    #[must_use]
    pub fn denied(mut self, rule: impl Into<String>) -> Self {
        self.decision = Some(Decision::Denied);
        self.rule = Some(rule.into());
        self.jti = None;
        self.signed_sha256 = None;
        self.kid = None;
        self.iat = None;
        self.ttl_seconds = None;
        self
    }
}

/// What must hold, under the log's lock, for a record to stand as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The client exists and is not disabled.
    ClientActive(ClientId),
    /// The grant exists, is not revoked and has not ended.
    GrantLive(GrantId),
    /// With this target, `actor` (by `sub` and `iss` of the outermost `act`) was granted no more than `max`
    /// different targets in the last hour.
    TargetsBelow {
        /// Who acts.
        actor: Act,
        /// Whom for, this time.
        subject: Sub,
        /// The most different targets.
        max: u32,
    },
    /// Nobody and nothing that the token names is on hold. Should a cut-off cover its `iat`, the record is
    /// not made at all: [`super::LogError::NotYet`] says when to sign anew.
    NotHeld(Box<Beginning>),
    /// The handoff code of this grant has not been used and has not expired.
    CodeUnused(GrantId),
    /// Nothing was answered under this idempotency key.
    KeyFree(Tag),
    /// The request for this grant waits for a colleague.
    Waiting(GrantId),
    /// A colleague approved this grant, and its token has not been signed.
    Approved(GrantId),
}

impl Condition {
    /// The rule named in the denial when it does not hold.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::ClientActive(_) => "client_disabled",
            Self::GrantLive(_) => "grant_ended",
            Self::TargetsBelow { .. } => "targets_per_hour",
            Self::NotHeld(_) => "on_hold",
            Self::CodeUnused(_) => "code_used",
            Self::KeyFree(_) => "idempotency_in_flight",
            Self::Waiting(_) => "approval_not_waiting",
            Self::Approved(_) => "approval_not_given",
        }
    }
}

/// What else changes in the append's transaction when a record stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A grant comes into being.
    InsertGrant(GrantRow),
    /// Earlier actors of a grant's chain, so that a revocation finds them.
    InsertChain {
        /// The grant.
        grant: GrantId,
        /// When it ends.
        exp: DateTime<Utc>,
        /// The earlier actors.
        people: Vec<Tag>,
    },
    /// A handoff code comes into being.
    InsertCode(CodeRow),
    /// What the policy is asked again with about a grant, sealed to it.
    InsertFacts {
        /// The grant.
        grant: GrantId,
        /// The facts.
        sealed: Vec<u8>,
        /// When it ends.
        exp: DateTime<Utc>,
    },
    /// A request is answered under an idempotency key.
    InsertKey(KeyRow),
    /// A handoff code is used, and the grant is as its token says.
    Redeem(RedeemRow),
    /// A grant waits for a colleague, or did without one.
    InsertApproval(ApprovalRow),
    /// A colleague said yes or no.
    Decide {
        /// The grant.
        grant: GrantId,
        /// Which of the two.
        approved: bool,
    },
    /// An approved grant's token is signed, and the grant is as the token says.
    Release(RedeemRow),
    /// Grants end before their time.
    Revoke(Revoke),
}

/// A grant as stored: no personal data; ids of people stand in the entry's disclosures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantRow {
    /// The grant.
    pub id: GrantId,
    /// Its token.
    pub jti: Jti,
    /// The client that asked for it.
    pub client: ClientId,
    /// The key that signed.
    pub kid: Kid,
    /// Who the token is for.
    pub aud: Vec<Audience>,
    /// What it allows.
    pub scope: Scope,
    /// How the actor is known.
    pub assurance: Assurance,
    /// When it was issued.
    pub iat: DateTime<Utc>,
    /// When it ends.
    pub exp: DateTime<Utc>,
    /// When it was asked for, to the millisecond.
    pub created_at: DateTime<Utc>,
    /// The grant it was delegated from.
    pub parent: Option<GrantId>,
}

/// How far into the reserve of free space a record may go (contract.md §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reserve {
    /// Not at all: attempts, granted or denied.
    Closed,
    /// The first half: what a client, or a token's holder, may end by itself.
    Half,
    /// All of it: administrators, operators and the service itself. Nobody else can use their half up.
    Open,
}

/// One attempt on its way into the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// What is recorded when every condition holds.
    pub event: Event,
    /// What must hold.
    pub conditions: Vec<Condition>,
    /// What follows.
    pub effects: Vec<Effect>,
    /// Whether the record may use the reserve of free space: revocation, stop, key and erase entries only.
    pub reserve: Reserve,
}

impl Record {
    /// A record of `event` that depends on nothing and changes nothing else.
    #[must_use]
    pub const fn of(event: Event) -> Self {
        Self { event, conditions: Vec::new(), effects: Vec::new(), reserve: Reserve::Closed }
    }

    /// Whether it ends grants: such records come last in their batch, so that they find every grant of it.
    #[must_use]
    pub fn revokes(&self) -> bool {
        self.effects.iter().any(|effect| matches!(effect, Effect::Revoke(_)))
    }

    /// The same record, let into the reserve of free space and past a wrong clock: for revocation, stop, key
    /// and erase entries only, which must never wait.
    #[must_use]
    pub const fn from_the_reserve(self) -> Self {
        self.from(Reserve::Open)
    }

    /// [`Self::from_the_reserve`], as far as whoever asks may go.
    #[must_use]
    pub const fn from(mut self, reserve: Reserve) -> Self {
        self.reserve = reserve;
        self
    }

    /// Whether it is an attempt, which waits its turn, and not what ends or undoes something.
    #[must_use]
    pub const fn is_attempt(&self) -> bool {
        matches!(self.reserve, Reserve::Closed)
    }
}
