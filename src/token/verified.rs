//! What a verified token says, read from its claims by rules that leave nothing to taste.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::claims::{Act, Assurance, MAX_ACT_DEPTH};
use super::ids::{Audience, Issuer, Jti, Kid, Scope, Sub};
use super::invalid::Invalid;
use super::trust::Role;

/// The most audiences one token may name.
const MAX_AUDIENCES: usize = 50;
/// The largest `NumericDate`: what a reader of doubles still holds exactly (JW-10).
const MAX_NUMERIC_DATE: u64 = 1 << 53;

/// A token whose signature, issuer, type and form have been checked. Its claims are as they were signed.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// Who issued it.
    pub iss: Issuer,
    /// What the issuer is to this verifier.
    pub role: Role,
    /// Whose token it is: with an actor, who is impersonated.
    pub sub: Sub,
    /// Who it is for; empty only in profile `clerk`.
    pub aud: Vec<Audience>,
    /// When it ends.
    pub exp: DateTime<Utc>,
    /// When it begins, if it says so.
    pub nbf: Option<DateTime<Utc>>,
    /// When it was issued; always there in our own tokens.
    pub iat: Option<DateTime<Utc>>,
    /// Its own id; always there in our own tokens.
    pub jti: Option<Jti>,
    /// The client it was issued to (`client_id`, else `azp`).
    pub client_id: Option<String>,
    /// What it allows (`scope`, else `scp`).
    pub scope: Scope,
    /// The session or, in our own tokens, the grant behind it.
    pub sid: Option<String>,
    /// Who acts. Present in a token of *any* issuer means impersonation.
    pub actor: Option<Act>,
    /// How well the actor is known; believed from our own issuers only.
    pub assurance: Option<Assurance>,
    /// The key that signed it.
    pub kid: Kid,
    /// Every claim, as signed.
    pub claims: Map<String, Value>,
}

impl Verified {
    /// Whether somebody acts as somebody else.
    #[must_use]
    pub fn is_impersonation(&self) -> bool {
        self.actor.is_some()
    }

    pub(crate) fn read(
        iss: Issuer,
        role: Role,
        kid: Kid,
        claims: Map<String, Value>,
    ) -> Result<Self, Invalid> {
        if claims.contains_key("cnf") {
            return Err(Invalid::KeyBound);
        }
        let ours = role != Role::Home;
        let actor = claims.get("act").map(act).transpose()?;
        if ours && actor.is_none() {
            return Err(Invalid::ActorMissing);
        }
        let aud = match claims.get("aud") {
            None if role == Role::Clerk => Vec::new(),
            None => return Err(Invalid::ClaimMissing("aud")),
            Some(aud) => audiences(aud)?,
        };
        let iat = time(&claims, "iat", Round::Down)?;
        let jti = text(&claims, "jti")?.map(Jti::try_from).transpose();
        let jti = jti.map_err(|_| Invalid::ClaimInvalid("jti"))?;
        let sid = text(&claims, "sid")?.map(str::to_owned);
        let client_id = match text(&claims, "client_id")? {
            Some(client) => Some(client),
            None => text(&claims, "azp")?,
        };
        let client_id = client_id.map(str::to_owned);
        if ours {
            // Revocation is keyed on these: a token of ours without them could not be revoked.
            let missing = [("iat", iat.is_none()), ("jti", jti.is_none()), ("sid", sid.is_none())];
            if let Some((name, _)) = missing.into_iter().find(|(_, missing)| *missing) {
                return Err(Invalid::ClaimMissing(name));
            }
        }
        Ok(Self {
            sub: sub(&claims)?,
            exp: time(&claims, "exp", Round::Down)?.ok_or(Invalid::ClaimMissing("exp"))?,
            nbf: time(&claims, "nbf", Round::Up)?,
            scope: scope(&claims)?,
            assurance: if ours { Some(assurance(&claims)?) } else { None },
            iss,
            role,
            aud,
            iat,
            jti,
            client_id,
            sid,
            actor,
            kid,
            claims,
        })
    }
}

/// A claim that is text where it is there at all. `null` is not "absent": no issuer writes it on purpose.
pub(crate) fn text<'a>(
    claims: &'a Map<String, Value>,
    name: &'static str,
) -> Result<Option<&'a str>, Invalid> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Invalid::ClaimInvalid(name)),
    }
}

fn sub(claims: &Map<String, Value>) -> Result<Sub, Invalid> {
    let sub = text(claims, "sub")?.ok_or(Invalid::ClaimMissing("sub"))?;
    Sub::try_from(sub).map_err(|_| Invalid::ClaimInvalid("sub"))
}

fn audiences(aud: &Value) -> Result<Vec<Audience>, Invalid> {
    let invalid = || Invalid::ClaimInvalid("aud");
    let one =
        |value: &Value| value.as_str().and_then(|text| Audience::try_from(text).ok()).ok_or_else(invalid);
    match aud {
        Value::String(_) => Ok(vec![one(aud)?]),
        Value::Array(many) if !many.is_empty() && many.len() <= MAX_AUDIENCES => {
            many.iter().map(one).collect()
        }
        _ => Err(invalid()),
    }
}

/// `scope` (RFC 9068) or, as Okta and Entra write it, `scp` as text or array.
fn scope(claims: &Map<String, Value>) -> Result<Scope, Invalid> {
    let read = |text: &str, name| Scope::parse(text).map_err(|_| Invalid::ClaimInvalid(name));
    match (claims.get("scope"), claims.get("scp")) {
        (Some(Value::String(scope)), _) => read(scope, "scope"),
        (Some(_), _) => Err(Invalid::ClaimInvalid("scope")),
        (None, Some(Value::String(scp))) => read(scp, "scp"),
        (None, Some(Value::Array(scp))) => {
            let words: Option<Vec<&str>> = scp.iter().map(Value::as_str).collect();
            read(&words.ok_or(Invalid::ClaimInvalid("scp"))?.join(" "), "scp")
        }
        (None, Some(_)) => Err(Invalid::ClaimInvalid("scp")),
        (None, None) => Ok(Scope::default()),
    }
}

fn assurance(claims: &Map<String, Value>) -> Result<Assurance, Invalid> {
    match text(claims, "actor_assurance")? {
        Some("verified") => Ok(Assurance::Verified),
        Some("asserted") => Ok(Assurance::Asserted),
        Some(_) => Err(Invalid::ClaimInvalid("actor_assurance")),
        None => Err(Invalid::ClaimMissing("actor_assurance")),
    }
}

/// Reads `act` (RFC 8693 §4.1): an object of identity claims, nested at most [`MAX_ACT_DEPTH`] deep,
/// no actor twice. Members other than `sub`, `iss`, `act` are left in the claims and not relied on.
fn act(value: &Value) -> Result<Act, Invalid> {
    let mut chain = Vec::new();
    let mut next = Some(value);
    while let Some(value) = next {
        let object = value.as_object().ok_or(Invalid::ActorInvalid)?;
        if chain.len() == MAX_ACT_DEPTH {
            return Err(Invalid::ActorTooDeep);
        }
        // TE-7: these are claims of a token, not of a person.
        if ["exp", "nbf", "iat", "aud", "cnf"].iter().any(|name| object.contains_key(*name)) {
            return Err(Invalid::ActorInvalid);
        }
        let member = |name| match object.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(Invalid::ActorInvalid),
        };
        let sub = member("sub")?.and_then(|sub| Sub::try_from(sub).ok()).ok_or(Invalid::ActorInvalid)?;
        let iss = member("iss")?.map(Issuer::try_from).transpose().map_err(|_| Invalid::ActorInvalid)?;
        let this = Act { sub, iss, act: None };
        if chain.contains(&this) {
            return Err(Invalid::ActorCycle);
        }
        chain.push(this);
        next = object.get("act");
    }
    let inner = chain.into_iter().rev().fold(None, |inner, mut actor| {
        actor.act = inner.map(Box::new);
        Some(actor)
    });
    inner.ok_or(Invalid::ActorInvalid)
}

#[derive(Clone, Copy)]
enum Round {
    Down,
    Up,
}

/// A `NumericDate` (JW-10): a JSON number from 0 to 2^53. Fractions are allowed by RFC 7519 §2 and are
/// tolerated, rounded so that the token lives shorter: `exp` and `iat` down, `nbf` up.
fn time(
    claims: &Map<String, Value>,
    name: &'static str,
    round: Round,
) -> Result<Option<DateTime<Utc>>, Invalid> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let invalid = Invalid::ClaimInvalid(name);
    let number = match value {
        // Whole numbers are compared as such: as a double, 2^53 + 1 would pass for 2^53.
        Value::Number(number) if number.as_u64().is_some_and(|whole| whole > MAX_NUMERIC_DATE) => {
            return Err(invalid);
        }
        Value::Number(number) => number.as_f64().ok_or(invalid)?,
        _ => return Err(invalid),
    };
    #[expect(clippy::cast_precision_loss, reason = "2^53 is exact as a double")]
    if !(0.0..=MAX_NUMERIC_DATE as f64).contains(&number) {
        return Err(invalid);
    }
    let whole = match round {
        Round::Down => number.floor(),
        Round::Up => number.ceil(),
    };
    #[expect(clippy::cast_possible_truncation, reason = "a whole number of at most 2^53 fits exactly")]
    let seconds = whole as i64;
    // Dates end in the year 262142; a later one means "never", and stays comparable.
    Ok(Some(DateTime::from_timestamp(seconds, 0).unwrap_or(DateTime::<Utc>::MAX_UTC)))
}
