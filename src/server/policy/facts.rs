//! A question written down: the facts of a test case or of `policy explain`, as JSON.

use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::Value;

use super::{Action, ActorFacts, ClientFacts, Person, Question, TargetFacts};
use crate::token::{Act, Assurance, Audience, ClientId, Issuer, Scope, Sub};

/// Why facts are not a question.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// A member is unknown, missing or of the wrong kind.
    #[error("{0}")]
    Invalid(#[from] serde_json::Error),
    /// A member cannot have this value.
    #[error("`{0}` cannot be {1}")]
    Value(&'static str, String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default = "impersonate")]
    action: String,
    actor: WrittenActor,
    target: WrittenTarget,
    client: WrittenClient,
    reason: Option<String>,
    ticket: Option<String>,
    lifetime: Option<u32>,
    scope: Option<String>,
    #[serde(default)]
    audience: Vec<Audience>,
    delivery: Option<String>,
    now: Option<DateTime<Utc>>,
    address: Option<IpAddr>,
    #[serde(default)]
    targets_last_hour: u32,
}

fn impersonate() -> String {
    Action::Impersonate.as_str().to_owned()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenActor {
    sub: Sub,
    iss: Option<Issuer>,
    assurance: Option<Assurance>,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    groups: Vec<String>,
    org: Option<String>,
    acr: Option<String>,
    #[serde(default)]
    amr: Vec<String>,
    login_age: Option<i64>,
    /// Who acted before, the latest first.
    #[serde(default)]
    on_behalf_of: Vec<WrittenEarlier>,
    known: Option<bool>,
    directory: Option<WrittenPerson>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenEarlier {
    sub: Sub,
    iss: Option<Issuer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTarget {
    id: Sub,
    known: Option<bool>,
    directory: Option<WrittenPerson>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPerson {
    id: Option<Sub>,
    #[serde(default = "yes")]
    active: bool,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    groups: Vec<String>,
    org: Option<String>,
    consent_until: Option<DateTime<Utc>>,
    #[serde(default)]
    opted_out: bool,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenClient {
    id: ClientId,
    #[serde(default)]
    name: String,
    #[serde(default)]
    may_assert: bool,
    #[serde(default)]
    clerk: bool,
}

/// Reads a question from JSON (docs/policy.md, "Facts"). `now` is used where the facts name no time.
///
/// # Errors
/// The JSON is not a question: a member is unknown, missing, of the wrong kind, or has an impossible value.
pub fn question_from_json(facts: Value, now: DateTime<Utc>) -> Result<Question, FactsError> {
    let written: Written = serde_json::from_value(facts)?;
    let now = written.now.unwrap_or(now);
    let actor = actor_facts(written.actor, now)?;
    let issuer = actor.act.iss.clone();
    Ok(Question {
        action: action(&written.action)?,
        actor,
        target: TargetFacts {
            person: person(written.target.known, written.target.directory, &written.target.id),
            id: written.target.id,
        },
        client: ClientFacts {
            id: written.client.id,
            name: written.client.name,
            may_assert: written.client.may_assert,
            clerk: written.client.clerk,
        },
        reason: there(written.reason),
        ticket: there(written.ticket),
        lifetime_seconds: written.lifetime,
        scope: there(written.scope)
            .map(|s| Scope::parse(&s).map_err(|e| FactsError::Value("scope", format!("{s:?}: it {e}"))))
            .transpose()?,
        audience: written.audience,
        by_code: match written.delivery.as_deref() {
            None | Some("token") => false,
            Some("code") => true,
            Some(other) => return Err(FactsError::Value("delivery", format!("{other:?}"))),
        },
        now,
        address: written.address,
        targets_last_hour: written.targets_last_hour,
        issuer,
    })
}

fn action(name: &str) -> Result<Action, FactsError> {
    [
        Action::Impersonate,
        Action::Delegate,
        Action::Approve,
        Action::ConsoleSupport,
        Action::ConsoleAudit,
        Action::ConsoleRevoke,
    ]
    .into_iter()
    .find(|a| a.as_str() == name)
    .ok_or_else(|| FactsError::Value("action", format!("{name:?}")))
}

fn actor_facts(written: WrittenActor, now: DateTime<Utc>) -> Result<ActorFacts, FactsError> {
    let assurance = written.assurance.unwrap_or(if written.iss.is_some() {
        Assurance::Verified
    } else {
        Assurance::Asserted
    });
    let earlier = written
        .on_behalf_of
        .into_iter()
        .rev()
        .fold(None, |act, e| Some(Box::new(Act { sub: e.sub, iss: e.iss, act })));
    let auth_time = match written.login_age {
        None => None,
        Some(age) => Some(
            TimeDelta::try_seconds(age)
                .and_then(|age| now.checked_sub_signed(age))
                .ok_or_else(|| FactsError::Value("login_age", age.to_string()))?,
        ),
    };
    Ok(ActorFacts {
        person: person(written.known, written.directory, &written.sub),
        directory_id: Some(written.sub.clone()),
        act: Act { sub: written.sub, iss: written.iss, act: earlier },
        assurance,
        roles: written.roles,
        groups: written.groups,
        org: there(written.org),
        acr: there(written.acr),
        amr: written.amr,
        auth_time,
    })
}

/// The directory's record; `known = false` takes away one that a base supplied.
fn person(known: Option<bool>, written: Option<WrittenPerson>, id: &Sub) -> Option<Person> {
    let written = written.filter(|_| known != Some(false))?;
    Some(Person {
        id: Some(written.id.unwrap_or_else(|| id.clone())),
        display_name: None,
        active: written.active,
        roles: written.roles,
        groups: written.groups,
        org: there(written.org),
        consent_until: written.consent_until,
        opted_out: written.opted_out,
    })
}

/// An empty text takes away what a base supplied.
fn there(text: Option<String>) -> Option<String> {
    text.filter(|t| !t.is_empty())
}
