//! From the `Authorization` header to an identity (RFC 6750 §2.1); never from a query or a form (BE-6).

use crate::token::{Expect, Verifier};

use super::identity::Identity;
use super::refusal::Refusal;

/// Who is calling, by the values of all `Authorization` headers of a request. What he may do is another
/// question ([`super::Admission::check`]).
pub fn identify<'a>(
    verifier: &Verifier,
    authorization: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Identity, Refusal> {
    identify_for(verifier, authorization, Expect::default())
}

/// As [`identify`], with a caller's own demands.
pub fn identify_for<'a>(
    verifier: &Verifier,
    authorization: impl IntoIterator<Item = &'a [u8]>,
    expect: Expect<'_>,
) -> Result<Identity, Refusal> {
    let token = bearer(authorization)?;
    let accepted = verifier.verify_with(token, expect).map_err(Refusal::Token)?;
    Ok(Identity::new(accepted.token, accepted.stale))
}

/// The bearer token of a request. The scheme is compared without case (BE-1); another scheme counts as no
/// credentials, two headers as a malformed request (BE-4).
pub fn bearer<'a>(authorization: impl IntoIterator<Item = &'a [u8]>) -> Result<&'a str, Refusal> {
    let mut values = authorization.into_iter();
    let value = values.next().ok_or(Refusal::NoCredentials)?;
    if values.next().is_some() {
        return Err(Refusal::Malformed("there is more than one"));
    }
    let (scheme, rest) = match value.iter().position(|byte| *byte == b' ') {
        Some(space) => value.split_at(space),
        None => (value, &b""[..]),
    };
    if !scheme.eq_ignore_ascii_case(b"Bearer") {
        return Err(Refusal::NoCredentials);
    }
    let token = rest.trim_ascii_start();
    // RFC 6750's b64token; what of it is no token of ours is the verifier's to say.
    let allowed = |byte: &u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=')
    };
    if token.is_empty() || !token.iter().all(allowed) {
        return Err(Refusal::Malformed("it holds no token"));
    }
    std::str::from_utf8(token).map_err(|_| Refusal::Malformed("it holds no token"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Result<String, Refusal> {
        bearer(values.iter().map(|value| value.as_bytes())).map(str::to_owned)
    }

    #[test]
    fn exactly_one_bearer_token_is_read() {
        // BE-1, BE-2, BE-4
        for good in ["Bearer a.b.c", "bearer a.b.c", "BEARER a.b.c", "bEaReR   a.b.c"] {
            assert_eq!(read(&[good]).unwrap(), "a.b.c", "{good}");
        }
        for absent in [&[][..], &["Basic YTpi"], &["DPoP a.b.c"], &["Bearerx a.b.c"], &[""], &["a.b.c"]] {
            assert_eq!(read(absent), Err(Refusal::NoCredentials), "{absent:?}");
        }
        for malformed in [
            &["Bearer"][..],
            &["Bearer "],
            &["Bearer a.b.c "],
            &["Bearer a b"],
            &["Bearer a, Bearer b"],
            &["Bearer \"a\""],
            &["Bearer ä"],
            &["Bearer a", "Bearer a"],
            &["Basic YTpi", "Bearer a"],
        ] {
            assert!(matches!(read(malformed), Err(Refusal::Malformed(_))), "{malformed:?}");
        }
    }
}
