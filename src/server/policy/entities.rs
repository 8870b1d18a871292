//! A question as Cedar sees it: entities and context.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression as Value,
};
use chrono::{DateTime, Datelike, Utc};

use super::{Action, DEFAULT_LIFETIME_SECONDS, Person, Question};
use crate::token::Assurance;

/// The names of the schema, parsed once.
struct Names {
    actor: EntityTypeName,
    target: EntityTypeName,
    client: EntityTypeName,
    role: EntityTypeName,
    group: EntityTypeName,
    org: EntityTypeName,
    action: EntityTypeName,
}

static NAMES: LazyLock<Names> = LazyLock::new(|| {
    let name = |text: &str| text.parse().expect("a plain name is an entity type");
    Names {
        actor: name("Actor"),
        target: name("Target"),
        client: name("Client"),
        role: name("Role"),
        group: name("Group"),
        org: name("Org"),
        action: name("Action"),
    }
});

/// The action that asks whether an actor may be told that a user does not exist.
pub(super) const LOOK_UP: &str = "look_up";

impl Action {
    /// The action's name in the policy.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Impersonate => "impersonate",
            Self::Delegate => "delegate",
            Self::Approve => "approve",
            Self::ConsoleSupport => "console:support",
            Self::ConsoleAudit => "console:audit",
            Self::ConsoleRevoke => "console:revoke",
        }
    }

    /// Whether a token comes of it.
    pub(super) const fn mints(self) -> bool {
        matches!(self, Self::Impersonate | Self::Delegate)
    }
}

/// A question with what the directory says made certain: a record that lies about the id is no record.
pub(super) struct Facts<'a> {
    pub(super) question: &'a Question,
    /// The directory's record of the actor, when it names him.
    pub(super) actor: Option<&'a Person>,
    /// The directory's record of exactly this target.
    pub(super) target: Option<&'a Person>,
    /// The reason given, or the one the policy supplies for this client.
    pub(super) reason: Option<&'a str>,
}

impl<'a> Facts<'a> {
    pub(super) fn of(question: &'a Question, default_reason: Option<&'a str>) -> Self {
        let blank = |text: &&str| !text.trim().is_empty();
        Self {
            question,
            actor: question.actor.person.as_ref().filter(|p| p.id.is_some()),
            target: question.target.person.as_ref().filter(|p| p.id.as_ref() == Some(&question.target.id)),
            reason: question.reason.as_deref().filter(blank).or(default_reason),
        }
    }

    /// The actor's organisation: the directory's word before his token's.
    pub(super) fn actor_org(&self) -> Option<&'a str> {
        self.actor.and_then(|p| p.org.as_deref()).or(self.question.actor.org.as_deref())
    }

    /// Seconds since the actor logged in; `None` when not known or not yet.
    pub(super) fn login_age_seconds(&self) -> Option<i64> {
        let at = self.question.actor.auth_time?;
        let age = self.question.now.signed_duration_since(at).num_seconds();
        // Clocks differ by a little; a login that lies further ahead is no login.
        (age >= -60).then_some(age.max(0))
    }

    fn actor_roles(&self) -> HashSet<&'a str> {
        let directory = self.actor.map(|p| p.roles.as_slice()).unwrap_or_default();
        self.question.actor.roles.iter().chain(directory).map(String::as_str).collect()
    }

    fn actor_groups(&self) -> HashSet<&'a str> {
        let directory = self.actor.map(|p| p.groups.as_slice()).unwrap_or_default();
        self.question.actor.groups.iter().chain(directory).map(String::as_str).collect()
    }
}

/// The question in Cedar's terms.
pub(super) struct Asked {
    principal: EntityUid,
    resource: EntityUid,
    context: Context,
    pub(super) entities: Entities,
}

/// The question cannot be put in Cedar's terms: a time or an address it cannot hold.
#[derive(Debug, thiserror::Error)]
#[error("the question cannot be put to the policy: {0}")]
pub(super) struct NotAskable(String);

fn not_askable(error: impl std::error::Error) -> NotAskable {
    NotAskable(error.to_string())
}

impl Asked {
    /// Builds entities and context. They are not checked against the schema here, which would cost more
    /// than the decision; a test does it for every kind of question.
    pub(super) fn build(facts: &Facts<'_>) -> Result<Self, NotAskable> {
        let names = &*NAMES;
        let question = facts.question;
        let principal = uid(&names.actor, &actor_id(question));
        let resource = uid(&names.target, question.target.id.as_str());
        let client = uid(&names.client, question.client.id.as_str());
        let actor_roles = facts.actor_roles();
        let context = context(facts, &actor_roles, client.clone())?;
        let entities = Entities::from_entities(
            [
                actor_entity(facts, principal.clone(), &actor_roles)?,
                target_entity(facts, resource.clone())?,
                client_entity(question, client)?,
            ],
            None,
        )
        .map_err(not_askable)?;
        Ok(Self { principal, resource, context, entities })
    }

    /// The request for an action of the schema.
    pub(super) fn request(&self, action: &str) -> Result<Request, NotAskable> {
        let action = uid(&NAMES.action, action);
        Request::new(self.principal.clone(), action, self.resource.clone(), self.context.clone(), None)
            .map_err(not_askable)
    }
}

/// `<iss>#<sub>` for who proved himself, `#<sub>` for who was merely named: one never reads as the other,
/// whatever an issuer or a client calls people. An issuer holds no `#` (RFC 8414 §2); one that does is escaped.
fn actor_id(question: &Question) -> String {
    let act = &question.actor.act;
    match (question.actor.assurance, &act.iss) {
        (Assurance::Verified, Some(iss)) => {
            let iss = iss.as_str();
            if iss.contains('#') {
                format!("{}#{}", iss.replace('%', "%25").replace('#', "%23"), act.sub)
            } else {
                format!("{iss}#{}", act.sub)
            }
        }
        _ => format!("#{}", act.sub),
    }
}

fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

fn text(value: &str) -> Value {
    Value::new_string(value.to_owned())
}

fn texts<'a>(values: impl IntoIterator<Item = &'a str>) -> Value {
    Value::new_set(values.into_iter().map(text))
}

fn moment(at: DateTime<Utc>) -> Value {
    Value::new_datetime(at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

type Attributes = HashMap<String, Value>;

fn put(attributes: &mut Attributes, name: &str, value: Value) {
    attributes.insert(name.to_owned(), value);
}

fn put_some(attributes: &mut Attributes, name: &str, value: Option<Value>) {
    if let Some(value) = value {
        put(attributes, name, value);
    }
}

fn parents<'a>(
    roles: impl IntoIterator<Item = &'a str>,
    groups: impl IntoIterator<Item = &'a str>,
    org: Option<&'a str>,
) -> HashSet<EntityUid> {
    let names = &*NAMES;
    roles
        .into_iter()
        .map(|r| uid(&names.role, r))
        .chain(groups.into_iter().map(|g| uid(&names.group, g)))
        .chain(org.map(|o| uid(&names.org, o)))
        .collect()
}

fn actor_entity(facts: &Facts<'_>, uid: EntityUid, roles: &HashSet<&str>) -> Result<Entity, NotAskable> {
    let actor = &facts.question.actor;
    let org = facts.actor_org();
    let mut at = Attributes::with_capacity(11);
    put(&mut at, "sub", text(actor.act.sub.as_str()));
    if actor.assurance == Assurance::Verified {
        put_some(&mut at, "iss", actor.act.iss.as_ref().map(|i| text(i.as_str())));
    }
    put(&mut at, "assurance", text(actor.assurance.as_str()));
    put(&mut at, "known", Value::new_bool(facts.actor.is_some()));
    if let Some(person) = facts.actor {
        put_some(&mut at, "id", person.id.as_ref().map(|id| text(id.as_str())));
        put(&mut at, "active", Value::new_bool(person.active));
    }
    put_some(&mut at, "org", org.map(text));
    put(&mut at, "roles", texts(roles.iter().copied()));
    put_some(&mut at, "acr", actor.acr.as_deref().map(text));
    put(&mut at, "amr", texts(actor.amr.iter().map(String::as_str)));
    put_some(&mut at, "login_age", facts.login_age_seconds().map(Value::new_long));
    Entity::new(uid, at, parents(roles.iter().copied(), facts.actor_groups(), org)).map_err(not_askable)
}

fn target_entity(facts: &Facts<'_>, uid: EntityUid) -> Result<Entity, NotAskable> {
    let mut at = Attributes::with_capacity(7);
    put(&mut at, "id", text(facts.question.target.id.as_str()));
    put(&mut at, "known", Value::new_bool(facts.target.is_some()));
    let Some(person) = facts.target else {
        put(&mut at, "roles", texts([]));
        return Entity::new(uid, at, HashSet::new()).map_err(not_askable);
    };
    let roles = || person.roles.iter().map(String::as_str);
    put(&mut at, "active", Value::new_bool(person.active));
    put_some(&mut at, "org", person.org.as_deref().map(text));
    put(&mut at, "roles", texts(roles()));
    put(&mut at, "opted_out", Value::new_bool(person.opted_out));
    put_some(&mut at, "consent_until", person.consent_until.map(moment));
    let groups = person.groups.iter().map(String::as_str);
    Entity::new(uid, at, parents(roles(), groups, person.org.as_deref())).map_err(not_askable)
}

fn client_entity(question: &Question, uid: EntityUid) -> Result<Entity, NotAskable> {
    let mut at = Attributes::with_capacity(3);
    put(&mut at, "name", text(&question.client.name));
    put(&mut at, "clerk", Value::new_bool(question.client.clerk));
    put(&mut at, "may_assert", Value::new_bool(question.client.may_assert));
    Entity::new(uid, at, HashSet::new()).map_err(not_askable)
}

fn context(facts: &Facts<'_>, actor_roles: &HashSet<&str>, client: EntityUid) -> Result<Context, NotAskable> {
    let q = facts.question;
    let mut at = Vec::with_capacity(15);
    let mut put = |name: &str, value: Value| at.push((name.to_owned(), value));
    put("client", Value::new_entity_uid(client));
    if let Some(reason) = facts.reason {
        put("reason", text(reason));
    }
    put("reason_length", Value::new_long(facts.reason.map_or(0, reason_length)));
    if let Some(ticket) = q.ticket.as_deref() {
        put("ticket", text(ticket));
    }
    put("lifetime", Value::new_long(q.lifetime_seconds.unwrap_or(DEFAULT_LIFETIME_SECONDS).into()));
    if let Some(scope) = &q.scope {
        put("scope", texts(scope.iter()));
    }
    put("audience", texts(q.audience.iter().map(crate::token::Audience::as_str)));
    put("delivery", text(if q.by_code { "code" } else { "token" }));
    put("now", moment(q.now));
    put("weekday", Value::new_long(q.now.weekday().number_from_monday().into()));
    if let Some(address) = q.address {
        // An IPv4 client behind a dual-stack listener is still an IPv4 client to a rule.
        put("address", Value::new_ip(address.to_canonical().to_string()));
    }
    put("targets_last_hour", Value::new_long(q.targets_last_hour.into()));
    put("depth", Value::new_long(i64::try_from(q.actor.act.chain().count()).unwrap_or(i64::MAX)));
    let target_roles = facts.target.map(|p| p.roles.as_slice()).unwrap_or_default();
    let beyond = target_roles.iter().map(String::as_str).filter(|r| !actor_roles.contains(r));
    put("roles_beyond_actor", texts(beyond));
    Context::from_pairs(at).map_err(not_askable)
}

fn reason_length(reason: &str) -> i64 {
    i64::try_from(reason.trim().chars().count()).unwrap_or(i64::MAX)
}
