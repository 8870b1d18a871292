//! The rules for the claims of an actor token: a pure function of configuration, claims and time.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value};

use super::{CLOCK_SKEW_SECONDS, Declared, IssuerConfig, MayAct, Reason, TokenKind, VerifiedActor};
use crate::server::policy::ActorFacts;
use crate::token::claims::MAX_ACT_DEPTH;
use crate::token::ids::MAX_ID_BYTES;
use crate::token::{Act, Assurance, Audience, Invalid, Issuer, Sub, Verified};

type Claims = Map<String, Value>;

/// The names under which issuers say which client a token was issued to: OIDC, RFC 9068, Okta, Entra ID v1.
const CLIENT_CLAIMS: [&str; 4] = ["azp", "client_id", "cid", "appid"];
/// Claims that only ID tokens carry (OIDC Core §2, §3.3.2.11).
const ID_TOKEN_CLAIMS: [&str; 4] = ["nonce", "at_hash", "c_hash", "s_hash"];
/// The most roles, groups or methods a token may list. More is an error, never cut.
const MAX_LIST: usize = 1_000;

/// Checks a token whose signature and form hold, at `now`.
pub(super) fn check(
    config: &IssuerConfig,
    declared: Declared,
    typ: Option<&str>,
    token: &Verified,
    now: DateTime<Utc>,
) -> Result<VerifiedActor, Reason> {
    let claims = &token.claims;
    let kind = kind(config, typ, token);
    check_kind(config, declared, kind, typ)?;
    let client_id = client(config, kind, token)?;
    check_audience(config, kind, &token.aud)?;
    let issued_at = token.iat.ok_or(Invalid::ClaimMissing("iat"))?;
    check_times(config, issued_at, token.exp, now)?;
    if token.nbf.is_some_and(|nbf| nbf > now + skew()) {
        return Err(Invalid::NotYetValid.into());
    }
    let act = act(token)?;
    let acts_for_others = act.act.is_some();
    let facts = ActorFacts {
        act,
        assurance: Assurance::Verified,
        roles: words_at(claims, config.roles_path.as_deref()).ok_or(Reason::Path("roles"))?,
        groups: words_at(claims, config.groups_path.as_deref()).ok_or(Reason::Path("groups"))?,
        org: one_at(claims, config.org_path.as_deref())?,
        acr: text(claims, "acr")?.map(str::to_owned),
        amr: words(claims.get("amr")).ok_or(Invalid::ClaimInvalid("amr"))?,
        auth_time: auth_time(claims)?,
        directory_id: directory_id(config, token)?,
        person: None,
    };
    Ok(VerifiedActor {
        facts,
        issuer: token.iss.clone(),
        kind,
        client_id,
        audience: token.aud.clone(),
        jti: token.jti.clone(),
        issued_at,
        expires_at: token.exp,
        acts_for_others,
        may_act: may_act(claims)?,
    })
}

/// `exp` gets no grace; `iat` lies at most a few seconds ahead and not further back than configured.
pub(super) fn check_times(
    config: &IssuerConfig,
    issued_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<(), Reason> {
    if now >= expires_at {
        return Err(Invalid::Expired.into());
    }
    if issued_at > now + skew() {
        return Err(Invalid::IssuedInFuture.into());
    }
    if now - issued_at > TimeDelta::seconds(config.max_age_seconds.into()) {
        return Err(Reason::TooOld);
    }
    Ok(())
}

fn skew() -> TimeDelta {
    TimeDelta::seconds(CLOCK_SKEW_SECONDS)
}

/// `typ` as it is compared (BP-6): lower case, `application/` left out, none as the empty text.
fn bare_typ(typ: Option<&str>) -> String {
    let typ = typ.unwrap_or_default().to_ascii_lowercase();
    typ.strip_prefix("application/").map(str::to_owned).unwrap_or(typ)
}

/// What kind of token it is. `at+jwt` says so; of a bare JWT the claims tell, and in doubt it is an ID token, which
/// is accepted in fewer places.
fn kind(config: &IssuerConfig, typ: Option<&str>, token: &Verified) -> TokenKind {
    if bare_typ(typ) == "at+jwt" {
        return TokenKind::Access;
    }
    let claims = &token.claims;
    let says =
        |kind: &str| claims.get("typ").and_then(Value::as_str).is_some_and(|t| t.eq_ignore_ascii_case(kind));
    if says("ID") || ID_TOKEN_CLAIMS.iter().any(|name| claims.contains_key(*name)) {
        return TokenKind::Id;
    }
    // An ID token is for the client itself (OIDC Core §2); an access token is for an API and has a scope.
    let is_client = |name: &str| {
        config.clients.iter().any(|client| client == name)
            || CLIENT_CLAIMS.iter().any(|claim| claims.get(*claim).and_then(Value::as_str) == Some(name))
    };
    let for_a_client = token.aud.iter().any(|aud| is_client(aud.as_str()));
    if for_a_client && token.scope.is_empty() { TokenKind::Id } else { TokenKind::Access }
}

fn check_kind(
    config: &IssuerConfig,
    declared: Declared,
    kind: TokenKind,
    typ: Option<&str>,
) -> Result<(), Reason> {
    let typ = bare_typ(typ);
    match (declared, kind) {
        (Declared::AccessToken, TokenKind::Id) => Err(Reason::IdToken),
        (Declared::IdToken, TokenKind::Access) => Err(Reason::NotAnIdToken),
        (_, TokenKind::Id) if !config.id_token => Err(Reason::IdToken),
        (_, TokenKind::Id) if matches!(typ.as_str(), "" | "jwt") => Ok(()),
        (_, TokenKind::Access) if config.typ.is_empty() && typ == "at+jwt" => Ok(()),
        (_, TokenKind::Access) if config.typ.iter().any(|t| bare_typ(Some(t)) == typ) => Ok(()),
        _ => Err(Invalid::Type.into()),
    }
}

/// An access token is for one of the configured audiences; an ID token for one of the configured clients.
fn check_audience(config: &IssuerConfig, kind: TokenKind, audience: &[Audience]) -> Result<(), Reason> {
    let accepted = |aud: &Audience| match kind {
        TokenKind::Access => config.audiences.contains(aud),
        TokenKind::Id => config.clients.iter().any(|client| client == aud.as_str()),
    };
    if audience.iter().any(accepted) { Ok(()) } else { Err(Invalid::Audience.into()) }
}

/// The client the token was issued to. Every claim that names one must name an accepted one, so that no issuer's
/// second way of saying it is a way around; an ID token for one audience needs none, that audience is the client.
fn client(config: &IssuerConfig, kind: TokenKind, token: &Verified) -> Result<String, Reason> {
    let accepted = |name: &str| config.clients.iter().any(|client| client == name);
    let mut client = None;
    for name in CLIENT_CLAIMS {
        let Some(named) = text(&token.claims, name)? else { continue };
        if !accepted(named) {
            return Err(Invalid::Client.into());
        }
        client.get_or_insert(named);
    }
    match (client, kind, token.aud.as_slice()) {
        (Some(client), ..) => Ok(client.to_owned()),
        (None, TokenKind::Id, [only]) if accepted(only.as_str()) => Ok(only.as_str().to_owned()),
        (None, TokenKind::Id, [_]) => Err(Invalid::Audience.into()),
        (None, TokenKind::Id, _) => Err(Invalid::ClaimMissing("azp").into()),
        (None, TokenKind::Access, _) => Err(Invalid::ClaimMissing("client_id").into()),
    }
}

/// The actor, and behind him whoever acted before: nothing is dropped, nobody appears twice (TE-8, TE-9).
fn act(token: &Verified) -> Result<Act, Reason> {
    let mut chain = vec![(token.sub.clone(), token.iss.clone())];
    for link in token.actor.iter().flat_map(Act::chain) {
        // Without `iss` it is one of this issuer's.
        let link = (link.sub.clone(), link.iss.clone().unwrap_or_else(|| token.iss.clone()));
        if chain.contains(&link) {
            return Err(Invalid::ActorCycle.into());
        }
        chain.push(link);
    }
    if chain.len() > MAX_ACT_DEPTH {
        return Err(Invalid::ActorTooDeep.into());
    }
    let first = chain.remove(0);
    let inner = chain
        .into_iter()
        .rev()
        .fold(None, |act, (sub, iss)| Some(Box::new(Act { sub, iss: Some(iss), act })));
    Ok(Act { sub: first.0, iss: Some(first.1), act: inner })
}

fn may_act(claims: &Claims) -> Result<Option<MayAct>, Reason> {
    let malformed = |_| Reason::Invalid(Invalid::ClaimInvalid("may_act"));
    let Some(value) = claims.get("may_act") else { return Ok(None) };
    let may_act = value.as_object().ok_or(Invalid::ClaimInvalid("may_act"))?;
    Ok(Some(MayAct {
        sub: sub(may_act).map_err(malformed)?,
        iss: issuer(may_act).map_err(malformed)?,
        client_id: text(may_act, "client_id").map_err(malformed)?.map(str::to_owned),
    }))
}

fn sub(object: &Claims) -> Result<Option<Sub>, Reason> {
    Ok(text(object, "sub")?.map(Sub::try_from).transpose().map_err(|_| Invalid::ClaimInvalid("sub"))?)
}

fn issuer(object: &Claims) -> Result<Option<Issuer>, Reason> {
    Ok(text(object, "iss")?.map(Issuer::try_from).transpose().map_err(|_| Invalid::ClaimInvalid("iss"))?)
}

/// A short text, if it is there.
fn text<'a>(claims: &'a Claims, name: &'static str) -> Result<Option<&'a str>, Reason> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if is_word(text) => Ok(Some(text)),
        Some(_) => Err(Invalid::ClaimInvalid(name).into()),
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_ID_BYTES && !text.chars().any(char::is_control)
}

/// When he logged in; a time that cannot be read is no login to rely on (JW-10).
fn auth_time(claims: &Claims) -> Result<Option<DateTime<Utc>>, Reason> {
    let Some(value) = claims.get("auth_time") else { return Ok(None) };
    let time = value.as_i64().filter(|seconds| *seconds >= 0).and_then(|s| DateTime::from_timestamp(s, 0));
    Ok(Some(time.ok_or(Invalid::ClaimInvalid("auth_time"))?))
}

/// The value at a path: a claim of that very name (`https://example.com/roles` is one), else step by step at the dots.
fn at<'a>(claims: &'a Claims, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let (first, rest) = path.split_once('.')?;
    rest.split('.').try_fold(claims.get(first)?, |value, step| value.as_object()?.get(step))
}

/// The texts at a path; absent is none, `None` is another form.
fn words_at(claims: &Claims, path: Option<&str>) -> Option<Vec<String>> {
    words(path.and_then(|path| at(claims, path)))
}

fn words(value: Option<&Value>) -> Option<Vec<String>> {
    let word = |value: &Value| value.as_str().filter(|text| is_word(text)).map(str::to_owned);
    match value {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(list)) if list.len() <= MAX_LIST => list.iter().map(word).collect(),
        Some(one) => Some(vec![word(one)?]),
    }
}

/// Under which id the directory knows him: his `sub`, or the one id at the configured path; none there: none.
fn directory_id(config: &IssuerConfig, token: &Verified) -> Result<Option<Sub>, Reason> {
    let Some(path) = config.directory_path.as_deref() else { return Ok(Some(token.sub.clone())) };
    let invalid = Reason::Path("the directory's id");
    match words_at(&token.claims, Some(path)) {
        Some(mut words) if words.len() <= 1 => {
            words.pop().map(Sub::try_from).transpose().map_err(|_| invalid)
        }
        _ => Err(invalid),
    }
}

/// The one text at a path; two organisations are none to compare with.
fn one_at(claims: &Claims, path: Option<&str>) -> Result<Option<String>, Reason> {
    match words_at(claims, path) {
        Some(mut words) if words.len() <= 1 => Ok(words.pop()),
        _ => Err(Reason::Path("organisation")),
    }
}
