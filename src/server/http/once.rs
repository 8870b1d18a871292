//! The `Idempotency-Key` header (IK-1): bare or quoted, once.

use actix_web::HttpRequest;

use super::problem::{Code, Problem};
use crate::server::clients::Client;
use crate::server::issue::RequestKey;
use crate::server::service::Service;

const HEADER: &str = "idempotency-key";
/// The longest key, characters.
const MAX_CHARS: usize = 255;

/// The key of a request and what stands for its body; `None`: the client sent no key.
pub fn key(
    service: &Service,
    client: &Client,
    request: &HttpRequest,
    body: &[u8],
) -> Result<Option<RequestKey>, Problem> {
    let mut headers = request.headers().get_all(HEADER);
    let Some(value) = headers.next() else { return Ok(None) };
    let once = headers.next().is_none();
    let text = value.to_str().ok().filter(|_| once).and_then(unquoted).ok_or_else(|| {
        let detail =
            "`Idempotency-Key` must be sent once: 1 to 255 of A-Z a-z 0-9 _ -, bare or in double quotes.";
        Problem::new(Code::FormParamValueInvalid, detail).param("Idempotency-Key")
    })?;
    let secrets = &service.desk.secrets;
    let path = request.match_pattern().unwrap_or_default();
    Ok(Some(RequestKey {
        key: secrets.request_key(&client.id, request.method().as_str(), &path, text),
        body: secrets.request_body(body),
    }))
}

fn unquoted(text: &str) -> Option<&str> {
    let text = text.trim_matches([' ', '\t']);
    let bare = match text.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"')?,
        None => text,
    };
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    (!bare.is_empty() && bare.len() <= MAX_CHARS && bare.bytes().all(known)).then_some(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ik_1_a_key_is_bare_or_quoted_and_the_same_either_way() {
        assert_eq!(
            unquoted("8e03978e-40d5-43dd-bc93-6894a57f9324"),
            unquoted("\"8e03978e-40d5-43dd-bc93-6894a57f9324\"")
        );
        assert_eq!(unquoted(" a "), Some("a"));
        for bad in ["", "\"\"", "\"a", "a\"", "a b", "ä", "a,b", "'a'", &"x".repeat(256)] {
            assert_eq!(unquoted(bad), None, "{bad}");
        }
    }
}
