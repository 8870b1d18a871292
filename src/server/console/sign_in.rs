//! Signing in at the company's identity provider: authorization code with PKCE, `state` and `nonce` (OIDC Core §3.1).

use std::sync::Arc;

use aws_lc_rs::constant_time;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use super::seal::Seals;
use super::session::Session;
use crate::server::actors::{ActorTokenError, Actors, Declared};
use crate::server::config::Secret;
use crate::server::master_key::Purpose;
use crate::server::outbound::{Answer, Call, Outbound, OutboundError, Url, percent_encode};
use crate::token::Issuer;
use crate::token::jws::{MAX_TOKEN_BYTES, UnverifiedJws};
use crate::token::signer::sha256;

/// The cookie that holds a sign-in under way.
pub const COOKIE: &str = "__Host-stagedoor-signin";
/// How long a person may take at the provider, seconds.
pub const SIGN_IN_SECONDS: i64 = 600;
/// The longest parameter of a callback that is looked at, bytes.
const MAX_PARAMETER: usize = 4096;

const SIGN_IN: Purpose = Purpose::new("console-sign-in.v1");

/// Why nobody is signed in.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// The provider, or its token endpoint, cannot be asked.
    #[error("the identity provider cannot be asked")]
    Unreachable(#[source] OutboundError),
    /// It answered something that OpenID Connect does not know.
    #[error("the identity provider's answer cannot be used: {0}")]
    Malformed(&'static str),
    /// It refused (`error` of its answer, a word of the protocol).
    #[error("the identity provider refused the sign-in")]
    Refused,
    /// The answer belongs to no sign-in that this browser began, or comes too late.
    #[error("this browser began no such sign-in, or too long ago")]
    NotBegun,
    /// Its ID token proves nothing.
    #[error("the identity provider's token is not acceptable")]
    Token(#[source] ActorTokenError),
    /// The ID token is for another sign-in.
    #[error("the token belongs to another sign-in")]
    Nonce,
    /// He acts for somebody else: a token with `act` opens no console.
    #[error("whoever acts as somebody else cannot use the console")]
    Impersonated,
    /// A value does not fit a cookie.
    #[error("what the identity provider says of this person does not fit a cookie")]
    TooLong,
}

/// This service as a client of the identity provider.
pub struct RelyingParty {
    /// The provider.
    pub issuer: Issuer,
    /// Where its metadata is.
    pub discovery: String,
    /// Our id there.
    pub client_id: String,
    /// Our secret there.
    pub client_secret: Secret,
    /// Where it sends people back to.
    pub redirect_uri: String,
    /// Verifies its ID tokens: this issuer and this client alone.
    pub actors: Actors,
    /// What calls it.
    pub outbound: Outbound,
}

/// What a browser keeps while its owner is at the provider.
#[derive(Serialize, Deserialize)]
struct Pending {
    state: String,
    nonce: String,
    verifier: String,
    back: String,
    exp: DateTime<Utc>,
}

/// A sign-in that was begun.
pub struct Begun {
    /// Where the browser goes.
    pub location: String,
    /// The value of [`COOKIE`].
    pub cookie: String,
}

/// The provider's answer, as the browser brings it.
#[derive(Debug, Default, Deserialize)]
pub struct Callback {
    code: Option<String>,
    state: Option<String>,
    iss: Option<String>,
    error: Option<String>,
}

struct Metadata {
    authorization: String,
    token: Url,
    secret_by_post: bool,
    names_itself: bool,
}

impl RelyingParty {
    /// Begins a sign-in that will return to `back`, a path of the console.
    ///
    /// # Errors
    /// The provider cannot be asked, or its metadata cannot be used.
    pub async fn begin(&self, seals: &Seals, back: &str, now: DateTime<Utc>) -> Result<Begun, SignInError> {
        let metadata = self.metadata().await?;
        let pending = Pending {
            state: seals.random_word(),
            nonce: seals.random_word(),
            verifier: seals.random_verifier(),
            back: back.to_owned(),
            exp: now + TimeDelta::seconds(SIGN_IN_SECONDS),
        };
        let challenge = URL_SAFE_NO_PAD.encode(sha256(pending.verifier.as_bytes()));
        let query = form(&[
            ("response_type", "code"),
            ("client_id", &self.client_id),
            ("redirect_uri", &self.redirect_uri),
            ("scope", "openid"),
            ("state", &pending.state),
            ("nonce", &pending.nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ]);
        let joint = if metadata.authorization.contains('?') { '&' } else { '?' };
        Ok(Begun {
            location: format!("{}{joint}{query}", metadata.authorization),
            cookie: seals.seal(SIGN_IN, &pending).map_err(|_| SignInError::TooLong)?,
        })
    }

    /// Ends a sign-in: the session that begins, and where the person wanted to go.
    ///
    /// # Errors
    /// Whatever does not fit; nobody is signed in then.
    pub async fn finish(
        &self,
        seals: &Seals,
        cookie: Option<&str>,
        callback: Callback,
        now: DateTime<Utc>,
    ) -> Result<(Session, String), SignInError> {
        let pending: Pending = cookie
            .and_then(|cookie| seals.open(SIGN_IN, cookie))
            .filter(|pending: &Pending| now < pending.exp)
            .ok_or(SignInError::NotBegun)?;
        let state = callback.state.unwrap_or_default();
        if constant_time::verify_slices_are_equal(state.as_bytes(), pending.state.as_bytes()).is_err() {
            return Err(SignInError::NotBegun);
        }
        if callback.error.is_some() {
            return Err(SignInError::Refused);
        }
        let metadata = self.metadata().await?;
        // RFC 9207: a provider that says who answers must be the one that was asked.
        match callback.iss {
            Some(iss) if iss == self.issuer.as_str() => {}
            None if !metadata.names_itself => {}
            _ => return Err(SignInError::Malformed("it names another issuer")),
        }
        let code = callback.code.filter(|c| !c.is_empty() && c.len() <= MAX_PARAMETER);
        let code = code.ok_or(SignInError::Malformed("it has no code"))?;
        let id_token = self.exchange(&metadata, &code, &pending.verifier).await?;
        let session = self.session(seals, &id_token, &pending.nonce, now).await?;
        Ok((session, pending.back))
    }

    async fn metadata(&self) -> Result<Metadata, SignInError> {
        let url = self.outbound.destination(&self.discovery).map_err(SignInError::Unreachable)?;
        let answer = self
            .outbound
            .send(Call::get(url).accept("application/json"))
            .await
            .map_err(SignInError::Unreachable)?;
        let metadata = ok_json(&answer)?;
        let text = |name: &str| metadata.get(name).and_then(Value::as_str);
        if text("issuer") != Some(self.issuer.as_str()) {
            return Err(SignInError::Malformed("its metadata name another issuer"));
        }
        let authorization = text("authorization_endpoint").and_then(|a| Url::parse(a).ok());
        let authorization = authorization
            .filter(|a| matches!(a.scheme(), "https" | "http") && a.fragment().is_none())
            .ok_or(SignInError::Malformed("it names no authorization endpoint"))?;
        let token = text("token_endpoint").ok_or(SignInError::Malformed("it names no token endpoint"))?;
        let methods = metadata.get("token_endpoint_auth_methods_supported").and_then(Value::as_array);
        let has = |word: &str| methods.is_some_and(|m| m.iter().any(|one| one == word));
        let names_itself = metadata.get("authorization_response_iss_parameter_supported");
        Ok(Metadata {
            authorization: authorization.to_string(),
            token: self.outbound.destination(token).map_err(SignInError::Unreachable)?,
            secret_by_post: has("client_secret_post") && !has("client_secret_basic"),
            names_itself: names_itself == Some(&Value::Bool(true)),
        })
    }

    /// The ID token for a code.
    async fn exchange(&self, metadata: &Metadata, code: &str, verifier: &str) -> Result<String, SignInError> {
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", self.redirect_uri.as_str()),
            ("code_verifier", verifier),
        ];
        if metadata.secret_by_post {
            fields.push(("client_id", &self.client_id));
            fields.push(("client_secret", self.client_secret.expose()));
        }
        let body = form(&fields).into_bytes();
        let mut call = Call::post(metadata.token.clone(), "application/x-www-form-urlencoded", body)
            .accept("application/json");
        if !metadata.secret_by_post {
            // RFC 6749 §2.3.1: both halves are form-encoded before they are joined.
            let id = percent_encode(&self.client_id);
            let secret = Zeroizing::new(percent_encode(self.client_secret.expose()));
            let pair = Zeroizing::new(format!("{id}:{}", *secret));
            let basic = Zeroizing::new(format!("Basic {}", *Zeroizing::new(STANDARD.encode(&*pair))));
            call = call.authorization(&basic).map_err(SignInError::Unreachable)?;
        }
        let answer = self.outbound.send(call).await.map_err(SignInError::Unreachable)?;
        if answer.status == 400 || answer.status == 401 {
            return Err(SignInError::Refused);
        }
        match ok_json(&answer)?.get("id_token") {
            Some(Value::String(token)) => Ok(token.clone()),
            _ => Err(SignInError::Malformed("it has no id_token")),
        }
    }

    async fn session(
        &self,
        seals: &Seals,
        id_token: &str,
        nonce: &str,
        now: DateTime<Utc>,
    ) -> Result<Session, SignInError> {
        let actor = self.actors.verify_actor_token(id_token, Declared::IdToken, now).await;
        let actor: Arc<_> = actor.map_err(SignInError::Token)?;
        // What was just verified, read once more for the one claim that no other caller needs.
        let claims = UnverifiedJws::parse(id_token, MAX_TOKEN_BYTES)
            .and_then(|jws| jws.unverified_claims())
            .map_err(|_| SignInError::Nonce)?;
        let said = claims.get("nonce").and_then(Value::as_str).unwrap_or_default();
        if constant_time::verify_slices_are_equal(said.as_bytes(), nonce.as_bytes()).is_err() {
            return Err(SignInError::Nonce);
        }
        if actor.acts_for_others || claims.contains_key("act") {
            return Err(SignInError::Impersonated);
        }
        Ok(Session::begin(seals.random_word(), actor.facts.clone(), actor.issuer.clone(), now))
    }
}

fn ok_json(answer: &Answer) -> Result<Value, SignInError> {
    if answer.status != 200 {
        return Err(SignInError::Malformed("its status is not 200"));
    }
    serde_json::from_slice(&answer.body).map_err(|_| SignInError::Malformed("it is not JSON"))
}

fn form(fields: &[(&str, &str)]) -> String {
    let pair = |(name, value): &(&str, &str)| format!("{name}={}", percent_encode(value));
    fields.iter().map(pair).collect::<Vec<_>>().join("&")
}

/// A place in the console to go to after signing in; anything else is the console's front page.
#[must_use]
pub fn way_back(wanted: Option<&str>) -> &str {
    let inside = |path: &&str| {
        (*path == "/console" || path.starts_with("/console/") || path.starts_with("/console?"))
            && path.len() <= 1000
            && path.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'\\' | b'#'))
    };
    wanted.filter(inside).unwrap_or("/console")
}

#[cfg(test)]
mod tests {
    use super::way_back;

    #[test]
    fn a_sign_in_leads_back_into_the_console_and_nowhere_else() {
        assert_eq!(way_back(Some("/console/audit?actor=a")), "/console/audit?actor=a");
        for bad in [
            "https://evil.example",
            "//evil.example",
            "/v1/x",
            "/console\\evil",
            "/consoleevil",
            "/console/\r\nx",
        ] {
            assert_eq!(way_back(Some(bad)), "/console", "{bad}");
        }
        assert_eq!(way_back(None), "/console");
    }
}
