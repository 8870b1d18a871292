//! Writes tokens, right or wrong in exactly the place that was asked for; checks nothing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::keys::TestKey;

/// A JSON object that is still being shaped.
pub type Object = Map<String, Value>;

/// What the service under test was told to trust, and whom the tokens speak of.
#[derive(Debug)]
pub struct Subject {
    /// The issuer of actor tokens, as the service knows it: to it, a Stagedoor.
    pub issuer: String,
    /// The issuer of users' ordinary tokens, where the service trusts one that uses the same keys.
    pub home_issuer: Option<String>,
    /// The service's own audience.
    pub audience: String,
    /// The user that good tokens name.
    pub user: String,
    /// The actor that good actor tokens name.
    pub actor: String,
    /// Scopes of good tokens, separated by spaces.
    pub scope: String,
    /// Whether the route admits impersonators (200) or refuses them (403).
    pub admits_impersonation: bool,
    /// The published keys; the first one signs. Never empty.
    pub keys: Vec<TestKey>,
    /// A key of the first one's kind that nobody published.
    pub attacker: TestKey,
    /// Where the attacker publishes his key (`jku`, `x5u`).
    pub attacker_url: String,
    /// Whether a feed of revocations is served that the service follows.
    pub serves_feed: bool,
    /// The tokens' present.
    pub now: DateTime<Utc>,
    /// How many seconds of clock difference the service forgives.
    pub leeway_seconds: i64,
}

/// One of a token's three parts as it is put on the wire.
#[must_use]
pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Subject {
    /// The key that signs good tokens.
    #[must_use]
    pub fn key(&self) -> &TestKey {
        &self.keys[0]
    }

    /// Whether the tokens that are bent are actor tokens. Bent is always a token that the route would
    /// have admitted: otherwise a refusal would prove nothing about the bend.
    #[must_use]
    pub fn bends_actor_tokens(&self) -> bool {
        self.admits_impersonation || self.home_issuer.is_none()
    }

    /// The header of a good token.
    #[must_use]
    pub fn header(&self) -> Object {
        object(json!({ "alg": self.key().alg().name(), "typ": "at+jwt", "kid": self.key().kid() }))
    }

    /// The claims of a good actor token (contract.md §6).
    #[must_use]
    pub fn actor_claims(&self) -> Object {
        let mut claims = self.claims_of(&self.issuer);
        claims.insert("sid".into(), json!("act_conformance"));
        claims.insert("actor_assurance".into(), json!("verified"));
        claims.insert("act".into(), json!({ "sub": self.actor, "iss": "https://people.example" }));
        claims
    }

    /// The claims of a good ordinary token of the home issuer, if there is one.
    #[must_use]
    pub fn ordinary_claims(&self) -> Option<Object> {
        Some(self.claims_of(self.home_issuer.as_deref()?))
    }

    /// The claims of the token that is bent.
    #[must_use]
    pub fn claims(&self) -> Object {
        match self.ordinary_claims() {
            Some(ordinary) if !self.bends_actor_tokens() => ordinary,
            _ => self.actor_claims(),
        }
    }

    fn claims_of(&self, issuer: &str) -> Object {
        let now = self.now.timestamp();
        object(json!({
            "iss": issuer, "sub": self.user, "aud": self.audience, "client_id": "client_conformance",
            "iat": now - 2, "nbf": now - 2, "exp": now + 600, "jti": "conformance", "scope": self.scope,
        }))
    }

    /// Signs `header` and `claims` with the published key.
    #[must_use]
    pub fn sign(&self, header: &Object, claims: &Object) -> String {
        self.sign_text(text(header), text(claims))
    }

    /// Signs any two texts with the published key.
    #[must_use]
    pub fn sign_text(&self, header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
        sign_parts(self.key(), &b64(header), &b64(payload))
    }

    /// The good header with one member changed, over the good claims.
    #[must_use]
    pub fn header_with(&self, name: &str, value: impl Into<Value>) -> String {
        self.sign(&with(self.header(), name, value), &self.claims())
    }

    /// The good claims with one member changed.
    #[must_use]
    pub fn claims_with(&self, name: &str, value: impl Into<Value>) -> String {
        self.sign(&self.header(), &with(self.claims(), name, value))
    }

    /// The good claims with one member taken away.
    #[must_use]
    pub fn claims_without(&self, name: &str) -> String {
        self.sign(&self.header(), &without(self.claims(), name))
    }

    /// The token that the route admits.
    #[must_use]
    pub fn good(&self) -> String {
        self.sign(&self.header(), &self.claims())
    }
}

/// The object in `value`; an empty one of anything else.
#[must_use]
pub fn object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        _ => Object::new(),
    }
}

/// `object` with one member changed.
#[must_use]
pub fn with(mut object: Object, name: &str, value: impl Into<Value>) -> Object {
    object.insert(name.to_owned(), value.into());
    object
}

/// `object` with one member taken away.
#[must_use]
pub fn without(mut object: Object, name: &str) -> Object {
    object.remove(name);
    object
}

/// A number of `seconds` and a half, as JSON writes it.
#[must_use]
pub fn and_a_half(seconds: i64) -> Value {
    serde_json::from_str(&format!("{seconds}.5")).unwrap_or_default()
}

/// `object` as JSON.
#[must_use]
pub fn text(object: &Object) -> String {
    Value::Object(object.clone()).to_string()
}

/// `object` as JSON with more text before its first member: for a member named twice.
#[must_use]
pub fn text_with_first(object: &Object, members: &str) -> String {
    format!("{{{members},{}", &text(object)[1..])
}

/// `object` as JSON with more text after its last member.
#[must_use]
pub fn text_with_last(object: &Object, members: &str) -> String {
    let text = text(object);
    format!("{},{members}}}", &text[..text.len() - 1])
}

/// A compact JWS of two parts that are encoded already.
#[must_use]
pub fn sign_parts(key: &TestKey, header: &str, payload: &str) -> String {
    let input = format!("{header}.{payload}");
    let signature = b64(key.sign(input.as_bytes()));
    format!("{input}.{signature}")
}

/// The three parts of a token made here.
///
/// # Panics
/// When `token` has no two dots, which no token made here lacks.
#[must_use]
pub fn parts(token: &str) -> (&str, &str, &str) {
    let (header, rest) = token.split_once('.').expect("a compact JWS has two dots");
    let (payload, signature) = rest.split_once('.').expect("a compact JWS has two dots");
    (header, payload, signature)
}

/// The raw signature of a token made here.
#[must_use]
pub fn signature(token: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(parts(token).2).unwrap_or_default()
}

/// `token` with another signature.
#[must_use]
pub fn resealed(token: &str, signature: &[u8]) -> String {
    let (header, payload, _) = parts(token);
    format!("{header}.{payload}.{}", b64(signature))
}
