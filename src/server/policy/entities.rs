//! A question as Cedar sees it: entities and context.

use std::collections::{BTreeSet, HashSet};
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

/// The words that some rule may name.
///
/// Building entities costs more than judging five rules, and most rules read little. A word counts as named
/// wherever it stands in the text, comments included; an escape (`"n\u{6f}w"`) counts as naming everything.
/// What no rule names cannot change a decision: Cedar has no way to look through all attributes.
#[derive(Debug, Default)]
pub(super) struct Reads {
    everything: bool,
    words: BTreeSet<String>,
}

impl Reads {
    pub(super) fn of<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        let mut out = Self::default();
        for text in texts {
            out.everything |= text.contains('\\');
            out.words.extend(words(text).map(str::to_owned));
        }
        out
    }

    pub(super) fn word(&self, word: &str) -> bool {
        self.everything || self.words.contains(word)
    }
}

/// All words but the names of annotations (`@id`), which no rule reads.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '@'))
        .filter_map(|run| run.split('@').next())
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
    reads: &'a Reads,
}

impl<'a> Facts<'a> {
    pub(super) fn of(question: &'a Question, default_reason: Option<&'a str>, reads: &'a Reads) -> Self {
        let blank = |text: &&str| !text.trim().is_empty();
        Self {
            question,
            actor: question.actor.person.as_ref().filter(|p| p.id.is_some()),
            target: question.target.person.as_ref().filter(|p| p.id.as_ref() == Some(&question.target.id)),
            reason: question.reason.as_deref().filter(blank).or(default_reason),
            reads,
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
        let entities = [
            actor_entity(facts, principal.clone(), &actor_roles)?,
            target_entity(facts, resource.clone())?,
            client_entity(question, facts.reads, client)?,
        ];
        let entities = Entities::from_entities(entities.into_iter().flatten(), None).map_err(not_askable)?;
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

/// Attributes under construction: only those that some rule reads.
struct Attributes<'a> {
    reads: &'a Reads,
    pairs: Vec<(String, Value)>,
}

impl<'a> Attributes<'a> {
    fn new(reads: &'a Reads) -> Self {
        Self { reads, pairs: Vec::with_capacity(12) }
    }

    fn put(&mut self, name: &str, value: impl FnOnce() -> Value) {
        if self.reads.word(name) {
            self.pairs.push((name.to_owned(), value()));
        }
    }

    fn put_some<T>(&mut self, name: &str, from: Option<T>, value: impl FnOnce(T) -> Value) {
        if let Some(from) = from {
            self.put(name, || value(from));
        }
    }
}

/// `None` for one of whom no rule reads anything: his id says who he is, and one without attributes and parents
/// is like one who is not there.
fn entity(
    uid: EntityUid,
    attributes: Attributes<'_>,
    parents: HashSet<EntityUid>,
) -> Result<Option<Entity>, NotAskable> {
    if attributes.pairs.is_empty() && parents.is_empty() {
        return Ok(None);
    }
    Entity::new_with_tags(uid, attributes.pairs, parents, []).map(Some).map_err(not_askable)
}

fn parents<'a>(
    reads: &Reads,
    roles: impl IntoIterator<Item = &'a str>,
    groups: impl IntoIterator<Item = &'a str>,
    org: Option<&'a str>,
) -> HashSet<EntityUid> {
    let names = &*NAMES;
    let mut out = HashSet::new();
    if reads.word("Role") {
        out.extend(roles.into_iter().map(|r| uid(&names.role, r)));
    }
    if reads.word("Group") {
        out.extend(groups.into_iter().map(|g| uid(&names.group, g)));
    }
    if reads.word("Org") {
        out.extend(org.map(|o| uid(&names.org, o)));
    }
    out
}

fn actor_entity(
    facts: &Facts<'_>,
    uid: EntityUid,
    roles: &HashSet<&str>,
) -> Result<Option<Entity>, NotAskable> {
    let actor = &facts.question.actor;
    let org = facts.actor_org();
    let mut at = Attributes::new(facts.reads);
    at.put("sub", || text(actor.act.sub.as_str()));
    if actor.assurance == Assurance::Verified {
        at.put_some("iss", actor.act.iss.as_ref(), |iss| text(iss.as_str()));
    }
    at.put("assurance", || text(actor.assurance.as_str()));
    at.put("known", || Value::new_bool(facts.actor.is_some()));
    at.put_some("id", facts.actor.and_then(|p| p.id.as_ref()), |id| text(id.as_str()));
    at.put_some("active", facts.actor, |p| Value::new_bool(p.active));
    at.put_some("org", org, text);
    at.put("roles", || texts(roles.iter().copied()));
    at.put_some("acr", actor.acr.as_deref(), text);
    at.put("amr", || texts(actor.amr.iter().map(String::as_str)));
    at.put_some("login_age", facts.login_age_seconds(), Value::new_long);
    entity(uid, at, parents(facts.reads, roles.iter().copied(), facts.actor_groups(), org))
}

fn target_entity(facts: &Facts<'_>, uid: EntityUid) -> Result<Option<Entity>, NotAskable> {
    let roles = || facts.target.into_iter().flat_map(|p| &p.roles).map(String::as_str);
    let groups = facts.target.into_iter().flat_map(|p| &p.groups).map(String::as_str);
    let org = facts.target.and_then(|p| p.org.as_deref());
    let mut at = Attributes::new(facts.reads);
    at.put("id", || text(facts.question.target.id.as_str()));
    at.put("known", || Value::new_bool(facts.target.is_some()));
    at.put_some("active", facts.target, |p| Value::new_bool(p.active));
    at.put_some("org", org, text);
    at.put("roles", || texts(roles()));
    at.put_some("opted_out", facts.target, |p| Value::new_bool(p.opted_out));
    at.put_some("consent_until", facts.target.and_then(|p| p.consent_until), moment);
    entity(uid, at, parents(facts.reads, roles(), groups, org))
}

fn client_entity(question: &Question, reads: &Reads, uid: EntityUid) -> Result<Option<Entity>, NotAskable> {
    let mut at = Attributes::new(reads);
    at.put("name", || text(&question.client.name));
    at.put("clerk", || Value::new_bool(question.client.clerk));
    at.put("may_assert", || Value::new_bool(question.client.may_assert));
    entity(uid, at, HashSet::new())
}

fn context(facts: &Facts<'_>, actor_roles: &HashSet<&str>, client: EntityUid) -> Result<Context, NotAskable> {
    let q = facts.question;
    let mut at = Attributes::new(facts.reads);
    at.put("client", || Value::new_entity_uid(client));
    at.put_some("reason", facts.reason, text);
    at.put("reason_length", || Value::new_long(facts.reason.map_or(0, reason_length)));
    at.put_some("ticket", q.ticket.as_deref(), text);
    at.put("lifetime", || Value::new_long(q.lifetime_seconds.unwrap_or(DEFAULT_LIFETIME_SECONDS).into()));
    at.put_some("scope", q.scope.as_ref(), |scope| texts(scope.iter()));
    at.put("audience", || texts(q.audience.iter().map(crate::token::Audience::as_str)));
    at.put("delivery", || text(if q.by_code { "code" } else { "token" }));
    at.put("now", || moment(q.now));
    at.put("weekday", || Value::new_long(q.now.weekday().number_from_monday().into()));
    // An IPv4 client behind a dual-stack listener is still an IPv4 client to a rule.
    at.put_some("address", q.address, |a| Value::new_ip(a.to_canonical().to_string()));
    at.put("targets_last_hour", || Value::new_long(q.targets_last_hour.into()));
    at.put("depth", || Value::new_long(i64::try_from(q.actor.act.chain().count()).unwrap_or(i64::MAX)));
    at.put("roles_beyond_actor", || {
        let roles = facts.target.into_iter().flat_map(|p| &p.roles).map(String::as_str);
        texts(roles.filter(|r| !actor_roles.contains(r)))
    });
    Context::from_pairs(at.pairs).map_err(not_askable)
}

fn reason_length(reason: &str) -> i64 {
    i64::try_from(reason.trim().chars().count()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use cedar_policy::Schema;
    use serde_json::json;

    use super::*;
    use crate::server::policy::load::PARSED_SCHEMA;
    use crate::server::policy::question_from_json;

    fn noon() -> DateTime<Utc> {
        "2026-01-05T12:00:00Z".parse().unwrap()
    }

    /// Facts with everything there is, and with nothing that may be left out.
    fn full_and_bare() -> [Question; 2] {
        let full = json!({
            "actor": { "sub": "a", "iss": "https://i", "roles": ["r"], "groups": ["g"], "org": "o",
                "acr": "gold", "amr": ["mfa"], "login_age": 5, "directory": { "roles": ["s"], "org": "p" } },
            "target": { "id": "t", "directory": { "roles": ["u"], "groups": ["h"], "org": "p",
                "consent_until": "2026-01-06T00:00:00Z" } },
            "client": { "id": "client_1", "name": "n" }, "reason": "why", "ticket": "T", "lifetime": 5,
            "scope": "read", "audience": ["https://x"], "delivery": "code", "address": "::ffff:192.0.2.1"
        });
        let bare =
            json!({ "actor": { "sub": "a" }, "target": { "id": "t" }, "client": { "id": "client_1" } });
        [full, bare].map(|facts| question_from_json(facts, noon()).unwrap())
    }

    #[test]
    fn what_is_built_is_what_the_schema_says() {
        let schema: &Schema = &PARSED_SCHEMA;
        let everything = Reads { everything: true, ..Reads::default() };
        for question in full_and_bare() {
            let facts = Facts::of(&question, None, &everything);
            let asked = Asked::build(&facts).unwrap();
            let entities: Vec<Entity> = asked.entities.iter().cloned().collect();
            Entities::from_entities(entities, Some(schema)).unwrap();
            for action in [
                "impersonate",
                "delegate",
                "approve",
                LOOK_UP,
                "console:support",
                "console:audit",
                "console:revoke",
            ] {
                let request = asked.request(action).unwrap();
                let (Some(principal), Some(action), Some(resource), Some(context)) =
                    (request.principal(), request.action(), request.resource(), request.context())
                else {
                    panic!("a request without unknowns")
                };
                Request::new(
                    principal.clone(),
                    action.clone(),
                    resource.clone(),
                    context.clone(),
                    Some(schema),
                )
                .unwrap();
            }
        }
    }

    #[test]
    fn a_word_is_noticed_however_it_is_written() {
        for reads in
            ["context.now", "context has now", "context[\"now\"]", r#"context["n\u{6f}w"]"#, "// now"]
        {
            assert!(Reads::of([reads].into_iter()).word("now"), "{reads}");
        }
        for not in ["principal.known", "context.known_now", "nowhere", "", "@now(\"noon\")"] {
            assert!(!Reads::of([not].into_iter()).word("now"), "{not}");
        }
        assert!(Reads::of(["", "resource in Org::\"x\""].into_iter()).word("Org"));
    }

    #[test]
    fn the_actor_is_named_by_issuer_and_name_and_never_by_one_that_reads_as_another() {
        let [full, bare] = full_and_bare();
        assert_eq!(actor_id(&full), "https://i#a");
        assert_eq!(actor_id(&bare), "#a");
        let mut odd = full;
        odd.actor.act.iss = Some("https://i#a%23".parse().unwrap());
        assert_eq!(actor_id(&odd), "https://i%23a%2523#a");
        odd.actor.assurance = Assurance::Asserted;
        assert_eq!(actor_id(&odd), "#a");
    }
}
