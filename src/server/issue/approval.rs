//! A second person: a request waits for him, he decides, and only then the asker gets the token, under the
//! policy's word of that moment. No token exists, and none is stored, before.

use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};

use super::once::RequestKey;
use super::sign::Mold;
use super::{Caller, Decided, Denial, DenialKind, IssueDesk, IssueError, Look};
use crate::server::clients::{Client, Profile};
use crate::server::log::{
    Approval, ApprovalRow, ApprovalState, Condition, Decision, Effect, Event, EventType, Grant, GrantRow,
    GrantStatus, LAPSE_SECONDS, LogError, Personal, REFUSED_BY_COLLEAGUE, Record, Recorded, Tag,
};
use crate::server::policy::{
    Action, ActorFacts, ClientFacts, Limits, Person, Question, TargetFacts, Verdict, builtin,
};
use crate::token::{Act, Assurance, Audience, GrantId, RequestId, Scope, Sub};

/// The rule under which nothing is signed for an audience that the policy granted once.
pub const AUDIENCE_WITHDRAWN: &str = "audience_withdrawn";
/// How many waiting requests are looked through for those that a person may decide on.
const MOST_LOOKED_THROUGH: u32 = 500;

/// What came of a request to mint.
#[derive(Debug)]
pub enum Outcome<T> {
    /// It was granted.
    Granted(T),
    /// A colleague has to approve it first.
    Waiting(Box<Waiting>),
}

/// A request that waits for a colleague; no token exists.
#[derive(Debug)]
pub struct Waiting {
    /// The grant that will be, and the name of the request until then.
    pub id: GrantId,
    /// The target.
    pub subject: Sub,
    /// Who wants to act.
    pub actor: Act,
    /// How he is known.
    pub assurance: Assurance,
    /// What the token will allow at most.
    pub scope: Scope,
    /// Who it will be for.
    pub aud: Vec<Audience>,
    /// When the request lapses.
    pub lapses_at: DateTime<Utc>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// The entry.
    pub index: u64,
}

/// What a colleague says to a request.
#[derive(Debug)]
pub struct ApproveAsk {
    /// The request.
    pub grant: GrantId,
    /// Who decides: proven by his own token, or signed in at the console.
    pub approver: ActorFacts,
    /// Yes or no.
    pub approve: bool,
    /// Why, in his words.
    pub reason: Option<String>,
    /// The request.
    pub request: RequestId,
    /// Where it came from.
    pub address: Option<IpAddr>,
}

/// How a named request stands, for its asker.
pub(super) enum Standing {
    /// Nobody has decided.
    Waiting(Box<Waiting>),
    /// A colleague approved: this much, and no more, may be signed now.
    Approved(Box<Decided>),
    /// Its token was signed before: the same is given again.
    Released,
}

impl Decided {
    /// Whether a colleague has to approve first.
    pub(super) const fn waits(&self) -> bool {
        waits(&self.limits)
    }
}

/// Whether a colleague has to approve first.
const fn waits(limits: &Limits) -> bool {
    limits.require_approval && !limits.break_glass
}

/// Refuses what would need a colleague where none can be asked any more; `grant` says whether one was.
pub(super) fn approved_before(limits: &Limits, grant: &Grant) -> Result<(), Denial> {
    if waits(limits) && !stands(grant, ApprovalState::Released) {
        Err(Denial::nobody_asked())
    } else {
        Ok(())
    }
}

impl IssueDesk {
    /// The request that is gone on with: named in the body, or made under the same idempotency key. `None`:
    /// there is none, or its grant never needed anybody.
    pub(super) async fn named_request(
        &self,
        caller: &Caller<'_>,
        named: Option<&GrantId>,
        again: Option<&GrantId>,
    ) -> Result<Result<Option<Grant>, Denial>, IssueError> {
        let Some(id) = named.or(again) else { return Ok(Ok(None)) };
        let found = self.log.grant(id).await?;
        let found = found.filter(|grant| grant.row.client == caller.client.id && is_request(grant));
        Ok(match (found, named) {
            (Some(grant), _) if self.is_tampered_with(&grant).await? => Err(tampered_with()),
            (Some(grant), _) => Ok(Some(grant)),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(Denial {
                rule: "approval_unknown".into(),
                message: "`approval` names no request of this client that a colleague was asked about."
                    .into(),
                kind: DenialKind::Parameter("approval"),
            }),
        })
    }

    /// Whether the rows of an open request say something else than its entry; raises the alarm then.
    async fn is_tampered_with(&self, grant: &Grant) -> Result<bool, LogError> {
        let open = stands(grant, ApprovalState::Waiting) || stands(grant, ApprovalState::Approved);
        let changed = open && !self.log.is_as_asked(grant).await?;
        if changed {
            tracing::error!(grant = %grant.row.id, "ALARM: a request for approval was changed in the database");
        }
        Ok(changed)
    }

    /// Records a request that waits; nothing is signed.
    pub(super) async fn ask_a_colleague(
        &self,
        caller: &Caller<'_>,
        decided: &Decided,
        event: &Event,
        now: DateTime<Utc>,
        key: Option<&RequestKey>,
    ) -> Result<Result<Waiting, Denial>, IssueError> {
        let (mut at, mut waits) = (now, 0);
        loop {
            let Mold { iss, azp, .. } = self.mold(caller.client)?;
            let mut prepared = self.prepare(caller, decided, at, (iss, azp), None, None);
            let lapses_at = at + TimeDelta::seconds(LAPSE_SECONDS);
            let lifetime = prepared.claims.exp - prepared.claims.iat;
            let approval = ApprovalRow {
                grant: prepared.grant.id.clone(),
                state: ApprovalState::Waiting,
                lapses_at,
                lifetime_seconds: decided.limits.lifetime_seconds,
                asker: decided.known_as.as_ref().map(|id| self.people.person(id)),
            };
            // it lives as long as it may be approved and gone on with; its token's end is set at the signature
            let grant = GrantRow { exp: lapses_at, ..prepared.grant };
            for effect in &mut prepared.effects {
                match effect {
                    Effect::InsertGrant(row) => *row = grant.clone(),
                    Effect::InsertChain { exp, .. } => *exp = lapses_at + lifetime,
                    _ => {}
                }
            }
            prepared.effects.push(Effect::InsertApproval(approval));
            if let Some(key) = key {
                prepared.conditions.push(key.free());
                prepared.effects.push(key.taken_until(&grant, lapses_at + lifetime));
            }
            let mut event = event.clone();
            event.decision = Some(Decision::Pending);
            event.grant = Some(grant.id.clone());
            event.aud.clone_from(&prepared.claims.aud);
            event.scope = Some(prepared.claims.scope.clone());
            event.ttl_seconds = Some(decided.limits.lifetime_seconds);
            let record =
                Record { conditions: prepared.conditions, effects: prepared.effects, ..Record::of(event) };
            match self.log.record(record).await {
                Ok(Recorded { failed: Some(condition), .. }) => {
                    return Ok(Err(Denial::condition(condition.rule())));
                }
                Ok(Recorded { index, .. }) => {
                    return Ok(Ok(Waiting {
                        id: grant.id,
                        subject: prepared.claims.sub,
                        actor: prepared.claims.act,
                        assurance: grant.assurance,
                        scope: grant.scope,
                        aud: grant.aud,
                        lapses_at,
                        created_at: at,
                        index,
                    }));
                }
                Err(LogError::NotYet { after }) => at = self.pass(after, &mut waits).await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// How the request stands for who asks now; what is granted is what was approved, within what the policy
    /// grants now.
    pub(super) fn standing(
        &self,
        grant: &Grant,
        decided: Decided,
        event: &mut Event,
    ) -> Result<Standing, Denial> {
        event.grant = Some(grant.row.id.clone());
        if let Some(detail) = &mut event.detail {
            detail.remove("break_glass");
        }
        let Some(approval) = &grant.approval else { return Err(Denial::nobody_asked()) };
        is_the_same(grant, &decided, event)?;
        let now = self.clock.now();
        if approval.state == ApprovalState::Refused {
            return Err(Denial::by_rule("approval_refused", "A colleague refused this request."));
        }
        if approval.state != ApprovalState::Released && !self.stands(grant, now) {
            return Err(over(grant, now));
        }
        match approval.state {
            ApprovalState::Waiting => Ok(Standing::Waiting(Box::new(waiting(grant, &decided, approval)))),
            ApprovalState::Approved => {
                narrowed(grant, approval, decided).map(Box::new).map(Standing::Approved)
            }
            ApprovalState::Released => Ok(Standing::Released),
            ApprovalState::Refused | ApprovalState::Waived => Err(Denial::nobody_asked()),
        }
    }

    /// What a colleague says to a request: recorded, and the grant as it stands then.
    ///
    /// # Errors
    /// [`IssueError`] when it could not be recorded: then nothing was decided.
    pub async fn approve(&self, ask: ApproveAsk) -> Result<Result<Grant, Denial>, IssueError> {
        let mut event = Event {
            decision: Some(Decision::Granted),
            req: Some(ask.request.clone()),
            grant: Some(ask.grant.clone()),
            assurance: Some(ask.approver.assurance),
            personal: Personal {
                actor: Some(ask.approver.act.clone()),
                reason: ask.reason.clone(),
                address: ask.address,
                ..Personal::default()
            },
            ..Event::new(EventType::Approve)
        };
        if let Some(wait) = self.limits.actor(&ask.approver.act, None) {
            return Ok(Err(Denial::rate_limited("this person", wait)));
        }
        let found = self.log.grant(&ask.grant).await?.filter(is_request);
        let Some(grant) = found else { return self.refuse(event, no_such_request()).await };
        if self.is_tampered_with(&grant).await? {
            return self.refuse(event, tampered_with()).await;
        }
        if let Err(denial) = self.may_decide(&grant, ask.approver, ask.address, &mut event).await {
            return self.refuse(event, denial).await;
        }
        if !ask.approve {
            event.decision = Some(Decision::Denied);
            event.rule = Some(REFUSED_BY_COLLEAGUE.into());
        }
        let id = &grant.row.id;
        let record = Record {
            conditions: vec![
                Condition::ClientActive(grant.row.client.clone()),
                Condition::GrantLive(id.clone()),
                Condition::Waiting(id.clone()),
            ],
            effects: vec![Effect::Decide { grant: id.clone(), approved: ask.approve }],
            ..Record::of(event)
        };
        if let Some(condition) = self.log.record(record).await?.failed {
            let condition = match condition {
                // revoked or lapsed: it waits for nobody
                Condition::GrantLive(id) => Condition::Waiting(id),
                other => other,
            };
            return Ok(Err(Denial::condition(condition.rule())));
        }
        let decided = self.log.grant(id).await?;
        Ok(Ok(decided.unwrap_or(grant)))
    }

    /// Up to `limit` requests on which this person may decide, those that lapse first first; `None`: the directory
    /// cannot be asked, and without it nobody may.
    ///
    /// # Errors
    /// The log could not be read.
    pub async fn requests_for(
        &self,
        approver: &ActorFacts,
        address: Option<IpAddr>,
        limit: usize,
    ) -> Result<Option<Vec<Grant>>, LogError> {
        let mut out = Vec::new();
        for grant in self.log.open_requests(self.clock.now(), true, MOST_LOOKED_THROUGH).await? {
            let mut event = Event::new(EventType::Approve);
            match self.may_decide(&grant, approver.clone(), address, &mut event).await {
                Ok(()) if !self.revocations.covers(&grant.row) => out.push(grant),
                Err(Denial { kind: DenialKind::Unreachable, .. }) => return Ok(None),
                Ok(()) | Err(_) => {}
            }
            if out.len() == limit {
                break;
            }
        }
        Ok(Some(out))
    }

    /// Whether this person may decide on this request: somebody else than everybody in it, and the policy's
    /// word. `event` learns whom it is about and which rule decided.
    async fn may_decide(
        &self,
        grant: &Grant,
        mut approver: ActorFacts,
        address: Option<IpAddr>,
        event: &mut Event,
    ) -> Result<(), Denial> {
        let (Some(actor), Some(subject)) = (&grant.actor, &grant.subject) else {
            return Err(no_such_request());
        };
        event.client = Some(grant.row.client.clone());
        event.personal.subject = Some(subject.clone());
        event.scope = Some(grant.row.scope.clone());
        event.aud.clone_from(&grant.row.aud);
        approver.person = self.person_of(&approver, Look::Up).await?;
        let client = self.clients.get(&grant.row.client).ok_or_else(no_such_request)?;
        self.is_somebody_else(grant, actor, subject, &approver)?;
        let policy = self.policy.current();
        let question = Question {
            action: Action::Approve,
            issuer: approver.act.iss.clone(),
            target: TargetFacts { id: subject.clone(), person: self.person(subject, Look::Up).await? },
            client: client_facts(&client, &approver),
            reason: grant.reason.clone(),
            ticket: grant.ticket.clone(),
            lifetime_seconds: grant.approval.as_ref().map(|approval| approval.lifetime_seconds),
            scope: Some(grant.row.scope.clone()),
            audience: grant.row.aud.clone(),
            by_code: false,
            now: self.clock.now(),
            address,
            targets_last_hour: 0,
            actor: approver,
        };
        event.policy = Some(policy.version().to_owned());
        match policy.decide(&question) {
            Verdict::Granted { rule, .. } => {
                event.rule = Some(rule);
                Ok(())
            }
            Verdict::Denied { rule, message, refusal } => {
                Err(Denial { rule, message, kind: DenialKind::Policy(refusal) })
            }
        }
    }

    /// Nobody approves what he asked for himself, under whatever login, nor acting for himself. Where there is
    /// a directory, who is not known there cannot be told from the asker, and is refused.
    fn is_somebody_else(
        &self,
        grant: &Grant,
        actor: &Act,
        subject: &Sub,
        approver: &ActorFacts,
    ) -> Result<(), Denial> {
        let refused = |rule: &str, message: &str| Err(Denial::by_rule(rule, message));
        let known_as = known_as(approver.person.as_ref());
        let is_asker = |act: &Act| {
            let same_issuer = act.iss.is_none() || act.iss == approver.act.iss;
            act.sub == approver.act.sub && same_issuer || known_as == Some(&act.sub)
        };
        let asker = grant.approval.as_ref().and_then(|approval| approval.asker.as_ref());
        let tag: Option<Tag> = known_as.map(|id| self.people.person(id));
        if actor.chain().any(is_asker) || tag.is_some() && tag.as_ref() == asker {
            return refused(builtin::APPROVER_IS_ACTOR, "Nobody approves what he asked for himself.");
        }
        if approver.act.sub == *subject || known_as == Some(subject) {
            return refused(builtin::APPROVER_IS_TARGET, "Nobody approves acting for himself.");
        }
        if !self.directory.is_none() && (tag.is_none() || asker.is_none()) {
            return refused(
                builtin::APPROVER_UNKNOWN,
                "The directory has to know both asker and approver, else they might be one person.",
            );
        }
        Ok(())
    }
}

/// The directory's id of a person.
pub(super) fn known_as(person: Option<&Person>) -> Option<&Sub> {
    person.and_then(|person| person.id.as_ref())
}

fn client_facts(client: &Client, approver: &ActorFacts) -> ClientFacts {
    ClientFacts {
        id: client.id.clone(),
        name: client.name.clone(),
        may_assert: client.may_assert(&approver.act.sub, None),
        clerk: client.profile == Profile::Clerk,
    }
}

fn stands(grant: &Grant, state: ApprovalState) -> bool {
    grant.approval.as_ref().is_some_and(|approval| approval.state == state)
}

fn is_request(grant: &Grant) -> bool {
    grant.approval.is_some() && !grant.is_break_glass()
}

fn no_such_request() -> Denial {
    Denial {
        rule: "approval_unknown".into(),
        message: "No request by this id waits for a colleague.".into(),
        kind: DenialKind::NoSuchRequest,
    }
}

fn tampered_with() -> Denial {
    Denial::by_rule(
        "approval_changed",
        "What is stored of this request is not what was asked for. Tell your security team, and ask anew.",
    )
}

/// What is asked for now is what was asked for then: the same people, reason and ticket; no more than that is
/// compared here, because everything else only ever shrinks.
fn is_the_same(grant: &Grant, decided: &Decided, event: &Event) -> Result<(), Denial> {
    let parent = decided.target.parent.as_ref().map(|parent| &parent.grant);
    let same = grant.actor.as_ref() == Some(&decided.act)
        && grant.subject.as_ref() == Some(&decided.target.id)
        && grant.row.assurance == decided.assurance
        && grant.row.parent.as_ref() == parent
        && grant.reason == event.personal.reason
        && grant.ticket == event.personal.ticket;
    if same {
        return Ok(());
    }
    Err(Denial {
        rule: "approval_of_another_request".into(),
        message:
            "A colleague was asked about something else: actor, user, reason and ticket must be the same."
                .into(),
        kind: DenialKind::Parameter("approval"),
    })
}

fn over(grant: &Grant, now: DateTime<Utc>) -> Denial {
    if grant.status != GrantStatus::Revoked && grant.row.exp <= now {
        Denial::by_rule("approval_lapsed", "This request has lapsed: it was good for 30 minutes. Ask anew.")
    } else {
        Denial::by_rule("grant_ended", "This request was revoked.")
    }
}

fn waiting(grant: &Grant, decided: &Decided, approval: &Approval) -> Waiting {
    Waiting {
        id: grant.row.id.clone(),
        subject: decided.target.id.clone(),
        actor: decided.act.clone(),
        assurance: decided.assurance,
        scope: grant.row.scope.clone(),
        aud: grant.row.aud.clone(),
        lapses_at: approval.lapses_at,
        created_at: grant.row.created_at,
        index: grant.index,
    }
}

/// What was approved, within what the policy grants now.
fn narrowed(grant: &Grant, approval: &Approval, mut decided: Decided) -> Result<Decided, Denial> {
    let (scope, _) = within(grant, &decided.limits)?;
    decided.limits.scope = scope;
    // whatever the policy would let pass now: this one was approved
    decided.limits.break_glass = false;
    decided.limits.audience.clone_from(&grant.row.aud);
    decided.limits.lifetime_seconds = decided.limits.lifetime_seconds.min(approval.lifetime_seconds);
    decided.request = Some(Box::new(grant.row.clone()));
    Ok(decided)
}

/// What is left of a grant's scopes, and its lifetime, under the policy's word of now.
pub(super) fn within(grant: &Grant, limits: &Limits) -> Result<(Scope, TimeDelta), Denial> {
    let scope = grant.row.scope.intersection(&limits.scope);
    if scope.is_empty() && !grant.row.scope.is_empty() {
        return Err(Denial::by_rule("scope_withdrawn", "The policy grants none of these scopes any more."));
    }
    if grant.row.aud.iter().any(|aud| !limits.audience.contains(aud)) {
        return Err(Denial::by_rule(AUDIENCE_WITHDRAWN, "The policy does not grant this audience any more."));
    }
    Ok((scope, TimeDelta::seconds(i64::from(limits.lifetime_seconds))))
}
