//! Who acts, for whom, and everything else the policy may look at.

use chrono::{DateTime, TimeDelta, Utc};

use super::attempt::{self, Ask, Denial, Requested};
use super::{Caller, IssueDesk, Look, Target, Terms};
use crate::server::actors::ActorTokenError;
use crate::server::clients::{ClientScope, Profile};
use crate::server::directory::Cached;
use crate::server::policy::{Action, ActorFacts, ClientFacts, Person, Question, TargetFacts};
use crate::token::{Act, Assurance, Sub};

impl IssueDesk {
    /// Everything the policy may look at.
    pub(super) async fn question(
        &self,
        caller: &Caller<'_>,
        ask: &Ask,
        target: &Target,
        actor: ActorFacts,
        terms: Terms<'_>,
    ) -> Result<Question, Denial> {
        let client = caller.client;
        let audience = match (&target.parent, &ask.audience) {
            // no wider than the parent, and of the client's own
            (Some(parent), None) => {
                let own = parent.aud.iter().filter(|aud| client.owns_audience(aud));
                own.cloned().collect()
            }
            (Some(parent), Some(asked)) if asked.iter().any(|a| !parent.aud.contains(a)) => {
                return Err(Denial::wider_audience());
            }
            // Profile `clerk` has no `aud`: its SDKs refuse tokens that have one (contract.md §6). For somebody only would be
            // narrower than what it can say.
            (None, Some(_)) if client.profile == Profile::Clerk => return Err(Denial::clerk_audience()),
            (None, None) if client.profile == Profile::Clerk => Vec::new(),
            (_, asked) => attempt::audience(client, asked.as_deref())?,
        };
        let scope = match (&target.parent, &ask.scope) {
            (Some(parent), None) => Some(parent.scope.clone()),
            (Some(parent), Some(asked)) => Some(asked.intersection(&parent.scope)),
            (None, asked) => asked.clone(),
        };
        Ok(Question {
            action: if target.parent.is_some() { Action::Delegate } else { Action::Impersonate },
            issuer: actor.act.iss.clone(),
            target: TargetFacts { id: target.id.clone(), person: self.person(&target.id, terms.look).await? },
            client: ClientFacts {
                id: client.id.clone(),
                name: client.name.clone(),
                may_assert: client.may_assert(&actor.act.sub, None),
                clerk: client.profile == Profile::Clerk,
            },
            reason: ask.reason.clone(),
            ticket: ask.ticket.clone(),
            lifetime_seconds: ask.expires_in_seconds,
            scope,
            audience,
            by_code: ask.by_code,
            now: terms.now,
            address: caller.address,
            targets_last_hour: self.targets_last_hour(&actor.act, terms).await?,
            actor,
        })
    }

    /// Counted in the log, and only when the policy looks at it.
    async fn targets_last_hour(&self, actor: &Act, terms: Terms<'_>) -> Result<u32, Denial> {
        if !terms.policy.counts_targets() {
            return Ok(0);
        }
        let since = terms.now - TimeDelta::hours(1);
        let targets = self.log.targets_since(actor, since).await;
        let targets = targets.map_err(|_| Denial::unreachable("the log"))?;
        let before = targets.iter().filter(|target| terms.besides != Some(*target)).count();
        Ok(u32::try_from(before).unwrap_or(u32::MAX))
    }

    /// Who acts: proven by his own token, named by a client that may, or the client itself.
    pub(super) async fn who(
        &self,
        caller: &Caller<'_>,
        ask: &Ask,
        now: DateTime<Utc>,
        look: Look,
    ) -> Result<ActorFacts, Denial> {
        match &ask.actor {
            Requested::Proven { token, claimed, declared } => {
                let proven = self.actors.verify_actor_token(token, *declared, now).await;
                let proven = proven.map_err(|error| match error {
                    ActorTokenError::NotAcceptable(reason) => Denial::actor_token(&reason.to_string()),
                    ActorTokenError::Unreachable { .. } => Denial::unreachable("the actor's issuer"),
                })?;
                let facts = proven.facts.clone();
                if claimed.as_ref().is_some_and(|sub| *sub != facts.act.sub) {
                    return Err(Denial::actor_mismatch());
                }
                let person = self.person_of(&facts, look).await?;
                Ok(ActorFacts { person, ..facts })
            }
            Requested::SignedIn(facts) => {
                let person = self.person_of(facts, look).await?;
                Ok(ActorFacts { person, ..facts.as_ref().clone() })
            }
            Requested::Asserted(sub) => {
                if !caller.client.may(ClientScope::AssertActor) {
                    return Err(Denial::scope(ClientScope::AssertActor));
                }
                // An asserted actor never carries a trusted issuer's name (contract.md §6).
                let act = Act { sub: sub.clone(), iss: None, act: None };
                let person = self.person(sub, look).await?;
                let directory_id = Some(sub.clone());
                Ok(ActorFacts { directory_id, person, ..nobody(act, Assurance::Asserted) })
            }
            Requested::TheClient => {
                let sub = Sub::try_from(caller.client.id.as_str())
                    .map_err(|_| Denial::actor_token("it is missing"))?;
                let act = Act { sub, iss: Some(self.issuer.clone()), act: None };
                Ok(nobody(act, Assurance::Verified))
            }
        }
    }

    /// What the directory says of an actor.
    pub(super) async fn person_of(&self, actor: &ActorFacts, look: Look) -> Result<Option<Person>, Denial> {
        match &actor.directory_id {
            Some(id) => self.person(id, look).await,
            None => Ok(None),
        }
    }

    pub(super) async fn person(&self, id: &Sub, look: Look) -> Result<Option<Person>, Denial> {
        match look {
            Look::Up => self.directory.look_up(id).await.map_err(|error| {
                tracing::warn!(error = &error as &dyn std::error::Error, "the directory could not be asked");
                Denial::unreachable("the directory")
            }),
            Look::AtWhatIsKnown => Ok(match self.directory.known(id).await {
                Cached::Known(person) => Some(person),
                Cached::NotThere | Cached::NotAsked => None,
            }),
        }
    }
}

/// An actor of whom nothing is known but who he is.
fn nobody(act: Act, assurance: Assurance) -> ActorFacts {
    ActorFacts {
        act,
        assurance,
        roles: Vec::new(),
        groups: Vec::new(),
        org: None,
        acr: None,
        amr: Vec::new(),
        auth_time: None,
        directory_id: None,
        person: None,
    }
}
