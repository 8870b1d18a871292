//! Reads an OAuth form strictly (RFC 6749 §3.2): one value a parameter, no value means omitted, unknown ones ignored.

use std::collections::BTreeMap;

use actix_web::HttpRequest;
use actix_web::http::header;

use super::error::OAuthError;

/// Parameters that may stand more than once (RFC 8693 §2.1, RFC 8707 §2).
const REPEATABLE: &[&str] = &["resource", "audience"];
/// The most parameters in one form.
const MAX_PARAMETERS: usize = 64;

/// The parameters of a form.
#[derive(Default)]
pub struct Form {
    single: BTreeMap<String, String>,
    repeated: BTreeMap<String, Vec<String>>,
}

impl Form {
    /// Reads the body of `request`.
    ///
    /// # Errors
    /// `invalid_request` for another media type (OA-6), a repeated parameter (OA-4) or a body that cannot be decoded.
    pub fn parse(request: &HttpRequest, body: &[u8]) -> Result<Self, OAuthError> {
        let media = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
        let essence = media.split(';').next().unwrap_or("").trim();
        if !essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(OAuthError::invalid_request(
                "send the parameters as application/x-www-form-urlencoded",
            ));
        }
        if !request.query_string().is_empty() {
            return Err(OAuthError::invalid_request("parameters belong in the body, never in the URL"));
        }
        let text =
            std::str::from_utf8(body).map_err(|_| OAuthError::invalid_request("the body is not UTF-8"))?;
        let mut form = Self::default();
        for (count, pair) in text.split('&').filter(|p| !p.is_empty()).enumerate() {
            if count >= MAX_PARAMETERS {
                return Err(OAuthError::invalid_request("too many parameters"));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) = (decode(name), decode(value)) else {
                return Err(OAuthError::invalid_request("the body is not form-encoded"));
            };
            form.insert(name, value)?;
        }
        Ok(form)
    }

    fn insert(&mut self, name: String, value: String) -> Result<(), OAuthError> {
        // OA-2: a parameter without a value counts as omitted.
        if value.is_empty() {
            return Ok(());
        }
        if REPEATABLE.contains(&name.as_str()) {
            self.repeated.entry(name).or_default().push(value);
        } else if self.single.insert(name, value).is_some() {
            return Err(OAuthError::invalid_request("a parameter is given twice"));
        }
        Ok(())
    }

    /// A parameter's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.single.get(name).map(String::as_str)
    }

    /// All values of a repeatable parameter.
    pub fn all(&self, name: &str) -> &[String] {
        self.repeated.get(name).map_or(&[], Vec::as_slice)
    }

    /// A parameter that must be there.
    pub fn need(&self, name: &'static str) -> Result<&str, OAuthError> {
        self.get(name).ok_or_else(|| OAuthError::invalid_request(format!("{name} is missing")))
    }
}

/// Undoes form-encoding: `+` is a space, `%XX` a byte; `None` for anything malformed.
pub fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn parse(body: &str) -> Result<Form, OAuthError> {
        let request = TestRequest::post()
            .insert_header((header::CONTENT_TYPE, "application/x-www-form-urlencoded; charset=UTF-8"))
            .to_http_request();
        Form::parse(&request, body.as_bytes())
    }

    #[test]
    fn oa_2_3_4_values_are_single_and_empty_ones_omitted() {
        let form = parse("a=1&b=&c=x+y%2B&audience=p&audience=q&unknown=z").unwrap();
        assert_eq!((form.get("a"), form.get("b"), form.get("c")), (Some("1"), None, Some("x y+")));
        assert_eq!(form.all("audience"), ["p", "q"]);
        for bad in ["a=1&a=2", "a=%zz", "a=%ff", "%=1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn oa_6_another_media_type_is_refused() {
        let request =
            TestRequest::post().insert_header((header::CONTENT_TYPE, "application/json")).to_http_request();
        assert!(Form::parse(&request, b"{}").is_err());
    }
}
