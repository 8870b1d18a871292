//! An impersonation in a browser session, kept apart from the person's own: on a host of its own.
//!
//! The impersonated session lives on another host than the product's ordinary one (`as.example.com` beside
//! `www.example.com`), in a host-only `__Host-` cookie. The admin's own cookie never reaches that host, so a
//! script that a customer planted in his content cannot become the admin; and nothing has to be restored at
//! the end, since nothing was replaced. There is no mode for a single host: whatever such a mode kept of the
//! admin's session would lie within reach of the page that shows the customer's content.
//!
//! The way in (contract.md §8): the console sends the browser to the product's start address with a draft;
//! [`SessionHost::begin`] makes a verifier, puts it into a cookie and names the `code_challenge`; the code comes
//! back by POST, is redeemed together with [`SessionHost::verifier`], and [`SessionHost::enter`] sets the session.
//! The way out: [`SessionHost::leave`] clears everything and names where the person goes back to.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};

use crate::token::Entropy;

/// The cookie that holds the impersonated session's token.
pub const SESSION_COOKIE: &str = "__Host-stagedoor-session";
/// The cookie that holds the verifier while a code is on its way.
pub const VERIFIER_COOKIE: &str = "__Host-stagedoor-verifier";
/// How long a verifier waits for its code, seconds: the person may have to wait for a colleague's approval.
pub const VERIFIER_SECONDS: u32 = 1800;
/// The longest token that fits a cookie beside its attributes, bytes: browsers drop cookies over 4096.
pub const MAX_COOKIE_TOKEN_BYTES: usize = 3800;

/// Why a session was not begun or entered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The host of impersonated sessions must not be the host of ordinary ones.
    #[error("impersonated sessions need a host of their own, other than {0}")]
    SameHost(String),
    /// Not an origin such as `https://as.example.com`.
    #[error("{0} is not an origin such as https://as.example.com")]
    NotAnOrigin(String),
    /// The token does not fit a cookie.
    #[error("the token is too long for a cookie")]
    TokenTooLong,
    /// The token has ended.
    #[error("the impersonation is over")]
    Over,
    /// The token has characters that no token has.
    #[error("the token is not a token")]
    NotAToken,
}

/// A verifier made for one start.
pub struct Begun {
    /// `Set-Cookie`: the verifier, for this host only.
    pub set_cookie: String,
    /// The S256 challenge that goes back to the console (RFC 7636 §4.2).
    pub code_challenge: String,
}

/// What ends an impersonated session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Each one a `Set-Cookie` header.
    pub set_cookies: Vec<String>,
    /// `Clear-Site-Data`: nothing that was seen stays in cache or storage of this host.
    pub clear_site_data: &'static str,
    /// Where the person is himself again.
    pub location: String,
}

/// The host of impersonated sessions, and the one to go back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionHost {
    origin: String,
    home: String,
}

impl SessionHost {
    /// `origin` serves impersonated sessions (`https://as.example.com`), `home` the ordinary ones.
    ///
    /// # Errors
    /// They share a host name (cookies do not tell ports apart), or are not origins.
    pub fn new(origin: &str, home: &str) -> Result<Self, SessionError> {
        let (ours, theirs) = (host_of(origin)?, host_of(home)?);
        if ours.eq_ignore_ascii_case(theirs) {
            return Err(SessionError::SameHost(theirs.to_owned()));
        }
        let trimmed = |o: &str| o.trim_end_matches('/').to_owned();
        Ok(Self { origin: trimmed(origin), home: trimmed(home) })
    }

    /// Begins a start: a verifier for the cookie, its challenge for the console.
    #[must_use]
    pub fn begin(&self, entropy: &dyn Entropy) -> Begun {
        let mut random = [0u8; 32];
        entropy.fill(&mut random);
        let verifier = URL_SAFE_NO_PAD.encode(random);
        let code_challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()).as_ref());
        // Lax: the console's POST that brings the code is cross-site, so the callback page posts to itself
        // once (see docs/console.md); Strict would lose the cookie on the redirect back as well.
        let set_cookie = format!(
            "{VERIFIER_COOKIE}={verifier}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={VERIFIER_SECONDS}"
        );
        Begun { set_cookie, code_challenge }
    }

    /// The verifier of a start under way, from the request's `Cookie` headers.
    #[must_use]
    pub fn verifier<'a>(&self, cookies: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        cookie(cookies, VERIFIER_COOKIE)
    }

    /// Enters the session: the cookies that hold the token and drop the verifier.
    ///
    /// # Errors
    /// The token is over, or does not fit a cookie.
    pub fn enter(
        &self,
        token: &str,
        exp: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Vec<String>, SessionError> {
        if token.len() > MAX_COOKIE_TOKEN_BYTES {
            return Err(SessionError::TokenTooLong);
        }
        if !token.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
            return Err(SessionError::NotAToken);
        }
        let seconds = (exp - now).num_seconds();
        if seconds <= 0 {
            return Err(SessionError::Over);
        }
        Ok(vec![
            format!("{SESSION_COOKIE}={token}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}"),
            cleared(VERIFIER_COOKIE),
        ])
    }

    /// The session's token, from the request's `Cookie` headers. It still has to be verified.
    #[must_use]
    pub fn token<'a>(&self, cookies: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        cookie(cookies, SESSION_COOKIE)
    }

    /// Whether a request that changes something comes from this host's own pages: `Origin` must be ours, and
    /// where a browser sends none, `Sec-Fetch-Site` must say same-origin. Neither there: refused.
    ///
    /// Ask it at every route that changes something: to `SameSite=Lax` the product's other hosts are the same site.
    #[must_use]
    pub fn is_own(&self, origin: Option<&str>, sec_fetch_site: Option<&str>) -> bool {
        match (origin, sec_fetch_site) {
            (Some(origin), _) => origin.eq_ignore_ascii_case(&self.origin),
            (None, Some(site)) => site == "same-origin",
            (None, None) => false,
        }
    }

    /// Leaves the session, by the Stop button or because it is over. The caller also tells the issuer
    /// (`POST /v1/actor_tokens/stop`), so that the token is dead wherever a copy of it may be.
    #[must_use]
    pub fn leave(&self) -> Left {
        Left {
            set_cookies: vec![cleared(SESSION_COOKIE), cleared(VERIFIER_COOKIE)],
            clear_site_data: r#""cache", "storage""#,
            location: format!("{}/", self.home),
        }
    }

    /// This host's own origin.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Where the person is himself.
    #[must_use]
    pub fn home(&self) -> &str {
        &self.home
    }
}

fn cleared(name: &str) -> String {
    format!("{name}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0")
}

/// The host name of an origin, without its port.
fn host_of(origin: &str) -> Result<&str, SessionError> {
    let wrong = || SessionError::NotAnOrigin(origin.to_owned());
    let rest =
        origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://")).ok_or_else(wrong)?;
    let authority = rest.trim_end_matches('/');
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => authority,
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'[' | b']' | b':');
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(wrong());
    }
    Ok(name)
}

/// The only cookie of this name; two of them mean that somebody planted one, and neither counts.
fn cookie<'a>(headers: impl IntoIterator<Item = &'a str>, name: &str) -> Option<&'a str> {
    let mut found = headers
        .into_iter()
        .flat_map(|header| header.split(';'))
        // RFC 6265 §5.4: nothing else is white space here, and a browser gives no `__Host-` promise for a name with more
        .filter_map(|pair| pair.trim_matches([' ', '\t']).split_once('='))
        .filter(|(key, value)| *key == name && !value.is_empty())
        .map(|(_, value)| value);
    let first = found.next();
    if found.next().is_some() { None } else { first }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::SystemEntropy;

    fn host() -> SessionHost {
        SessionHost::new("https://as.example.com", "https://www.example.com/").unwrap()
    }

    #[test]
    fn a_single_host_is_refused_whatever_its_port() {
        for home in ["https://as.example.com", "https://AS.example.com:8443", "http://as.example.com"] {
            assert!(matches!(
                SessionHost::new("https://as.example.com", home),
                Err(SessionError::SameHost(_))
            ));
        }
        assert!(SessionHost::new("as.example.com", "https://www.example.com").is_err());
        assert!(SessionHost::new("https://a/b", "https://www.example.com").is_err());
    }

    #[test]
    fn the_challenge_is_the_sha_256_of_the_verifier_in_the_cookie() {
        let begun = host().begin(&SystemEntropy);
        let pair = begun.set_cookie.split(';').next().unwrap();
        let verifier = host().verifier([pair]).unwrap();
        assert_eq!(verifier.len(), 43, "RFC 7636: 43 to 128 characters");
        assert_eq!(URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes())), begun.code_challenge);
        for needed in ["Secure", "HttpOnly", "Path=/", "SameSite=Lax"] {
            assert!(begun.set_cookie.contains(needed));
        }
        assert!(!begun.set_cookie.contains("Domain"), "host-only");
    }

    #[test]
    fn only_a_cookie_of_exactly_this_name_counts() {
        let verifier = |header: &str| host().verifier([header]).map(str::to_owned);
        assert!(verifier("a=b; __Host-stagedoor-verifier=mine;c=d").is_some());
        // what a browser lets a sibling domain set
        for planted in [
            "\u{2000}__Host-stagedoor-verifier=x",
            "a=b;\u{85}__Host-stagedoor-verifier=x",
            "__host-stagedoor-verifier=x",
        ] {
            assert_eq!(verifier(planted), None, "{planted:?}");
        }
    }

    #[test]
    fn a_session_lives_no_longer_than_its_token() {
        let at = |s| DateTime::from_timestamp(s, 0).unwrap();
        let set = host().enter("aa.bb.cc", at(160), at(100)).unwrap();
        assert!(set[0].starts_with("__Host-stagedoor-session=aa.bb.cc;") && set[0].contains("Max-Age=60"));
        assert!(set[1].contains("Max-Age=0"), "the verifier is gone");
        assert_eq!(host().enter("aa.bb.cc", at(100), at(100)), Err(SessionError::Over));
        assert_eq!(host().enter("a;b", at(160), at(100)), Err(SessionError::NotAToken));
        assert_eq!(host().enter(&"a".repeat(4000), at(160), at(100)), Err(SessionError::TokenTooLong));
    }

    #[test]
    fn two_cookies_of_one_name_count_as_none() {
        let host = host();
        assert_eq!(host.token(["a=1; __Host-stagedoor-session=x.y.z"]), Some("x.y.z"));
        assert_eq!(host.token(["__Host-stagedoor-session=x; __Host-stagedoor-session=y"]), None);
        assert_eq!(host.token(["__Host-stagedoor-session=x", "__Host-stagedoor-session=y"]), None);
        assert_eq!(host.token(["x__Host-stagedoor-session=x"]), None);
    }

    #[test]
    fn only_this_hosts_own_pages_may_change_something() {
        let host = host();
        assert!(host.is_own(Some("https://as.example.com"), None));
        assert!(host.is_own(None, Some("same-origin")));
        for (origin, site) in [
            (Some("https://www.example.com"), Some("same-site")),
            (Some("null"), Some("same-origin")),
            (None, Some("cross-site")),
            (None, None),
        ] {
            assert!(!host.is_own(origin, site), "{origin:?} {site:?}");
        }
    }
}
