//! What a client is, and which values are possible.

use chrono::{DateTime, Utc};
use reqwest::Url;
use serde_json::Value;

use super::pattern::AssertPattern;
use super::scope::{ClientScope, ClientScopes};
use super::secret::{SecretHash, SecretKind};
use crate::server::config::is_loopback;
use crate::token::alg::KeyType;
use crate::token::{Alg, Audience, ClientId, Issuer, KeySet, Sub, VerifyingKey};

/// The longest name of a client, bytes.
const MAX_NAME_BYTES: usize = 100;
/// The most patterns, origins or keys of a client.
const MAX_LIST: usize = 100;
/// The most audiences of a client.
const MAX_AUDIENCES: usize = 32;
/// The most keys in a client's key set.
const MAX_KEYS: usize = 10;
/// The most secrets that are valid at a time.
pub const MAX_SECRETS: usize = 5;

/// A client, as its authenticated row says.
#[derive(Debug, Clone, PartialEq)]
pub struct Client {
    /// `client_…`
    pub id: ClientId,
    /// For people.
    pub name: String,
    /// What it may call.
    pub scopes: ClientScopes,
    /// The audiences it mints and verifies for. The first is its default; with none it mints nothing.
    pub audiences: Vec<Audience>,
    /// The actors it may name who did not prove themselves; none unless a pattern covers them.
    pub may_assert: Vec<AssertPattern>,
    /// The algorithm of its assertions (`private_key_jwt`, RFC 7523); `None`: what each key says.
    pub alg: Option<Alg>,
    /// The public keys of its assertions, a JWK set; `None`: it authenticates by secret only.
    pub jwks: Option<Value>,
    /// Browser origins of its products: `azp` in profile `clerk`, CORS, the console's way back.
    pub origins: Vec<String>,
    /// Where a handoff code is taken (contract.md §8); `{code}` may stand in the fragment only.
    pub handoff_url: Option<String>,
    /// The shape of its tokens.
    pub profile: Profile,
    /// Whether its secrets are `sk_live_…` or `sk_test_…`.
    pub kind: SecretKind,
    /// Its secrets, hashed; more than one while they overlap.
    pub secrets: Vec<StoredSecret>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was disabled: it authenticates no more.
    pub disabled_at: Option<DateTime<Utc>>,
    /// Counts its changes, from 1.
    pub version: i64,
}

/// The shape of a client's tokens (contract.md §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// `at+jwt`.
    Standard,
    /// For unmodified Clerk SDKs: RS256, `typ` JWT, an RSA key of the client's own.
    Clerk,
}

impl Profile {
    /// The word on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Clerk => "clerk",
        }
    }

    pub(super) fn from_word(word: &str) -> Option<Self> {
        [Self::Standard, Self::Clerk].into_iter().find(|p| p.as_str() == word)
    }
}

/// A secret as a client's row keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredSecret {
    /// Its SHA-256; the row is authenticated as a whole.
    pub hash: SecretHash,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends; `None`: when it is rotated.
    pub expires_at: Option<DateTime<Utc>>,
}

impl StoredSecret {
    /// Whether it is still accepted.
    #[must_use]
    pub fn is_valid(&self, now: DateTime<Utc>) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

/// A value that a client cannot have.
#[derive(Debug, thiserror::Error)]
#[error("{option} {why}")]
pub struct InvalidClient {
    /// The command's option.
    option: &'static str,
    /// What is wrong, and what to write.
    why: String,
}

impl InvalidClient {
    pub(super) fn new(option: &'static str, why: impl Into<String>) -> Self {
        Self { option, why: why.into() }
    }
}

impl Client {
    /// Whether the client may call what `scope` names.
    #[must_use]
    pub const fn may(&self, scope: ClientScope) -> bool {
        self.scopes.contains(scope)
    }

    /// Whether the client is in use.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        self.disabled_at.is_none()
    }

    /// The audience of a mint that names none.
    #[must_use]
    pub fn default_audience(&self) -> Option<&Audience> {
        self.audiences.first()
    }

    /// Whether `audience` is one of the client's own.
    #[must_use]
    pub fn owns_audience(&self, audience: &Audience) -> bool {
        self.audiences.contains(audience)
    }

    /// The keys of the client's assertions (RFC 7523), of its algorithm where it has one; `None`: it has none registered.
    #[must_use]
    pub fn assertion_keys(&self) -> Option<KeySet> {
        // Checked when the client was made; a row that is authentic says the same today.
        keys_for(self.jwks.as_ref()?, self.alg)
    }

    /// Whether the client may name this actor without proof: it holds `assert_actor` and a pattern covers him.
    #[must_use]
    pub fn may_assert(&self, sub: &Sub, iss: Option<&Issuer>) -> bool {
        self.may(ClientScope::AssertActor) && self.may_assert.iter().any(|pattern| pattern.covers(sub, iss))
    }
}

/// What an operator asks for, as text; `None` leaves a value as it is, an empty list clears it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClientForm {
    /// For people.
    pub name: Option<String>,
    /// Words of [`ClientScope`].
    pub scopes: Option<Vec<String>>,
    /// Audiences, the default first.
    pub audiences: Option<Vec<String>>,
    /// Patterns of [`AssertPattern`].
    pub may_assert: Option<Vec<String>>,
    /// Algorithm of the client's assertions.
    pub alg: Option<String>,
    /// A JWK or JWK set.
    pub jwks: Option<Value>,
    /// Browser origins.
    pub origins: Option<Vec<String>>,
    /// Where a handoff code is taken.
    pub handoff_url: Option<String>,
    /// `standard` or `clerk`; chosen once.
    pub profile: Option<String>,
}

impl ClientForm {
    /// Changes `client` as asked, or not at all.
    ///
    /// # Errors
    /// A value that is not possible.
    pub fn apply(&self, client: &mut Client) -> Result<(), InvalidClient> {
        let mut changed = client.clone();
        if let Some(name) = &self.name {
            changed.name = checked_name(name)?;
        }
        if let Some(scopes) = &self.scopes {
            changed.scopes = words(scopes, "--scopes", 9, scope)?.into_iter().collect();
        }
        if let Some(audiences) = &self.audiences {
            changed.audiences = words(audiences, "--audience", MAX_AUDIENCES, |t| {
                Audience::try_from(t).map_err(|e| e.to_string())
            })?;
        }
        if let Some(patterns) = &self.may_assert {
            changed.may_assert = words(patterns, "--may-assert", MAX_LIST, AssertPattern::parse)?;
        }
        if let Some(origins) = &self.origins {
            changed.origins = words(origins, "--origin", MAX_LIST, origin)?;
        }
        if let Some(url) = &self.handoff_url {
            changed.handoff_url = if url.is_empty() { None } else { Some(handoff_url(url)?) };
        }
        if let Some(profile) = &self.profile {
            changed.profile = Profile::from_word(profile).ok_or_else(|| {
                InvalidClient::new("--profile", "is not standard or clerk; write one of them")
            })?;
        }
        if let Some(alg) = &self.alg {
            changed.alg = Some(Alg::from_name(alg).ok_or_else(|| {
                let known = Alg::ALL.map(Alg::name).join(", ");
                InvalidClient::new("--alg", format!("is not a known algorithm; write one of {known}"))
            })?);
        }
        if let Some(jwks) = &self.jwks {
            changed.jwks = Some(key_set(jwks)?);
        }
        consistent(&changed)?;
        *client = changed;
        Ok(())
    }
}

/// What must hold between a client's values.
fn consistent(client: &Client) -> Result<(), InvalidClient> {
    if client.scopes.is_empty() {
        let known = ClientScope::ALL.map(ClientScope::as_str).join(", ");
        return Err(InvalidClient::new(
            "--scopes",
            format!("must name what the client may call; write some of {known}"),
        ));
    }
    if client.profile == Profile::Clerk && client.origins.is_empty() {
        return Err(InvalidClient::new(
            "--profile",
            "clerk needs the product's origin; add --origin https://…",
        ));
    }
    if let Some(alg) = client.alg.filter(|_| client.jwks.is_none()) {
        return Err(InvalidClient::new(
            "--alg",
            format!("{alg} is of assertions; add --jwks FILE with their keys"),
        ));
    }
    if let (Some(alg), Some(jwks)) = (client.alg, &client.jwks)
        && keys_for(jwks, Some(alg)).is_none_or(|keys| keys.is_empty())
    {
        return Err(InvalidClient::new("--alg", format!("is {alg}, for which --jwks holds no key; add one")));
    }
    Ok(())
}

/// The keys of a set that verify `alg`; without one, all. An RSA key that names no algorithm fits every RSA one
/// (RFC 7517 §4.4 has it optional), and the client's is which.
fn keys_for(jwks: &Value, alg: Option<Alg>) -> Option<KeySet> {
    let Some(alg) = alg else { return KeySet::from_jwks_json(jwks.to_string().as_bytes()).ok() };
    let mut jwks = jwks.clone();
    for key in jwks["keys"].as_array_mut()?.iter_mut().filter_map(Value::as_object_mut) {
        if alg.key_type() == KeyType::Rsa && key.get("kty").is_some_and(|kty| kty == "RSA") {
            key.entry("alg").or_insert_with(|| alg.name().into());
        }
    }
    Some(KeySet::from_jwks_json(jwks.to_string().as_bytes()).ok()?.of_alg(alg))
}

fn checked_name(name: &str) -> Result<String, InvalidClient> {
    if name.trim().is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
        let why = format!("must be 1 to {MAX_NAME_BYTES} bytes without control characters");
        return Err(InvalidClient::new("--name", why));
    }
    Ok(name.to_owned())
}

/// Reads each text of a list; empty texts are left out, so that `--audience ''` clears; repeats are, too.
fn words<T: PartialEq>(
    texts: &[String],
    option: &'static str,
    most: usize,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, InvalidClient> {
    let mut out = Vec::new();
    for text in texts.iter().filter(|t| !t.is_empty()) {
        let value = read(text).map_err(|why| InvalidClient::new(option, format!("\"{text}\" {why}")))?;
        if !out.contains(&value) {
            out.push(value);
        }
    }
    if out.len() > most {
        return Err(InvalidClient::new(option, format!("may be given at most {most} times")));
    }
    Ok(out)
}

fn scope(word: &str) -> Result<ClientScope, String> {
    ClientScope::from_word(word.trim()).ok_or_else(|| {
        format!("is not a scope; write some of {}", ClientScope::ALL.map(ClientScope::as_str).join(", "))
    })
}

/// An origin as browsers write it (RFC 6454 §6.2): scheme, host, port unless it is the usual one.
fn origin(text: &str) -> Result<String, String> {
    let url = web_address(text)?;
    let usual = url.origin().ascii_serialization();
    if usual == text {
        Ok(usual)
    } else {
        Err(format!("is not an origin as browsers write it; write {usual}"))
    }
}

fn handoff_url(text: &str) -> Result<String, InvalidClient> {
    let refused = |why: &str| InvalidClient::new("--handoff-url", why.to_owned());
    web_address(text).map_err(|why| refused(&why))?;
    let before_fragment = text.split('#').next().unwrap_or(text);
    if before_fragment.contains("{code}") {
        return Err(refused("must hold {code} after the # only: what stands before it is logged by servers"));
    }
    Ok(text.to_owned())
}

/// https, or plain http to this machine; no user name in it.
fn web_address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| format!("is not an address ({e}); write https://…"))?;
    let host = url.host_str().unwrap_or("").trim_matches(['[', ']']);
    let local = host == "localhost" || host.ends_with(".localhost") || host.parse().is_ok_and(is_loopback);
    if !(url.scheme() == "https" || (url.scheme() == "http" && local)) {
        return Err("must begin with https:// (http:// for loopback only)".to_owned());
    }
    if text.len() > 2048 || !url.username().is_empty() || url.password().is_some() {
        return Err("must be at most 2048 bytes and hold no user name".to_owned());
    }
    Ok(url)
}

/// A set of public keys that our verifier takes; a single key is made a set.
fn key_set(jwks: &Value) -> Result<Value, InvalidClient> {
    let refused = |why: String| InvalidClient::new("--jwks", why);
    let keys = match jwks.get("keys") {
        Some(Value::Array(keys)) => keys.clone(),
        Some(_) => return Err(refused("has a `keys` that is no list; give a JWK or a JWK set".to_owned())),
        None => vec![jwks.clone()],
    };
    if keys.is_empty() || keys.len() > MAX_KEYS {
        return Err(refused(format!("must hold 1 to {MAX_KEYS} keys")));
    }
    for (i, key) in keys.iter().enumerate() {
        VerifyingKey::from_jwk(key).map_err(|e| refused(format!("key {i} {e}; give public keys only")))?;
    }
    Ok(serde_json::json!({ "keys": keys }))
}
