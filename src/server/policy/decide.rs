//! The decision: what no policy loosens first, then the forbids and permits of the policy.

use cedar_policy::{Authorizer, Effect, PolicyId, PolicySet, Response};

use super::entities::{Asked, Facts, LOOK_UP, NotAskable};
use super::limits::{Offer, Refused, offer};
use super::load::Policy;
use super::{Question, Refusal, Verdict, builtin};
use crate::token::claims::MAX_ACT_DEPTH;
use crate::token::{Act, Assurance};

impl Policy {
    /// Answers the question. A pure function of the policy and the question: no clock, no I/O.
    ///
    /// Anything that cannot be evaluated is a denial ([`Refusal::Error`]); Cedar alone would skip a
    /// forbid that errs, and so allow.
    #[must_use]
    pub fn decide(&self, question: &Question) -> Verdict {
        let facts = self.facts(question);
        if let Err(refused) = hard_limits(&facts) {
            return denied(refused);
        }
        match Asked::build(&facts).and_then(|asked| self.weigh(&facts, &asked)) {
            Ok(verdict) => verdict,
            Err(error) => not_askable(&error),
        }
    }

    /// The first `@default_reason` of this client's permits, for rules that look at the reason; which one is recorded is told
    /// by the permit that decides.
    fn default_reason(&self, client: &super::ClientFacts) -> Option<&str> {
        self.rules
            .iter()
            .filter(|r| r.annotations.admits_client(client.id.as_str(), &client.name))
            .find_map(|r| r.annotations.default_reason.as_deref())
    }

    pub(super) fn facts<'a>(&'a self, question: &'a Question) -> Facts<'a> {
        Facts::of(question, self.default_reason(&question.client), &self.reads)
    }

    /// Everything after the hard limits.
    fn weigh(&self, facts: &Facts<'_>, asked: &Asked) -> Result<Verdict, NotAskable> {
        let request = asked.request(facts.question.action.as_str())?;
        let authorizer = Authorizer::new();
        let permits = authorizer.is_authorized(&request, &self.permits, &asked.entities);
        let forbids = authorizer.is_authorized(&request, &self.forbids, &asked.entities);
        if let Some(rule) = self.first_error([&permits, &forbids]) {
            return Ok(evaluation_error(rule));
        }
        if let Err(refused) = self.asserted_by_rule(facts) {
            return Ok(denied(refused));
        }
        let forbidden = self.first(forbids.diagnostics().reason()).map(|at| &self.rules[at]);
        let refused = match self.best_offer(facts, &permits) {
            Ok((rule, limits)) => match forbidden {
                None => return Ok(Verdict::Granted { rule: rule.to_owned(), limits }),
                Some(forbid) => forbidden_by(forbid),
            },
            // Only who would be permitted hears which forbid stands in his way: otherwise anybody
            // could learn from the words who exists and who is protected.
            Err(refused) => match forbidden {
                Some(forbid) if refused.rule != builtin::NO_PERMIT => forbidden_by(forbid),
                _ => refused,
            },
        };
        if facts.target.is_none() && facts.question.action.mints() {
            return self.unknown_target(facts, asked, refused);
        }
        Ok(denied(refused))
    }

    /// The permit that decides: the first, in the order of the text, that grants every scope asked for,
    /// else the first that grants anything. Otherwise why not: a step-up that would help before anything else.
    fn best_offer(&self, facts: &Facts<'_>, permits: &Response) -> Result<(&str, super::Limits), Refused> {
        let (mut partial, mut reason): (Option<(&str, super::Limits)>, Option<Refused>) = (None, None);
        for at in self.in_order(permits.diagnostics().reason()) {
            let rule = &self.rules[at].annotations;
            match offer(rule, facts) {
                Offer::Grants { limits, complete: true } => return Ok((&rule.id, limits)),
                Offer::Grants { limits, complete: false } => {
                    partial.get_or_insert((&rule.id, limits));
                }
                Offer::Silent(_) => {}
                Offer::Refuses(refused) => {
                    let better = matches!(refused.refusal, Refusal::StepUp(_))
                        && !reason.as_ref().is_some_and(|r| matches!(r.refusal, Refusal::StepUp(_)));
                    if better || reason.is_none() {
                        reason = Some(refused);
                    }
                }
            }
        }
        partial.ok_or_else(|| reason.unwrap_or_else(|| self.no_permit(facts)))
    }

    /// Whether any permit at all lets this client name an actor for this action. Independent of who the
    /// target is, so that the answer tells nothing about him.
    fn asserted_by_rule(&self, facts: &Facts<'_>) -> Result<(), Refused> {
        let q = facts.question;
        let lets = |rule: &super::load::Rule| {
            let permit = &rule.annotations;
            permit.asserted
                && permit.admits_client(q.client.id.as_str(), &q.client.name)
                && concerns(rule, q.action.as_str())
        };
        if q.actor.assurance == Assurance::Verified || self.rules.iter().any(lets) {
            return Ok(());
        }
        refuse(
            builtin::ASSERTED_RULE,
            "The actor did not prove himself, and no rule lets this client name him: \
             send his own token as `actor_token`.",
        )
    }

    fn no_permit(&self, facts: &Facts<'_>) -> Refused {
        let client = &facts.question.client;
        let hint = self
            .rules
            .iter()
            .filter(|r| r.effect == Effect::Permit && concerns(r, facts.question.action.as_str()))
            .filter(|r| r.annotations.admits_client(client.id.as_str(), &client.name))
            .find_map(|r| r.annotations.hint.as_deref());
        let mut message = "No rule permits this actor to do this for this user.".to_owned();
        if let Some(hint) = hint {
            message.push(' ');
            message.push_str(hint);
        }
        Refused { rule: builtin::NO_PERMIT.to_owned(), message, refusal: Refusal::Denied }
    }

    /// An unknown target is told as such only to whom a permit for `look_up` says so.
    fn unknown_target(
        &self,
        facts: &Facts<'_>,
        asked: &Asked,
        refused: Refused,
    ) -> Result<Verdict, NotAskable> {
        let request = asked.request(LOOK_UP)?;
        let ask = |set: &PolicySet| Authorizer::new().is_authorized(&request, set, &asked.entities);
        let (permits, forbids) = (ask(&self.permits), ask(&self.forbids));
        if let Some(rule) = self.first_error([&permits, &forbids]) {
            return Ok(evaluation_error(rule));
        }
        let question = facts.question;
        let may_look = self.in_order(permits.diagnostics().reason()).into_iter().find(|at| {
            let permit = &self.rules[*at].annotations;
            names_look_up(&self.rules[*at])
                && permit.admits_client(question.client.id.as_str(), &question.client.name)
                && (permit.asserted || question.actor.assurance == Assurance::Verified)
        });
        Ok(match may_look {
            Some(at) if forbids.diagnostics().reason().next().is_none() => Verdict::Denied {
                rule: self.rules[at].annotations.id.clone(),
                message: "There is no such user.".to_owned(),
                refusal: Refusal::UnknownTarget,
            },
            _ => denied(refused),
        })
    }

    pub(super) fn in_order<'a>(&self, ids: impl Iterator<Item = &'a PolicyId>) -> Vec<usize> {
        let mut found: Vec<usize> = ids.filter_map(|id| self.index.get(id).copied()).collect();
        found.sort_unstable();
        found
    }

    fn first<'a>(&self, ids: impl Iterator<Item = &'a PolicyId>) -> Option<usize> {
        ids.filter_map(|id| self.index.get(id).copied()).min()
    }

    /// The first rule that could not be evaluated.
    fn first_error(&self, responses: [&Response; 2]) -> Option<&str> {
        let failed = responses.into_iter().flat_map(|r| r.diagnostics().errors());
        let first = self.first(failed.map(|error| match error {
            cedar_policy::AuthorizationError::PolicyEvaluationError(error) => error.policy_id(),
        }))?;
        Some(&self.rules[first].annotations.id)
    }
}

/// Whether a permit says `look_up` itself: one that is open to every action does not mean this.
fn names_look_up(rule: &super::load::Rule) -> bool {
    !matches!(rule.policy.action_constraint(), cedar_policy::ActionConstraint::Any) && concerns(rule, LOOK_UP)
}

/// Whether a rule's scope admits the action at all.
pub(super) fn concerns(rule: &super::load::Rule, action: &str) -> bool {
    use cedar_policy::ActionConstraint::{Any, Eq, In};
    let is = |uid: &cedar_policy::EntityUid| uid.id().unescaped() == action;
    match rule.policy.action_constraint() {
        Any => true,
        Eq(uid) => is(&uid),
        In(uids) => uids.iter().any(is),
    }
}

fn forbidden_by(rule: &super::load::Rule) -> Refused {
    let annotations = &rule.annotations;
    Refused {
        rule: annotations.id.clone(),
        message: annotations
            .message
            .clone()
            .unwrap_or_else(|| format!("Rule {} of the policy forbids it.", annotations.id)),
        refusal: Refusal::Denied,
    }
}

pub(super) fn denied(refused: Refused) -> Verdict {
    Verdict::Denied { rule: refused.rule, message: refused.message, refusal: refused.refusal }
}

pub(super) fn not_askable(error: &NotAskable) -> Verdict {
    tracing::error!(%error, "policy question not askable");
    Verdict::Denied {
        rule: builtin::QUESTION.to_owned(),
        message: "The question could not be put to the policy, so nothing is allowed.".to_owned(),
        refusal: Refusal::Error,
    }
}

fn evaluation_error(rule: &str) -> Verdict {
    Verdict::Denied {
        rule: rule.to_owned(),
        message: format!("Rule {rule} could not be evaluated, so nothing is allowed."),
        refusal: Refusal::Error,
    }
}

fn refuse(rule: &str, message: &str) -> Result<(), Refused> {
    Err(Refused { rule: rule.to_owned(), message: message.to_owned(), refusal: Refusal::Denied })
}

/// What holds under every policy, asked before any rule is.
pub(super) fn hard_limits(facts: &Facts<'_>) -> Result<(), Refused> {
    let q = facts.question;
    let act = &q.actor.act;
    match q.actor.assurance {
        Assurance::Asserted if !q.action.mints() => {
            return refuse(builtin::ASSERTED_ACTION, "Only a person who proved himself may do this.");
        }
        Assurance::Asserted if !q.client.may_assert => {
            return refuse(
                builtin::ASSERTED_CLIENT,
                "This client may not name this actor: send the actor's own token as `actor_token`.",
            );
        }
        Assurance::Verified if act.iss.is_none() => {
            return refuse(builtin::ACTOR_WITHOUT_ISSUER, "A verified actor needs an issuer.");
        }
        _ => {}
    }
    if act.act.is_some() && q.action != super::Action::Delegate {
        return refuse(
            builtin::NESTED_ACTOR,
            "The actor acts on behalf of somebody already; only a delegation may go on from there.",
        );
    }
    // `nth` stops at the limit: a chain of any length costs no more.
    if act.chain().nth(MAX_ACT_DEPTH).is_some() {
        return refuse(builtin::CHAIN_TOO_DEEP, "The chain of actors is longer than four.");
    }
    if has_cycle(act) {
        return refuse(builtin::CHAIN_CYCLE, "Nobody delegates to himself: the chain names an actor twice.");
    }
    if q.action.mints() && is_self(facts) {
        return refuse(builtin::NEVER_SELF, "Nobody acts for himself.");
    }
    Ok(())
}

/// Actors are compared as (`iss`, `sub`); one without an issuer might be anybody of that name.
fn has_cycle(act: &Act) -> bool {
    let same = |a: &Act, b: &Act| a.sub == b.sub && (a.iss.is_none() || b.iss.is_none() || a.iss == b.iss);
    let chain: Vec<&Act> = act.chain().collect();
    chain.iter().enumerate().any(|(i, a)| chain[i + 1..].iter().any(|b| same(a, b)))
}

/// Compared as the directory knows them; an actor it does not know, by every name he goes by.
fn is_self(facts: &Facts<'_>) -> bool {
    let (target, actor) = (&facts.question.target.id, &facts.question.actor);
    match facts.actor.and_then(|p| p.id.as_ref()) {
        Some(mapped) => mapped == target,
        None => actor.act.sub == *target || actor.directory_id.as_ref() == Some(target),
    }
}
