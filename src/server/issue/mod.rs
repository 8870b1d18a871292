//! The use case, straight down: request → who → whom → may he → sign → record → release.

mod again;
mod approval;
mod attempt;
mod explain;
mod handoff;
mod once;
mod question;
mod redeem;
mod secrets;
mod sign;
mod subject;
mod targets;

use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use tracing::Instrument as _;

pub use again::Withdrawn;
pub use approval::{AUDIENCE_WITHDRAWN, ApproveAsk, Outcome, Waiting};
pub use attempt::{Ask, Denial, DenialKind, Requested, Subject};
pub use explain::Explained;
pub use handoff::{CodeChallenge, Handed, Handoff};
pub use once::{InFlight, RequestKey};
pub use redeem::RedeemAsk;
pub use secrets::HandoffSecrets;
pub use subject::{Parent, Target};
pub use targets::TargetWatch;

use crate::server::actors::Actors;
use crate::server::checker::Checker;
use crate::server::clients::{Client, ClientScope, Clients};
use crate::server::directory::Directory;
use crate::server::keyring::{Keyring, KeyringError};
use crate::server::limits::MintLimits;
use crate::server::log::{Decision, Event, EventType, GrantRow, Log, LogError, Personal, ReleasedToken};
use crate::server::policy::{ActorFacts, Limits, Policy, PolicyStore, Question, Verdict};
use crate::server::revoke::{PeopleTags, RevocationState, Revoker};
use crate::server::ticket::TicketSystem;
use crate::token::signer::SignError;
use crate::token::{Act, Assurance, Clock, Entropy, Issuer, RequestId, Sub};
use again::Facts;
use approval::Standing;
use handoff::is_by_code;
use once::Begun;

/// Who asks, as the edge knows him.
#[derive(Debug, Clone)]
pub struct Caller<'a> {
    /// The authenticated client.
    pub client: &'a Arc<Client>,
    /// The request.
    pub request: &'a RequestId,
    /// Where it came from.
    pub address: Option<IpAddr>,
}

/// A token that is in the log, and what its grant says.
#[derive(Debug)]
pub struct Minted {
    /// The token, what it says, and its receipt.
    pub token: ReleasedToken,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When its grant came to stand as this answer shows it.
    pub updated_at: DateTime<Utc>,
    /// Whether it came by a code.
    pub accepted: bool,
}

/// Why an attempt could not even be answered with a denial.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// It is not known to be recorded.
    #[error("the attempt is not known to be recorded")]
    Log(#[from] LogError),
    /// There is no key to sign with.
    #[error("no key signs tokens")]
    NoKey(#[source] KeyringError),
    /// The client mints in profile `clerk` and has no key for it.
    #[error("the client has no key of its own for profile clerk; make one with `stagedoor key rotate`")]
    NoClerkKey,
    /// The key did not sign.
    #[error("the token could not be signed")]
    Sign(#[source] SignError),
}

/// The desk where tokens are issued: everything a decision needs, nothing of HTTP.
pub struct IssueDesk {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness for ids.
    pub entropy: Arc<dyn Entropy>,
    /// `iss` of the tokens.
    pub issuer: Issuer,
    /// Who may prove himself.
    pub actors: Arc<Actors>,
    /// Who the targets are.
    pub directory: Arc<Directory>,
    /// Who may act for whom.
    pub policy: Arc<PolicyStore>,
    /// What signs.
    pub keyring: Arc<Keyring>,
    /// What records.
    pub log: Log,
    /// What verifies our own tokens.
    pub checker: Arc<Checker>,
    /// What stands for people in tables.
    pub people: Arc<PeopleTags>,
    /// Who may call, by id.
    pub clients: Arc<Clients>,
    /// What is known to be revoked.
    pub revocations: Arc<RevocationState>,
    /// What ends a grant whose code is used twice.
    pub revoker: Arc<Revoker>,
    /// What codes and idempotency keys are made under.
    pub secrets: HandoffSecrets,
    /// Idempotency keys that are being worked on in this process.
    pub in_flight: InFlight,
    /// Whether somebody is told of grants: else nobody breaks the glass.
    pub notified: bool,
    /// Whether online verification asks the policy again.
    pub on_verify: bool,
    /// Who has unusually many targets.
    pub watch: TargetWatch,
    /// Who knows tickets.
    pub tickets: Option<TicketSystem>,
    /// How often somebody may try.
    pub limits: Arc<MintLimits>,
}

/// Whether somebody outside may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// The directory is asked.
    Up,
    /// Only what is known already counts.
    AtWhatIsKnown,
}

/// When, by which rules, and how far one may look: the same for a whole attempt, whatever changes meanwhile.
#[derive(Clone, Copy)]
struct Terms<'a> {
    now: DateTime<Utc>,
    look: Look,
    policy: &'a Policy,
    /// A grant on this user exists already, and is not one of those that he had before.
    besides: Option<&'a Sub>,
}

/// A decision in favour: who acts, for whom, within which limits.
#[derive(Clone)]
struct Decided {
    act: Act,
    assurance: Assurance,
    target: Target,
    limits: Limits,
    /// The actor as the directory knows him.
    known_as: Option<Sub>,
    /// The request that a colleague approved, whose token this is.
    request: Option<Box<GrantRow>>,
    /// What verification asks the policy again with, where it does.
    facts: Option<Box<Facts>>,
}

impl IssueDesk {
    /// Mints a token, asks a colleague first where the policy says so, or says why not; each way the attempt is
    /// in the log when this returns `Ok`. With a `key`, a retry is given the same claims again; a request that
    /// waits is gone on with by asking again, under its key or by its name.
    ///
    /// # Errors
    /// [`IssueError`] when the attempt could not be recorded: then nothing may be answered but 503.
    pub async fn mint(
        &self,
        caller: &Caller<'_>,
        ask: Ask,
        key: Option<RequestKey>,
    ) -> Result<Result<Outcome<Minted>, Denial>, IssueError> {
        let now = self.clock.now();
        let mut event = first_event(caller, &ask);
        if let Err(denial) = self.not_too_often(caller) {
            return self.refuse(event, denial).await;
        }
        let (_working, again) = match self.begin(caller.client, key.as_ref(), now).await? {
            Begun::First(working) => (Some(working), None),
            Begun::Again(grant) => (None, Some(grant)),
            Begun::Refused(denial) => return self.refuse(event, denial).await,
        };
        let named = match self.named_request(caller, ask.approval.as_ref(), again.as_ref()).await? {
            Ok(named) => named,
            Err(denial) => return self.refuse(event, denial).await,
        };
        // a key that was used before names the grant already
        let key = key.as_ref().filter(|_| again.is_none());
        let decided = self.decide(caller, &ask, now, &mut event).await;
        let minted = match (decided, named, again) {
            // rare, and large: what awaits it would be as large for every mint, and is moved
            (decided, None, Some(id)) => Box::pin(self.mint_again(caller, decided, event, &id)).await?,
            (Err(denial), ..) => return self.refuse(event, denial).await,
            (Ok(decided), Some(grant), _) => match self.standing(&grant, decided, &mut event) {
                Ok(Standing::Waiting(waiting)) => return Ok(Ok(Outcome::Waiting(waiting))),
                Ok(Standing::Approved(decided)) => {
                    self.sign_and_release(caller, &decided, event, now, key).await?
                }
                Ok(Standing::Released) if is_by_code(&grant) => {
                    return self.refuse(event, Denial::delivered(true)).await;
                }
                Ok(Standing::Released) => {
                    Box::pin(self.release_again(caller.client, None, event, &grant.row.id)).await?
                }
                Err(denial) => return self.refuse(event, denial).await,
            },
            (Ok(decided), None, None) if decided.waits() => {
                let waiting = Box::pin(self.ask_a_colleague(caller, &decided, &event, now, key)).await?;
                return Ok(waiting.map(|waiting| Outcome::Waiting(Box::new(waiting))));
            }
            (Ok(decided), None, None) => self.sign_and_release(caller, &decided, event, now, key).await?,
        };
        Ok(minted.map(Outcome::Granted))
    }

    /// Records a request of which not more is understood than who sent it; `rule` says what is wrong.
    ///
    /// # Errors
    /// [`IssueError`] when it could not be recorded.
    pub async fn refuse_malformed(
        &self,
        caller: &Caller<'_>,
        typ: EventType,
        rule: &str,
    ) -> Result<Result<(), Denial>, IssueError> {
        if let Err(denial) = self.not_too_often(caller) {
            return Ok(Err(denial));
        }
        let event = Event {
            client: Some(caller.client.id.clone()),
            req: Some(caller.request.clone()),
            personal: Personal { address: caller.address, ..Personal::default() },
            ..Event::new(typ)
        };
        self.log.deny(event, rule).await?;
        Ok(Ok(()))
    }

    /// Records a refusal, and only then gives it out. Over the rate limit nothing was evaluated, and nothing is
    /// recorded but in sums (contract.md §3).
    async fn refuse<T>(&self, event: Event, denial: Denial) -> Result<Result<T, Denial>, IssueError> {
        if !matches!(denial.kind, DenialKind::RateLimited { .. }) {
            self.log.deny(event, &denial.rule).await?;
        }
        Ok(Err(denial))
    }

    /// Counts one attempt of the client.
    fn not_too_often(&self, caller: &Caller<'_>) -> Result<(), Denial> {
        match self.limits.client(&caller.client.id) {
            Some(wait) => Err(Denial::rate_limited("this client", wait)),
            None => Ok(()),
        }
    }

    /// Everything up to the signature; `event` learns who and whom as soon as that is known.
    async fn decide(
        &self,
        caller: &Caller<'_>,
        ask: &Ask,
        now: DateTime<Utc>,
        event: &mut Event,
    ) -> Result<Decided, Denial> {
        self.decide_with_facts(caller, ask, now, event).await.map(|(decided, _)| decided)
    }

    /// As [`Self::decide`], with what is known of the actor.
    async fn decide_with_facts(
        &self,
        caller: &Caller<'_>,
        ask: &Ask,
        now: DateTime<Utc>,
        event: &mut Event,
    ) -> Result<(Decided, ActorFacts), Denial> {
        self.ask_everybody(caller, ask, now, event).instrument(tracing::debug_span!("decide")).await
    }

    async fn ask_everybody(
        &self,
        caller: &Caller<'_>,
        ask: &Ask,
        now: DateTime<Utc>,
        event: &mut Event,
    ) -> Result<(Decided, ActorFacts), Denial> {
        if !caller.client.may(ClientScope::Issue) {
            return Err(Denial::scope(ClientScope::Issue));
        }
        let target = self.target(caller, &ask.subject, now)?;
        event.personal.subject = Some(target.id.clone());
        let mut actor = self.who(caller, ask, now, Look::Up).await?;
        // whom this client may not name is none of its attempts: the policy refuses it
        let counts = actor.assurance == Assurance::Verified || caller.client.may_assert(&actor.act.sub, None);
        if counts && let Some(wait) = self.limits.actor(&actor.act, Some(&caller.client.id)) {
            return Err(Denial::rate_limited("this actor", wait));
        }
        if let Some(may_act) = &target.may_act
            && !subject::may_act_allows(may_act, &actor.act, caller.client.id.as_str())
        {
            return Err(Denial::may_act());
        }
        target.put_behind(&mut actor)?;
        event.personal.actor = Some(actor.act.clone());
        let assurance = target.assurance(&actor);
        event.assurance = Some(assurance);
        let policy = self.policy.current();
        let terms = Terms { now, look: Look::Up, policy: &policy, besides: None };
        let question = self.question(caller, ask, &target, actor, terms).await?;
        let limits = self.judge(caller, &policy, &question, event).await?;
        let actor = question.actor;
        let facts = self.on_verify.then(|| Box::new(Facts::of(ask, &actor, &target.id, caller.address, now)));
        let decided = Decided {
            act: actor.act.clone(),
            assurance,
            target,
            limits,
            known_as: approval::known_as(actor.person.as_ref()).cloned(),
            request: None,
            facts,
        };
        Ok((decided, actor))
    }

    /// What the policy says; `event` learns which rule.
    async fn judge(
        &self,
        caller: &Caller<'_>,
        policy: &Policy,
        question: &Question,
        event: &mut Event,
    ) -> Result<Limits, Denial> {
        event.policy = Some(policy.version().to_owned());
        match policy.decide(question) {
            Verdict::Granted { limits, .. } if self.glass_stays_whole(&limits) => Err(Denial::untold()),
            Verdict::Granted { rule, limits } => {
                if limits.break_glass {
                    event.detail.get_or_insert_default().insert("break_glass".into(), true.into());
                }
                if limits.ticket_lookup {
                    Box::pin(self.ticket_holds(caller, question)).await?;
                }
                event.rule = Some(rule);
                if event.personal.reason.is_none() {
                    event.personal.reason.clone_from(&limits.default_reason);
                }
                Ok(limits)
            }
            Verdict::Denied { rule, message, refusal } => {
                Err(Denial { rule, message, kind: DenialKind::Policy(refusal) })
            }
        }
    }

    /// Whoever breaks the glass is always told of; where nobody listens it stays whole.
    const fn glass_stays_whole(&self, limits: &Limits) -> bool {
        limits.break_glass && !self.notified
    }

    /// The ticket system has nothing against it; without an answer nothing is granted.
    async fn ticket_holds(&self, caller: &Caller<'_>, question: &Question) -> Result<(), Denial> {
        let (Some(tickets), Some(ticket)) = (&self.tickets, &question.ticket) else {
            return Err(Denial::by_rule(
                "ticket_lookup",
                "This needs a ticket, and a ticket system to ask about it.",
            ));
        };
        let looked = tickets.look_up(ticket, &question.actor.act, &question.target.id, caller.request).await;
        let facts = looked.map_err(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "the ticket system could not be asked");
            Denial::unreachable("the ticket system")
        })?;
        facts.objection().map_or(Ok(()), |(rule, message)| Err(Denial::by_rule(rule, message)))
    }
}

/// The entry of an attempt as far as the request alone tells.
fn first_event(caller: &Caller<'_>, ask: &Ask) -> Event {
    Event {
        decision: Some(Decision::Granted),
        client: Some(caller.client.id.clone()),
        req: Some(caller.request.clone()),
        aud: ask.audience.clone().unwrap_or_default(),
        scope: ask.scope.clone(),
        personal: Personal {
            actor: match &ask.actor {
                Requested::Asserted(sub) | Requested::Proven { claimed: Some(sub), .. } => {
                    Some(Act { sub: sub.clone(), iss: None, act: None })
                }
                Requested::SignedIn(facts) => Some(facts.act.clone()),
                Requested::Proven { claimed: None, .. } | Requested::TheClient => None,
            },
            subject: match &ask.subject {
                Subject::Id(id) => Some(id.clone()),
                Subject::SignedByClient(_) | Subject::ActorToken(_) => None,
            },
            reason: ask.reason.clone(),
            ticket: ask.ticket.clone(),
            address: caller.address,
        },
        ..Event::new(EventType::Issue)
    }
}
