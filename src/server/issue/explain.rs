//! What the policy would say: the same question as a mint's, and no token.

use chrono::{DateTime, Utc};

use super::attempt::{Ask, Denial, DenialKind};
use super::{Caller, IssueDesk, Look, Terms, first_event};
use crate::server::clients::ClientScope;
use crate::server::directory::Cached;
use crate::server::log::{Beginning, Condition, Event, EventType, LogError, Record};
use crate::server::policy::{Policy, Question, Refusal, Verdict};
use crate::token::Sub;

/// What the policy would say.
#[derive(Debug)]
pub enum Explained {
    /// There is no answer: the request or its client is not fit to ask, or somebody cannot be reached.
    Refused(Denial),
    /// This.
    Answer {
        /// Which rule, in a sentence, with which limits.
        verdict: Verdict,
        /// Of whom nothing is known because nobody was asked.
        unknown: Vec<&'static str>,
    },
}

impl IssueDesk {
    /// What the policy would say, without asking anybody outside and without minting; recorded all the same.
    ///
    /// # Errors
    /// [`LogError`] when the question could not be recorded.
    pub async fn explain(&self, caller: &Caller<'_>, ask: Ask) -> Result<Explained, LogError> {
        let now = self.clock.now();
        if let Err(denial) = self.not_too_often(caller) {
            return Ok(Explained::Refused(denial));
        }
        let mut event = Event { typ: EventType::Explain, decision: None, ..first_event(caller, &ask) };
        let policy = self.policy.current();
        let mut conditions = Vec::new();
        let explained = match self.explain_question(caller, &ask, now, &policy).await {
            Err(denial) => self.denied_at_once(denial),
            Ok(question) => {
                event.policy = Some(policy.version().to_owned());
                let verdict = match policy.decide(&question) {
                    Verdict::Granted { limits, .. } if self.glass_stays_whole(&limits) => {
                        let Denial { rule, message, .. } = Denial::untold();
                        Verdict::Denied { rule, message, refusal: Refusal::Denied }
                    }
                    verdict => verdict,
                };
                if let Verdict::Granted { limits, .. } = &verdict {
                    // what a mint would meet inside the append
                    let client = question.client.id.clone();
                    let people = self.people.of_grant(&client, &question.actor.act, &question.target.id);
                    let beginning = Beginning { client, kid: None, iat: now, people };
                    conditions.push(Condition::NotHeld(Box::new(beginning)));
                    conditions.extend(limits.max_targets_per_hour.map(|max| Condition::TargetsBelow {
                        actor: question.actor.act.clone(),
                        subject: question.target.id.clone(),
                        max,
                    }));
                }
                let unknown = self.not_asked(&question, &verdict);
                Explained::Answer { verdict, unknown }
            }
        };
        let (would, rule) = match &explained {
            Explained::Refused(denial) => ("denied", denial.rule.clone()),
            Explained::Answer { verdict, .. } => (verdict.decision(), verdict.rule().to_owned()),
        };
        event.rule = Some(rule);
        event.detail = Some(std::iter::once(("would".to_owned(), would.into())).collect());
        let recorded = self.log.record(Record { conditions, ..Record::of(event) }).await?;
        Ok(match recorded.failed {
            None => explained,
            Some(condition) => self.denied_at_once(Denial::condition(condition.rule())),
        })
    }

    /// What is denied before the policy decides, or after. That the request or its client is not fit to ask, that somebody
    /// cannot be reached: these are no answers.
    fn denied_at_once(&self, denial: Denial) -> Explained {
        let refusal = match denial.kind {
            DenialKind::Audience | DenialKind::Condition => Refusal::Denied,
            DenialKind::Policy(refusal) => refusal,
            DenialKind::Scope(_)
            | DenialKind::Parameter(_)
            | DenialKind::Unreachable
            | DenialKind::RateLimited { .. }
            | DenialKind::InFlight
            | DenialKind::KeyReused
            | DenialKind::GrantEnded
            | DenialKind::NoSuchCode
            | DenialKind::NoSuchRequest
            | DenialKind::NotWaiting => return Explained::Refused(denial),
        };
        let Denial { rule, message, .. } = denial;
        let unknown = if self.directory.is_none() { Vec::new() } else { vec!["target"] };
        Explained::Answer { verdict: Verdict::Denied { rule, message, refusal }, unknown }
    }

    async fn explain_question(
        &self,
        caller: &Caller<'_>,
        ask: &Ask,
        now: DateTime<Utc>,
        policy: &Policy,
    ) -> Result<Question, Denial> {
        if !caller.client.may(ClientScope::Issue) {
            return Err(Denial::scope(ClientScope::Issue));
        }
        let target = self.target(caller, &ask.subject, now)?;
        let mut actor = self.who(caller, ask, now, Look::AtWhatIsKnown).await?;
        target.put_behind(&mut actor)?;
        self.question(
            caller,
            ask,
            &target,
            actor,
            Terms { now, look: Look::AtWhatIsKnown, policy, besides: None },
        )
        .await
    }

    /// Of whom nothing is known because nobody was asked. Whoever is denied does not learn whether a user is there, nor
    /// whether somebody looked him up: to him none is known.
    fn not_asked(&self, question: &Question, verdict: &Verdict) -> Vec<&'static str> {
        if self.directory.is_none() {
            return Vec::new();
        }
        let unasked = |id: &Sub| matches!(self.directory.cached(id), Cached::NotAsked);
        let mut out = Vec::new();
        if question.actor.directory_id.as_ref().is_some_and(unasked) {
            out.push("actor");
        }
        if matches!(verdict, Verdict::Denied { .. }) || unasked(&question.target.id) {
            out.push("target");
        }
        out
    }
}
