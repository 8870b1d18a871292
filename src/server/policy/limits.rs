//! What one matching permit grants of what is asked: everything only ever shrinks.

use chrono::TimeDelta;

use super::annotations::{Annotations, Consent, Scopes};
use super::entities::Facts;
use super::{
    CLERK_LIFETIME_CAP_SECONDS, CLERK_LIFETIME_SECONDS, DEFAULT_LIFETIME_SECONDS, FULL_ACCESS_SCOPE,
    LIFETIME_CAP_SECONDS, Limits, MAX_LIFETIME_SECONDS, Refusal, StepUp, builtin,
};
use crate::token::{Assurance, Audience, Scope};

/// What a permit without `@scope` grants.
const DEFAULT_SCOPE: &str = "read";

/// What became of one matching permit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Offer {
    /// It grants; `complete` when no scope asked for is missing.
    Grants { limits: Limits, complete: bool },
    /// It does not concern this client or these people; nobody need know it exists.
    Silent(&'static str),
    /// It would grant if something were different.
    Refuses(Refused),
}

/// Why a permit does not grant what is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) rule: String,
    pub(super) message: String,
    pub(super) refusal: Refusal,
}

impl Refused {
    fn by(rule: &str, message: impl Into<String>) -> Self {
        Self { rule: rule.to_owned(), message: message.into(), refusal: Refusal::Denied }
    }
}

/// What a permit that matches offers for this question.
pub(super) fn offer(permit: &Annotations, facts: &Facts<'_>) -> Offer {
    let q = facts.question;
    if !permit.admits_client(q.client.id.as_str(), &q.client.name) {
        return Offer::Silent("it is for other clients");
    }
    if q.action.mints() && facts.actor.is_none() && !permit.unknown_actor {
        return Offer::Silent(
            "the directory does not know the actor, and it does not say @unknown(\"actor\")",
        );
    }
    if q.action.mints() && facts.target.is_none() && !permit.unknown_target {
        return Offer::Silent(
            "the directory does not know the target, and it does not say @unknown(\"target\")",
        );
    }
    if q.actor.assurance == Assurance::Asserted && !permit.asserted {
        return Offer::Silent("the actor did not prove himself, and it does not say @asserted(\"allow\")");
    }
    match grant(permit, facts) {
        Ok((limits, complete)) => Offer::Grants { limits, complete },
        Err(refused) => Offer::Refuses(refused),
    }
}

fn grant(permit: &Annotations, facts: &Facts<'_>) -> Result<(Limits, bool), Refused> {
    let q = facts.question;
    // What the request lacks comes first: nobody logs in again for what would be refused all the same. What is known of
    // the user comes last: a login that is too weak does not learn it.
    if q.action.mints() {
        reason_and_ticket(permit, facts)?;
    }
    let (scope, complete) = scope(permit, facts)?;
    let audience = if q.action.mints() { audience(permit, facts)? } else { q.audience.clone() };
    step_up(permit, facts)?;
    let mut consent_seconds = None;
    if q.action.mints() {
        consent_seconds = consent(permit, facts)?;
        targets(permit, facts)?;
    }
    let limits = Limits {
        lifetime_seconds: lifetime(permit, facts, consent_seconds)?,
        scope,
        audience,
        require_approval: permit.require_approval,
        break_glass: permit.break_glass,
        max_targets_per_hour: permit.max_targets_per_hour,
        ticket_lookup: permit.ticket_lookup,
        default_reason: permit.default_reason.clone(),
    };
    Ok((limits, complete))
}

fn step_up(permit: &Annotations, facts: &Facts<'_>) -> Result<(), Refused> {
    let actor = &facts.question.actor;
    let class_ok = permit.step_up_acr.is_empty()
        || actor.acr.as_ref().is_some_and(|acr| permit.step_up_acr.contains(acr));
    let method_ok =
        permit.step_up_amr.is_empty() || actor.amr.iter().any(|amr| permit.step_up_amr.contains(amr));
    let age_ok = permit
        .max_login_age
        .is_none_or(|most| facts.login_age_seconds().is_some_and(|age| age <= i64::from(most)));
    if class_ok && method_ok && age_ok {
        return Ok(());
    }
    let methods: Vec<String> = permit.step_up_acr.iter().chain(&permit.step_up_amr).cloned().collect();
    let mut needs = Vec::new();
    if !methods.is_empty() {
        needs.push(format!("by {}", methods.join(" or ")));
    }
    if let Some(most) = permit.max_login_age {
        needs.push(format!("not older than {most} seconds"));
    }
    Err(Refused {
        rule: permit.id.clone(),
        message: format!("The actor has to log in again: {}.", needs.join(", ")),
        refusal: Refusal::StepUp(StepUp { acr_values: methods, max_age_seconds: permit.max_login_age }),
    })
}

fn reason_and_ticket(permit: &Annotations, facts: &Facts<'_>) -> Result<(), Refused> {
    let q = facts.question;
    // A delegation goes on under the reason of the grant it comes from. Another permit's default is none of this one's.
    let given = q.reason.as_deref().is_some_and(|reason| !reason.trim().is_empty());
    if q.action == super::Action::Impersonate && !given && permit.default_reason.is_none() {
        return Err(Refused::by(builtin::REASON_MISSING, "Give a reason."));
    }
    let ticket = q.ticket.as_deref().filter(|t| !t.trim().is_empty());
    if ticket.is_none() && (permit.ticket_lookup || permit.ticket_pattern.is_some()) {
        return Err(Refused::by(&permit.id, "Name the ticket this is about in `ticket`."));
    }
    if let (Some(ticket), Some(pattern)) = (ticket, &permit.ticket_pattern)
        && !pattern.is_match(ticket)
    {
        let shown = pattern.as_str().trim_start_matches(r"\A(?:").trim_end_matches(r")\z");
        return Err(Refused::by(&permit.id, format!("The ticket has to look like {shown}.")));
    }
    Ok(())
}

/// The seconds of consent left, when consent is required and ends.
fn consent(permit: &Annotations, facts: &Facts<'_>) -> Result<Option<u32>, Refused> {
    let Some(required) = permit.require_consent else { return Ok(None) };
    let refused = |why: &str| Err(Refused::by(&permit.id, why));
    let Some(person) = facts.target else { return refused("The user's consent is needed and not known.") };
    if person.opted_out {
        return refused("The user does not want anybody to act for them.");
    }
    match (required, person.consent_until) {
        (Consent::NotRefused, _) => Ok(None),
        (Consent::Given, Some(until)) if until - facts.question.now >= TimeDelta::seconds(1) => {
            let left = (until - facts.question.now).num_seconds();
            Ok(Some(u32::try_from(left).unwrap_or(u32::MAX)))
        }
        (Consent::Given, Some(_)) => refused("The user's consent has ended."),
        (Consent::Given, None) => refused("The user has to consent first."),
    }
}

/// The exact count is the log's, inside the append; what is over already is told here.
fn targets(permit: &Annotations, facts: &Facts<'_>) -> Result<(), Refused> {
    match permit.max_targets_per_hour {
        Some(most) if facts.question.targets_last_hour > most => Err(Refused::by(
            &permit.id,
            format!("The actor has acted for more than {most} different users within the hour."),
        )),
        _ => Ok(()),
    }
}

fn scope(permit: &Annotations, facts: &Facts<'_>) -> Result<(Scope, bool), Refused> {
    let q = facts.question;
    let parsed = |text: &str| Scope::parse(text).expect("a constant scope parses");
    // To approve or to look into the console grants no scope: there is nothing to intersect.
    let asked = q.scope.as_ref().filter(|_| q.action.mints());
    let granted = match (&permit.scope, asked) {
        (Some(Scopes::Any), Some(asked)) => asked.clone(),
        // Nothing asked and everything allowed: the least, except where only everything can be said.
        (Some(Scopes::Any), None) if q.client.clerk => parsed(FULL_ACCESS_SCOPE),
        (Some(Scopes::Any) | None, None) => parsed(DEFAULT_SCOPE),
        (Some(Scopes::Only(most)), None) => most.clone(),
        (Some(Scopes::Only(most)), Some(asked)) => asked.intersection(most),
        (None, Some(asked)) => asked.intersection(&parsed(DEFAULT_SCOPE)),
    };
    if q.action.mints() && granted.is_empty() {
        return Err(Refused::by(
            builtin::SCOPE,
            format!("Rule {} grants none of the scopes asked for.", permit.id),
        ));
    }
    if q.action.mints() && q.client.clerk && !granted.contains(FULL_ACCESS_SCOPE) {
        return Err(Refused::by(
            builtin::CLERK_FULL_ACCESS,
            "A token of profile clerk always means full access, and this grant would be narrower.",
        ));
    }
    let complete = asked.is_none_or(|asked| asked.is_subset_of(&granted));
    Ok((granted, complete))
}

fn audience(permit: &Annotations, facts: &Facts<'_>) -> Result<Vec<Audience>, Refused> {
    let q = facts.question;
    if q.audience.is_empty() {
        // Profile `clerk` has no `aud`; anywhere else a token for nobody in particular is one for everybody.
        return if q.client.clerk {
            Ok(Vec::new())
        } else {
            Err(Refused::by(builtin::AUDIENCE, "Say in `audience` who the token is for."))
        };
    }
    let mut granted: Vec<Audience> = Vec::new();
    for asked in &q.audience {
        let allowed = permit.audience.as_ref().is_none_or(|most| most.contains(asked));
        if allowed && !granted.contains(asked) {
            granted.push(asked.clone());
        }
    }
    let most = permit.max_audiences.unwrap_or(1);
    if granted.is_empty() {
        let why = format!("Rule {} does not grant a token for this audience.", permit.id);
        return Err(Refused::by(builtin::AUDIENCE, why));
    }
    if granted.len() > most as usize {
        let why = format!("Rule {} grants a token for {most} audience(s) at most.", permit.id);
        return Err(Refused::by(builtin::AUDIENCE, why));
    }
    Ok(granted)
}

fn lifetime(permit: &Annotations, facts: &Facts<'_>, consent: Option<u32>) -> Result<u32, Refused> {
    let q = facts.question;
    let (default, cap) = if q.client.clerk {
        (CLERK_LIFETIME_SECONDS, CLERK_LIFETIME_CAP_SECONDS)
    } else {
        (MAX_LIFETIME_SECONDS, LIFETIME_CAP_SECONDS)
    };
    let seconds = q
        .lifetime_seconds
        .unwrap_or(DEFAULT_LIFETIME_SECONDS)
        .min(permit.max_lifetime.unwrap_or(default))
        .min(cap)
        .min(consent.unwrap_or(u32::MAX));
    if seconds == 0 {
        return Err(Refused::by(builtin::LIFETIME, "A lifetime of no seconds allows nothing."));
    }
    Ok(seconds)
}
