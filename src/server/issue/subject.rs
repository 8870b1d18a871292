//! Whom a request is about: an id, a client's signed word, or an actor token to act on with.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value};

use super::attempt::{Denial, Subject};
use super::{Caller, IssueDesk};
use crate::server::policy::ActorFacts;
use crate::token::jws::UnverifiedJws;
use crate::token::{Act, Assurance, Audience, GrantId, Scope, Sub};

/// The longest subject token looked at, bytes.
const MAX_SUBJECT_TOKEN_BYTES: usize = 8 * 1024;
/// How far two machines' clocks may differ.
const LEEWAY: TimeDelta = TimeDelta::seconds(5);
/// How long a client's own JWT may live: as long as one that it proves itself with (PK-3, PK-8).
const MAX_LIFE: TimeDelta = TimeDelta::minutes(5);

/// The target user, and what bounds acting for him.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Whom for.
    pub id: Sub,
    /// The actor token that is acted on with; what comes of it never exceeds it.
    pub parent: Option<Parent>,
    /// Who may act, if the subject token says so (RFC 8693 §4.4, TE-10).
    pub may_act: Option<Value>,
}

impl Target {
    /// TE-9: the new actor outermost, those of the parent nested in him, none dropped. Whoever acts for somebody
    /// himself has a chain of his own, and one would be lost.
    pub(super) fn put_behind(&self, actor: &mut ActorFacts) -> Result<(), Denial> {
        let Some(parent) = &self.parent else { return Ok(()) };
        if actor.act.act.is_some() {
            return Err(Denial::actor_token("its holder acts for somebody himself (it carries `act`)"));
        }
        actor.act.act = Some(Box::new(parent.act.clone()));
        Ok(())
    }

    /// How sure it is who acts, of the whole chain: what somebody only said is not proven by who acts behind him.
    pub(super) fn assurance(&self, actor: &ActorFacts) -> Assurance {
        match &self.parent {
            Some(parent) if parent.assurance == Assurance::Asserted => Assurance::Asserted,
            _ => actor.assurance,
        }
    }
}

/// The grant behind an actor token that is acted on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// The grant.
    pub grant: GrantId,
    /// When it ends: the delegated token ends no later.
    pub exp: DateTime<Utc>,
    /// What it allows: the delegated token allows no more.
    pub scope: Scope,
    /// Who it is for: the delegated token is for nobody else.
    pub aud: Vec<Audience>,
    /// Who acts already: nested below the new actor (TE-9).
    pub act: Act,
    /// How sure that is.
    pub assurance: Assurance,
}

impl IssueDesk {
    /// Reads the subject of a request.
    pub(super) fn target(
        &self,
        caller: &Caller<'_>,
        subject: &Subject,
        now: DateTime<Utc>,
    ) -> Result<Target, Denial> {
        match subject {
            Subject::Id(id) => Ok(Target { id: id.clone(), parent: None, may_act: None }),
            Subject::SignedByClient(token) => self.signed_by_client(caller, token, now),
            Subject::ActorToken(token) => self.actor_token(caller, token),
        }
    }

    /// An actor token of ours, valid now and for this client.
    fn actor_token(&self, caller: &Caller<'_>, token: &str) -> Result<Target, Denial> {
        let verified = self
            .checker
            .verify_for(caller.client, token, None)
            .map_err(|invalid| Denial::subject_token(&invalid.to_string()))?;
        let grant = verified.sid.as_deref().and_then(|sid| GrantId::try_from(sid).ok());
        let (Some(act), Some(grant)) = (verified.actor.clone(), grant) else {
            return Err(Denial::subject_token("it names no actor or no grant"));
        };
        Ok(Target {
            id: verified.sub.clone(),
            may_act: verified.claims.get("may_act").cloned(),
            parent: Some(Parent {
                grant,
                exp: verified.exp,
                scope: verified.scope.clone(),
                aud: verified.aud.clone(),
                act,
                assurance: verified.assurance.unwrap_or(Assurance::Asserted),
            }),
        })
    }

    /// A JWT by the client's own key: `iss` is the client, `aud` this service or its token endpoint (PK-8).
    fn signed_by_client(
        &self,
        caller: &Caller<'_>,
        token: &str,
        now: DateTime<Utc>,
    ) -> Result<Target, Denial> {
        let wrong = Denial::subject_token;
        let keys =
            caller.client.assertion_keys().ok_or_else(|| wrong("this client has no keys registered"))?;
        let jws = UnverifiedJws::parse(token, MAX_SUBJECT_TOKEN_BYTES).map_err(|e| wrong(&e.to_string()))?;
        let typ = jws.unverified_header().typ.as_deref().unwrap_or("jwt");
        if !typ.eq_ignore_ascii_case("jwt") {
            return Err(wrong("its typ is of another kind of token"));
        }
        let claims = jws.unverified_claims().map_err(|e| wrong(&e.to_string()))?;
        jws.verify(&keys).map_err(|e| wrong(&e.to_string()))?;
        if text(&claims, "iss") != Some(caller.client.id.as_str()) {
            return Err(wrong("iss must be the client's id"));
        }
        let endpoint = format!("{}/oauth/token", self.issuer);
        let for_us = |aud: &Value| aud.as_str().is_some_and(|a| a == self.issuer.as_str() || a == endpoint);
        match claims.get("aud") {
            Some(Value::Array(list)) if list.len() == 1 && for_us(&list[0]) => {}
            Some(one) if for_us(one) => {}
            _ => return Err(wrong("aud must be this service alone")),
        }
        let exp = claims.get("exp").and_then(Value::as_i64).ok_or_else(|| wrong("exp is missing"))?;
        if exp <= (now - LEEWAY).timestamp() || exp > (now + MAX_LIFE + LEEWAY).timestamp() {
            return Err(wrong("it has expired, or lives longer than five minutes"));
        }
        for name in ["nbf", "iat"] {
            if claims.get(name).is_some_and(|t| t.as_i64().is_none_or(|t| t > (now + LEEWAY).timestamp())) {
                return Err(wrong("it is not valid yet"));
            }
        }
        let sub = text(&claims, "sub").ok_or_else(|| wrong("sub is missing"))?;
        if claims.contains_key("act") || claims.contains_key("cnf") {
            return Err(wrong("it carries act or cnf"));
        }
        Ok(Target {
            id: Sub::try_from(sub).map_err(|_| wrong("sub is not an id"))?,
            parent: None,
            may_act: claims.get("may_act").cloned(),
        })
    }
}

fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    claims.get(name).and_then(Value::as_str)
}

/// Whether `may_act` names this actor: every member that we know must match (TE-10).
pub fn may_act_allows(may_act: &Value, actor: &Act, client: &str) -> bool {
    let Some(members) = may_act.as_object() else { return false };
    if !["sub", "iss", "client_id"].iter().any(|name| members.contains_key(*name)) {
        return false;
    }
    members.iter().all(|(name, value)| match name.as_str() {
        "sub" => value.as_str() == Some(actor.sub.as_str()),
        "iss" => value.as_str().is_some_and(|iss| actor.iss.as_ref().is_some_and(|own| own.as_str() == iss)),
        "client_id" => value.as_str() == Some(client),
        _ => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn te_10_may_act_must_name_the_actor() {
        let actor = Act {
            sub: Sub::try_from("admin_7").unwrap(),
            iss: Some("https://idp.example".parse().unwrap()),
            act: None,
        };
        for (may_act, allowed) in [
            (json!({"sub": "admin_7"}), true),
            (json!({"sub": "admin_7", "iss": "https://idp.example"}), true),
            (json!({"client_id": "client_a"}), true),
            (json!({"sub": "admin_7", "iss": "https://other.example"}), false),
            (json!({"sub": "admin_8"}), false),
            (json!({"sub": "admin_7", "client_id": "client_b"}), false),
            (json!({"email": "a@example"}), false),
            (json!({}), false),
            (json!("admin_7"), false),
            (json!({"sub": ["admin_7"]}), false),
        ] {
            assert_eq!(may_act_allows(&may_act, &actor, "client_a"), allowed, "{may_act}");
        }
        let named_by_nobody = Act { iss: None, ..actor };
        for iss in [json!(null), json!(5), json!([]), json!("https://idp.example")] {
            assert!(!may_act_allows(&json!({ "iss": iss }), &named_by_nobody, "client_a"), "{iss}");
        }
    }
}
