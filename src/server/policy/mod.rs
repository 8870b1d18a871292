//! May A act for B, and with which limits: a pure function of values.
//!
//! [`Policy::decide`] answers a [`Question`]; nothing here reads a clock, a network or (but for loading) a file.
//! The rules are Cedar, with limits as annotations on the permits; what no rule may loosen is Rust, in `decide`.

mod annotations;
pub mod builtin;
mod decide;
mod entities;
mod expect;
mod explain;
mod facts;
mod generate;
mod limits;
mod load;
mod store;

use std::net::IpAddr;

use chrono::{DateTime, Utc};

use crate::token::{Act, Assurance, Audience, ClientId, Issuer, Scope, Sub};

pub use expect::{CaseResult, Difference, Expectations, ExpectationsError, TestReport};
pub use explain::{Explanation, Outcome, RuleTrace};
pub use facts::{FactsError, question_from_json};
pub use generate::{PermitRequest, permit_for_client};
pub use load::{Policy, PolicyError, Problem, SCHEMA, SHIPPED_DEFAULT, SHIPPED_DEV, Source};
pub use store::{PolicyStore, Reload};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// To act as the target.
    Impersonate,
    /// To let a service or agent act on with an actor token it was given (nested `act`).
    Delegate,
    /// To approve a colleague's request.
    Approve,
    /// To use the console's support pages.
    ConsoleSupport,
    /// To read the log in the console.
    ConsoleAudit,
    /// To revoke in the console.
    ConsoleRevoke,
}

/// What the directory says of a person; everything unknown is absent, never assumed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Person {
    /// The directory's canonical id, byte for byte.
    pub id: Option<Sub>,
    /// For people, not for decisions.
    pub display_name: Option<String>,
    /// Not deactivated.
    pub active: bool,
    /// Roles (`protected` marks one whom nobody may impersonate).
    pub roles: Vec<String>,
    /// Groups.
    pub groups: Vec<String>,
    /// Organisation.
    pub org: Option<String>,
    /// Until when the person consents to be impersonated.
    pub consent_until: Option<DateTime<Utc>>,
    /// The person does not want to be impersonated.
    pub opted_out: bool,
}

/// Who wants to act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActorFacts {
    /// As the token's `act` will say; nested when he acts on behalf of others already.
    pub act: Act,
    /// How he is known.
    pub assurance: Assurance,
    /// From his own token: roles, groups, organisation (empty when asserted).
    pub roles: Vec<String>,
    /// Groups from his token.
    pub groups: Vec<String>,
    /// Organisation from his token.
    pub org: Option<String>,
    /// Authentication context class of his login.
    pub acr: Option<String>,
    /// Authentication methods of his login.
    pub amr: Vec<String>,
    /// When he logged in.
    pub auth_time: Option<DateTime<Utc>>,
    /// Under which id the directory is asked about him: his `sub`, or another claim where his issuer is configured
    /// so; `None`: under none, so that it does not know him.
    pub directory_id: Option<Sub>,
    /// What the directory says of him; `None` when it does not know him or there is none.
    pub person: Option<Person>,
}

/// Whom he wants to act for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetFacts {
    /// The target's id as asked.
    pub id: Sub,
    /// What the directory says; `None`: unknown there, or there is no directory.
    pub person: Option<Person>,
}

/// The client that calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFacts {
    /// Its id.
    pub id: ClientId,
    /// Its name, as an operator gave it.
    pub name: String,
    /// Whether its `may_assert` patterns cover this actor.
    pub may_assert: bool,
    /// Whether it mints in profile `clerk`.
    pub clerk: bool,
}

/// The whole question: everything a decision may depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What is asked for.
    pub action: Action,
    /// Who wants to act.
    pub actor: ActorFacts,
    /// Whom for.
    pub target: TargetFacts,
    /// Through which client.
    pub client: ClientFacts,
    /// Why.
    pub reason: Option<String>,
    /// The ticket.
    pub ticket: Option<String>,
    /// Seconds asked for; `None` takes the default.
    pub lifetime_seconds: Option<u32>,
    /// Scopes asked for; `None` takes what the policy grants.
    pub scope: Option<Scope>,
    /// Audiences asked for (the client's default already filled in).
    pub audience: Vec<Audience>,
    /// Whether a handoff code is asked for instead of a token.
    pub by_code: bool,
    /// When.
    pub now: DateTime<Utc>,
    /// From where.
    pub address: Option<IpAddr>,
    /// How many different targets this actor had in the last hour.
    pub targets_last_hour: u32,
    /// Whom the actor's issuer is configured as; `None` when asserted without one.
    pub issuer: Option<Issuer>,
}

/// What is allowed, and no more than that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The lifetime granted, seconds.
    pub lifetime_seconds: u32,
    /// The scopes granted: never empty.
    pub scope: Scope,
    /// The audiences granted.
    pub audience: Vec<Audience>,
    /// A colleague has to approve first.
    pub require_approval: bool,
    /// Allowed without approval in an emergency; always notified.
    pub break_glass: bool,
    /// More targets than this in an hour are refused inside the append; `None`: no limit.
    pub max_targets_per_hour: Option<u32>,
    /// The ticket has to be looked up before anything is signed; without an answer nothing is.
    pub ticket_lookup: bool,
    /// What is recorded where no reason is given.
    pub default_reason: Option<String>,
}

/// What the actor could do to be allowed after all (RFC 9470's terms).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepUp {
    /// Authentication context classes or methods that would do.
    pub acr_values: Vec<String>,
    /// How old a login may be, seconds.
    pub max_age_seconds: Option<u32>,
}

/// What kind of refusal: decides the HTTP answer, once, in `http`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A rule says no, or none says yes.
    Denied,
    /// The target is unknown, and this actor may know that.
    UnknownTarget,
    /// A stronger or fresher login would help.
    StepUp(StepUp),
    /// A rule could not be evaluated; that is a denial.
    Error,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Allowed by `rule`, within `limits`.
    Granted {
        /// The rule that allowed it.
        rule: String,
        /// What is allowed.
        limits: Limits,
    },
    /// Refused by `rule`, in words an agent understands.
    Denied {
        /// The rule that refused it.
        rule: String,
        /// One sentence for a person.
        message: String,
        /// What kind of refusal.
        refusal: Refusal,
    },
}

/// Lifetime when none is asked for, seconds (contract.md §5).
pub const DEFAULT_LIFETIME_SECONDS: u32 = 600;
/// The most a policy grants unless it says otherwise, seconds.
pub const MAX_LIFETIME_SECONDS: u32 = 900;
/// No policy can grant more, seconds.
pub const LIFETIME_CAP_SECONDS: u32 = 3600;
/// What stands for every scope: a permit's `@scope("*")`, and the full access that profile `clerk` needs.
pub const FULL_ACCESS_SCOPE: &str = "*";
/// Lifetime in profile `clerk` unless a permit says otherwise, seconds (contract.md §6).
pub const CLERK_LIFETIME_SECONDS: u32 = 300;
/// No permit can grant more in profile `clerk`, seconds: its verifiers see no revocation.
pub const CLERK_LIFETIME_CAP_SECONDS: u32 = 900;
