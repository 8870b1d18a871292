//! From an [`Event`] to what is stored: the JCS body that is hashed, the salted disclosures that can be
//! erased, and the columns that are searched.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::ser::{SerializeMap as _, SerializeSeq as _};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::record::{Event, EventType, Personal};
use super::tree::{Hash, leaf_hash, sha256};
use crate::server::store::append::StoredPrivate;
use crate::token::Entropy;

/// The most bytes a body may have: entry bundles carry a 16-bit length.
pub const MAX_BODY_BYTES: usize = 65_535;
/// What the digits of a time take at the most, with sign.
const MAX_TIME_DIGITS: usize = 20;
/// Integers beyond this are not the same in every JSON reader (restricted profile).
const MAX_INTEGER: u64 = (1 << 53) - 1;

/// Why an event cannot be written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// More than [`MAX_BODY_BYTES`].
    #[error("the entry would be longer than 65535 bytes")]
    TooLong,
    /// `detail` holds a fraction, an integer of 2^53 or more, a non-ASCII name, or nests too deep.
    #[error("the entry's detail is outside the restricted JSON profile")]
    Profile,
}

/// Why the time of an entry is not simply the clock's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockFlag {
    /// The clock stood behind the log: the last entry's time was taken.
    Behind,
    /// The clock had jumped: the time was carried on from before the jump.
    Jumped,
}

impl ClockFlag {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Behind => "behind",
            Self::Jumped => "jumped",
        }
    }
}

/// One entry, ready to be inserted.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// What is hashed and stored.
    pub body: Vec<u8>,
    /// `SHA-256(0x00 ‖ body)`.
    pub leaf: Hash,
    /// What can be erased; `None` when the event names nobody.
    pub private: Option<StoredPrivate>,
    /// What is searched and is not personal.
    pub index: IndexRow,
}

/// A row of `audit_index`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexRow {
    /// The id of the token this entry released.
    pub jti: Option<String>,
    /// The first eight bytes of its `signed_sha256`.
    pub signed8: Option<i64>,
    /// The entry's type.
    pub typ: &'static str,
    /// How the attempt ended.
    pub decision: Option<&'static str>,
    /// Through which client.
    pub client: Option<String>,
    /// By which rule.
    pub rule: Option<String>,
    /// The grant it made or touched.
    pub grant_id: Option<String>,
}

/// The body's fields before `t`, in the order JCS wants (ASCII names, sorted).
#[derive(Serialize)]
struct Before<'e> {
    #[serde(skip_serializing_if = "Option::is_none")]
    act_sd: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    addr_sd: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    assurance: Option<&'static str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    aud: &'e [crate::token::Audience],
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clock: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Sorted<'e>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grant: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason_sd: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    req: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signed_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub_sd: Option<&'e str>,
}

/// The fields after `t`.
#[derive(Serialize)]
struct After<'e> {
    #[serde(skip_serializing_if = "Option::is_none")]
    ticket_sd: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u32>,
    typ: &'static str,
    v: u8,
}

/// An event written down but for the time of its entry, which only the log's lock tells. Whoever records
/// makes it himself, so that everybody else's wait for the lock holds nothing of it.
#[derive(Debug)]
pub struct Draft {
    /// The body up to the value of `t`, with room for it.
    before: Vec<u8>,
    /// The body after it.
    after: Vec<u8>,
    private: Option<StoredPrivate>,
    index: IndexRow,
}

impl Draft {
    /// Writes `event` down; salts come from `entropy`.
    ///
    /// # Errors
    /// An event outside the profile or too long.
    pub fn of(event: &Event, clock: Option<ClockFlag>, entropy: &dyn Entropy) -> Result<Self, BodyError> {
        if let Some(detail) = &event.detail {
            check_profile(detail.values(), detail.keys(), 0)?;
        }
        let disclosures = Disclosures::of(&event.personal, entropy);
        let before = Before {
            act_sd: disclosures.digest("act"),
            addr_sd: disclosures.digest("addr"),
            assurance: event.assurance.map(crate::token::Assurance::as_str),
            aud: &event.aud,
            client: event.client.as_ref().map(crate::token::ClientId::as_str),
            clock: clock.map(ClockFlag::as_str),
            decision: event.decision.map(super::record::Decision::as_str),
            detail: event.detail.as_ref().map(Sorted),
            grant: event.grant.as_ref().map(crate::token::GrantId::as_str),
            iat: event.iat.map(|at| at.timestamp()),
            jti: event.jti.as_ref().map(crate::token::Jti::as_str),
            kid: event.kid.as_ref().map(crate::token::Kid::as_str),
            policy: event.policy.as_deref(),
            reason_sd: disclosures.digest("reason"),
            req: event.req.as_ref().map(crate::token::RequestId::as_str),
            rule: event.rule.as_deref(),
            scope: event.scope.as_ref().map(ToString::to_string),
            signed_sha256: event.signed_sha256.map(|hash| URL_SAFE_NO_PAD.encode(hash)),
            sub_sd: disclosures.digest("sub"),
        };
        let after = After {
            ticket_sd: disclosures.digest("ticket"),
            ttl: event.ttl_seconds,
            typ: event.typ.as_str(),
            v: 1,
        };
        let mut text = Vec::with_capacity(1024);
        serde_json::to_writer(&mut text, &before).map_err(|_| BodyError::Profile)?;
        let after = serde_json::to_vec(&after).map_err(|_| BodyError::Profile)?;
        // `{…}` and `{…}` become `{…,"t":` and `,…}`
        text.pop();
        if text.len() > 1 {
            text.push(b',');
        }
        text.extend_from_slice(b"\"t\":");
        if text.len() + MAX_TIME_DIGITS + after.len() > MAX_BODY_BYTES {
            return Err(BodyError::TooLong);
        }
        Ok(Self { before: text, after, private: disclosures.row(&event.personal), index: index_row(event) })
    }

    /// The entry, recorded at `t_us` (microseconds since the epoch).
    #[must_use]
    pub fn at(self, t_us: i64) -> Encoded {
        use std::io::Write as _;
        let mut body = self.before;
        // writing to a vector cannot fail
        let _ = write!(body, "{t_us},");
        body.extend_from_slice(&self.after[1..]);
        Encoded { leaf: leaf_hash(&body), body, private: self.private, index: self.index }
    }
}

fn index_row(event: &Event) -> IndexRow {
    // only the entry that released a token answers for its jti; a revocation may name it too
    let releases = matches!(event.typ, EventType::Issue | EventType::Redeem) && event.signed_sha256.is_some();
    IndexRow {
        jti: event.jti.as_ref().filter(|_| releases).map(|jti| jti.as_str().to_owned()),
        signed8: event.signed_sha256.as_ref().filter(|_| releases).map(signed8),
        typ: event.typ.as_str(),
        decision: event.decision.map(super::record::Decision::as_str),
        client: event.client.as_ref().map(|id| id.as_str().to_owned()),
        rule: event.rule.as_deref().map(searchable),
        grant_id: event.grant.as_ref().map(|id| id.as_str().to_owned()),
    }
}

/// The search key of a `signed_sha256`.
#[must_use]
pub fn signed8(hash: &Hash) -> i64 {
    i64::from_be_bytes(std::array::from_fn(|i| hash[i]))
}

/// A NUL cannot be stored in a text column; the disclosure keeps the exact value.
pub(super) fn searchable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// The disclosures of one event: name, text, digest.
struct Disclosures(Vec<(&'static str, String, String)>);

impl Disclosures {
    fn of(personal: &Personal, entropy: &dyn Entropy) -> Self {
        let mut out = Vec::new();
        let mut add = |name: &'static str, value: Value| {
            let mut salt = [0u8; 16];
            entropy.fill(&mut salt);
            let text = disclosure(&salt, name, &value);
            let digest = disclosure_digest(&text);
            out.push((name, text, digest));
        };
        if let Some(act) = &personal.actor {
            add("act", act_value(act));
        }
        if let Some(address) = personal.address {
            add("addr", address.to_string().into());
        }
        if let Some(reason) = &personal.reason {
            add("reason", reason.as_str().into());
        }
        if let Some(sub) = &personal.subject {
            add("sub", sub.as_str().into());
        }
        if let Some(ticket) = &personal.ticket {
            add("ticket", ticket.as_str().into());
        }
        Self(out)
    }

    fn digest(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, ..)| *n == name).map(|(_, _, digest)| digest.as_str())
    }

    fn row(&self, personal: &Personal) -> Option<StoredPrivate> {
        if self.0.is_empty() {
            return None;
        }
        // base64url needs no escaping
        let list: Vec<&str> = self.0.iter().map(|(_, text, _)| text.as_str()).collect();
        Some(StoredPrivate {
            disclosures: format!("[\"{}\"]", list.join("\",\"")),
            actor: personal.actor.as_ref().map(|act| searchable(act.sub.as_str())),
            actor_iss: personal.actor.as_ref().and_then(|act| Some(searchable(act.iss.as_ref()?.as_str()))),
            subject: personal.subject.as_ref().map(|sub| searchable(sub.as_str())),
            ticket: personal.ticket.as_deref().map(searchable),
        })
    }
}

/// An SD-JWT disclosure (RFC 9901 §4.2): `b64url(["salt","name",value])`.
fn disclosure(salt: &[u8; 16], name: &str, value: &Value) -> String {
    let text = format!("[\"{}\",\"{name}\",{}]", URL_SAFE_NO_PAD.encode(salt), SortedValue(value));
    URL_SAFE_NO_PAD.encode(text)
}

/// What a body says of a disclosure.
#[must_use]
pub fn disclosure_digest(disclosure: &str) -> String {
    URL_SAFE_NO_PAD.encode(sha256(disclosure.as_bytes()))
}

/// The name and value inside a disclosure; `None` when it is not one.
#[must_use]
pub fn open_disclosure(disclosure: &str) -> Option<(String, Value)> {
    let bytes = URL_SAFE_NO_PAD.decode(disclosure).ok()?;
    let (_salt, name, value): (String, String, Value) = serde_json::from_slice(&bytes).ok()?;
    Some((name, value))
}

/// The actor as a token's `act` says him.
fn act_value(act: &crate::token::Act) -> Value {
    serde_json::to_value(act).unwrap_or(Value::Null)
}

fn check_profile<'v>(
    values: impl Iterator<Item = &'v Value>,
    names: impl Iterator<Item = &'v String>,
    depth: u8,
) -> Result<(), BodyError> {
    if depth > 8 || names.into_iter().any(|name| !name.is_ascii()) {
        return Err(BodyError::Profile);
    }
    for value in values {
        match value {
            Value::Null | Value::Bool(_) | Value::String(_) => {}
            Value::Number(number) => {
                let magnitude = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
                if magnitude.is_none_or(|m| m > MAX_INTEGER) {
                    return Err(BodyError::Profile);
                }
            }
            Value::Array(items) => check_profile(items.iter(), std::iter::empty(), depth + 1)?,
            Value::Object(map) => check_profile(map.values(), map.keys(), depth + 1)?,
        }
    }
    Ok(())
}

/// A map in sorted order: `serde_json::Map` keeps the order of insertion in this build.
struct Sorted<'v>(&'v serde_json::Map<String, Value>);

impl Serialize for Sorted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let sorted: BTreeMap<&String, &Value> = self.0.iter().collect();
        let mut map = serializer.serialize_map(Some(sorted.len()))?;
        for (name, value) in sorted {
            map.serialize_entry(name, &SortedValue(value))?;
        }
        map.end()
    }
}

struct SortedValue<'v>(&'v Value);

impl Serialize for SortedValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(map) => Sorted(map).serialize(serializer),
            Value::Array(items) => {
                let mut seq = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    seq.serialize_element(&SortedValue(item))?;
                }
                seq.end()
            }
            plain => plain.serialize(serializer),
        }
    }
}

impl std::fmt::Display for SortedValue<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| std::fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::log::record::Decision;
    use crate::token::{Act, Assurance, Audience, Scope, Sub, SystemEntropy};

    pub(crate) fn full_event() -> Event {
        let mut event = Event::new(EventType::Issue);
        event.decision = Some(Decision::Granted);
        event.client = Some("client_1".parse().unwrap());
        event.req = Some("req1".parse().unwrap());
        event.grant = Some("act_1".parse().unwrap());
        event.jti = Some("jti1".parse().unwrap());
        event.signed_sha256 = Some([9; 32]);
        event.kid = Some("kid1".parse().unwrap());
        event.aud = vec![Audience::try_from("https://api.example.com").unwrap()];
        event.scope = Some(Scope::parse("read write").unwrap());
        event.iat = chrono::DateTime::from_timestamp(1_795_333_985, 0);
        event.ttl_seconds = Some(600);
        event.assurance = Some(Assurance::Asserted);
        event.rule = Some("default \"quoted\" \u{7}\u{2028}é".into());
        event.policy = Some("builtin@abc".into());
        event.detail = serde_json::from_str(r#"{"z":[1,{"b":null,"a":true}],"a":-5}"#).ok();
        event.personal = Personal {
            actor: Some(Act {
                sub: Sub::try_from("admin_7").unwrap(),
                iss: Some("https://idp.example".parse().unwrap()),
                act: None,
            }),
            subject: Some("user_42".parse().unwrap()),
            reason: Some("Ticket 4711: \"invoice\" \0 missing".into()),
            ticket: Some("47\u{0}11".into()),
            address: Some([192, 0, 2, 7].into()),
        };
        event
    }

    fn encode(
        event: &Event,
        t_us: i64,
        clock: Option<ClockFlag>,
        entropy: &dyn Entropy,
    ) -> Result<Encoded, BodyError> {
        Draft::of(event, clock, entropy).map(|draft| draft.at(t_us))
    }

    #[test]
    fn bodies_are_canonical_json() {
        for event in [full_event(), full_event().denied("no"), Event::new(EventType::Heartbeat)] {
            let encoded =
                encode(&event, 1_795_333_985_000_001, Some(ClockFlag::Behind), &SystemEntropy).unwrap();
            let value: Value = serde_json::from_slice(&encoded.body).unwrap();
            let canonical = serde_json_canonicalizer::to_vec(&value).unwrap();
            assert_eq!(String::from_utf8(encoded.body).unwrap(), String::from_utf8(canonical).unwrap());
        }
    }

    #[test]
    fn nothing_personal_stands_in_a_body_and_every_disclosure_is_bound_to_it() {
        let encoded = encode(&full_event(), 1, None, &SystemEntropy).unwrap();
        let body = String::from_utf8(encoded.body).unwrap();
        for personal in ["admin_7", "user_42", "invoice", "4711", "192.0.2.7", "idp.example"] {
            assert!(!body.contains(personal), "{personal} in {body}");
        }
        let private = encoded.private.unwrap();
        let list: Vec<String> = serde_json::from_str(&private.disclosures).unwrap();
        let value: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(list.len(), 5);
        for disclosure in &list {
            let (name, _) = open_disclosure(disclosure).unwrap();
            assert_eq!(value[format!("{name}_sd")], disclosure_digest(disclosure));
        }
        assert_eq!(private.ticket.as_deref(), Some("47\u{fffd}11"), "no NUL reaches a text column");
        let again = encode(&full_event(), 1, None, &SystemEntropy).unwrap();
        assert_ne!(again.leaf, encoded.leaf, "salted: the same facts never hash alike");
    }

    #[test]
    fn what_cannot_be_written_down_faithfully_is_refused() {
        for detail in
            [r#"{"a":1.5}"#, r#"{"a":9007199254740992}"#, r#"{"é":1}"#, r#"{"a":[[[[[[[[[[1]]]]]]]]]]}"#]
        {
            let mut event = Event::new(EventType::Config);
            event.detail = serde_json::from_str(detail).ok();
            assert_eq!(encode(&event, 1, None, &SystemEntropy).unwrap_err(), BodyError::Profile, "{detail}");
        }
        let mut event = Event::new(EventType::Config);
        event.rule = Some("x".repeat(65_536));
        assert_eq!(encode(&event, 1, None, &SystemEntropy).unwrap_err(), BodyError::TooLong);
    }

    #[test]
    fn only_the_entry_that_released_a_token_answers_for_its_jti() {
        let index = |event: &Event| encode(event, 1, None, &SystemEntropy).unwrap().index;
        assert_eq!(index(&full_event()).jti.as_deref(), Some("jti1"));
        let mut revoke = full_event();
        revoke.typ = EventType::Revoke;
        assert_eq!((index(&revoke).jti, index(&revoke).signed8), (None, None));
        assert_eq!(index(&full_event().denied("no")).jti, None);
    }
}
