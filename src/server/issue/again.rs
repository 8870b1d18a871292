//! The policy asked again about a grant that exists: when its code is redeemed, and when its token is verified
//! online (`[policy] on_verify`). What was known of the actor's login then counts as it was; what the directory,
//! the ticket system, the client's row and the policy say counts as of now.

use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::approval::{approved_before, within};
use super::handoff::is_by_code;
use super::{Ask, Caller, Client, Denial, IssueDesk, Look, Parent, Requested, Subject, Target, Terms};
use crate::server::log::{Effect, Event, EventType, Grant, GrantRow, StoredCode};
use crate::server::policy::{ActorFacts, Limits};
use crate::token::{Act, Assurance, Audience, ClientId, GrantId, RequestId, Scope, Sub};

/// What the policy is asked again with. Sealed: it names people.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Facts {
    pub act: Act,
    assurance: Assurance,
    roles: Vec<String>,
    groups: Vec<String>,
    org: Option<String>,
    acr: Option<String>,
    amr: Vec<String>,
    auth_time: Option<i64>,
    /// When all this was so, seconds; facts of versions before this one do not say.
    #[serde(default)]
    at: Option<i64>,
    #[serde(default)]
    directory_id: Option<Sub>,
    pub target: Sub,
    pub reason: Option<String>,
    pub ticket: Option<String>,
    pub lifetime_seconds: Option<u32>,
    pub scope: Option<Scope>,
    pub audience: Option<Vec<Audience>>,
    /// Where it was asked from: who verifies or redeems sits elsewhere.
    #[serde(default)]
    address: Option<IpAddr>,
    /// What was granted; facts of versions before this one have none.
    #[serde(default)]
    granted: Option<Granted>,
    /// Whose its code is.
    #[serde(default)]
    bound: Option<Bound>,
}

/// A grant's row, sealed: whoever can write the database but has no master key changes nothing that a token says.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Granted {
    client: ClientId,
    jti: String,
    assurance: Assurance,
    aud: Vec<Audience>,
    scope: Scope,
    iat: DateTime<Utc>,
    exp: DateTime<Utc>,
    parent: Option<GrantId>,
}

/// What a handoff code is bound to, sealed as well.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Bound {
    pub redeem_client: String,
    pub code_challenge: Option<String>,
    pub exp_us: i64,
}

impl Granted {
    fn of(row: &GrantRow) -> Self {
        Self {
            client: row.client.clone(),
            jti: row.jti.to_string(),
            assurance: row.assurance,
            aud: row.aud.clone(),
            scope: row.scope.clone(),
            iat: row.iat,
            exp: row.exp,
            parent: row.parent.clone(),
        }
    }
}

impl Facts {
    pub fn of(
        ask: &Ask,
        actor: &ActorFacts,
        target: &Sub,
        address: Option<IpAddr>,
        now: DateTime<Utc>,
    ) -> Self {
        Self {
            act: actor.act.clone(),
            assurance: actor.assurance,
            roles: actor.roles.clone(),
            groups: actor.groups.clone(),
            org: actor.org.clone(),
            acr: actor.acr.clone(),
            amr: actor.amr.clone(),
            auth_time: actor.auth_time.map(|at| at.timestamp()),
            at: Some(now.timestamp()),
            directory_id: actor.directory_id.clone(),
            target: target.clone(),
            reason: ask.reason.clone(),
            ticket: ask.ticket.clone(),
            lifetime_seconds: ask.expires_in_seconds,
            scope: ask.scope.clone(),
            audience: ask.audience.clone(),
            address,
            granted: None,
            bound: None,
        }
    }

    /// These facts, for this grant and its code.
    pub fn granting(&self, row: &GrantRow, bound: Bound) -> Self {
        Self { granted: Some(Granted::of(row)), bound: Some(bound), ..self.clone() }
    }

    /// Whether a code is bound as it was when it was made.
    pub fn are_handed_by(&self, code: &StoredCode) -> bool {
        self.bound.as_ref().is_none_or(|bound| {
            bound.redeem_client == code.redeem_client
                && bound.code_challenge == code.code_challenge
                && bound.exp_us == code.exp_us
        })
    }

    /// Whether a grant that is not redeemed yet is as it was granted.
    pub fn are_of(&self, row: &GrantRow) -> bool {
        self.granted.as_ref().is_none_or(|granted| *granted == Granted::of(row))
    }

    /// Who acts, as he was known at the mint; what the directory says of him is asked again.
    fn actor(&self) -> ActorFacts {
        ActorFacts {
            act: self.act.clone(),
            assurance: self.assurance,
            roles: self.roles.clone(),
            groups: self.groups.clone(),
            org: self.org.clone(),
            acr: self.acr.clone(),
            amr: self.amr.clone(),
            auth_time: self.auth_time.and_then(|at| DateTime::from_timestamp(at, 0)),
            directory_id: self.directory_id.clone(),
            person: None,
        }
    }
}

/// A grant in use that the policy would not give any more.
#[derive(Debug)]
pub struct Withdrawn {
    /// Why.
    pub denial: Denial,
    /// The policy that said so, `id@sha256`.
    pub policy: Option<String>,
}

impl IssueDesk {
    /// What the policy says now of the grant that was asked for with `facts`; `event` learns which rule.
    pub(super) async fn judge_again(
        &self,
        minter: &std::sync::Arc<Client>,
        request: &RequestId,
        (grant, facts): (&Grant, &Facts),
        by_code: bool,
        event: &mut Event,
        now: DateTime<Utc>,
    ) -> Result<Limits, Denial> {
        let as_minter = Caller { client: minter, request, address: facts.address };
        let ask = Ask {
            subject: Subject::Id(facts.target.clone()),
            actor: Requested::Asserted(facts.act.sub.clone()),
            reason: facts.reason.clone(),
            ticket: facts.ticket.clone(),
            expires_in_seconds: facts.lifetime_seconds,
            audience: facts.audience.clone(),
            scope: facts.scope.clone(),
            approval: None,
            by_code,
        };
        event.personal.reason.clone_from(&facts.reason);
        event.personal.ticket.clone_from(&facts.ticket);
        let mut actor = facts.actor();
        actor.person = self.person_of(&actor, Look::Up).await?;
        let policy = self.policy.current();
        let terms = Terms { now, look: Look::Up, policy: &policy, besides: Some(&facts.target) };
        let target = Target { id: facts.target.clone(), parent: parent(&grant.row, facts), may_act: None };
        let question = self.question(&as_minter, &ask, &target, actor, terms).await?;
        let limits = self.judge(&as_minter, &policy, &question, event).await?;
        approved_before(&limits, grant)?;
        Ok(limits)
    }

    /// Facts to keep with a grant, where its token's verification asks again.
    pub(super) fn facts_kept(&self, grant: &GrantRow, facts: Option<&Facts>) -> Option<Effect> {
        let facts = zeroize::Zeroizing::new(serde_json::to_vec(facts.filter(|_| self.on_verify)?).ok()?);
        let sealed = self.secrets.seal(&grant.id, &facts, &*self.entropy);
        Some(Effect::InsertFacts { grant: grant.id.clone(), sealed, exp: grant.exp })
    }

    /// Whether the policy would still give the grant behind a valid token as it is, where that is asked at all.
    /// A grant of which nothing was kept (it was made before `on_verify` was on) is not given again.
    ///
    /// # Errors
    /// [`Withdrawn`]: it would not; `denial.kind` [`super::DenialKind::Unreachable`]: somebody cannot be asked.
    pub async fn still_granted(&self, grant: &GrantId, request: &RequestId) -> Result<(), Withdrawn> {
        if !self.on_verify {
            return Ok(());
        }
        let mut event = Event::new(EventType::Use);
        self.ask_again(grant, request, &mut event)
            .await
            .map_err(|denial| Withdrawn { denial, policy: event.policy })
    }

    async fn ask_again(&self, id: &GrantId, request: &RequestId, event: &mut Event) -> Result<(), Denial> {
        let now = self.clock.now();
        let unreadable = |_| Denial::unreachable("the log");
        let sealed = self.log.grant_facts(id).await.map_err(unreadable)?;
        let grant = self.log.grant(id).await.map_err(unreadable)?;
        let (Some(sealed), Some(grant)) = (sealed, grant) else { return Err(Denial::nothing_known()) };
        let facts = self.secrets.open(id, &sealed).and_then(|facts| serde_json::from_slice(&facts).ok());
        let minter = self.clients.get(&grant.row.client).filter(|client| client.is_active());
        let (Some::<Facts>(mut facts), Some(minter)) = (facts, minter) else {
            return Err(Denial::nothing_known());
        };
        // his login was as old as a rule allows when it was granted; it counts as that old
        let since = now.timestamp() - facts.at.unwrap_or_else(|| grant.row.created_at.timestamp());
        facts.auth_time = facts.auth_time.map(|at| at + since);
        let by_code = is_by_code(&grant);
        let limits = self.judge_again(&minter, request, (&grant, &facts), by_code, event, now).await?;
        let (scope, lifetime) = within(&grant, &limits)?;
        if scope != grant.row.scope {
            return Err(Denial::by_rule(
                "scope_withdrawn",
                "The policy does not grant all its scopes any more.",
            ));
        }
        // what would be given now covers what is left; ends are in whole seconds
        if grant.row.exp > now + lifetime + TimeDelta::seconds(1) {
            return Err(Denial::by_rule(
                "lifetime_withdrawn",
                "The policy does not grant this long any more.",
            ));
        }
        Ok(())
    }
}

/// What a delegated grant must stay within: it was cut to that when it was made.
fn parent(row: &GrantRow, facts: &Facts) -> Option<Parent> {
    Some(Parent {
        grant: row.parent.clone()?,
        exp: row.exp,
        scope: row.scope.clone(),
        aud: row.aud.clone(),
        act: *facts.act.act.clone()?,
        assurance: row.assurance,
    })
}
