//! Strict JSON: what two readers could understand differently is refused.
//!
//! Used for JWS headers and payloads, published key sets and request bodies alike. The caller
//! limits the size before calling; this file looks at form only.

use serde_json::Value;

/// Depth that no honest token, key set or request body of this service reaches.
pub const MAX_DEPTH: usize = 16;

/// `serde_json` stops at 128 by itself; a higher limit here would promise what it cannot keep.
const HARD_MAX_DEPTH: usize = 127;

/// Why a text was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not UTF-8 (BP-11), or with a byte-order mark in front.
    #[error("is not plain UTF-8")]
    NotUtf8,
    /// Objects and arrays nested deeper than the caller allows.
    #[error("is nested too deeply")]
    TooDeep,
    /// Not JSON (RFC 8259), or a number no 64-bit reader can hold.
    #[error("is not valid JSON")]
    Syntax,
    /// One object names a member twice (JW-6): readers differ in which one counts.
    #[error("repeats a member name")]
    DuplicateMember,
}

/// Reads one JSON text: UTF-8 without byte-order mark, no member twice in any object, at most
/// `max_depth` nested objects and arrays, nothing after the value but white space.
pub fn parse_strict(bytes: &[u8], max_depth: usize) -> Result<Value, JsonError> {
    let text = std::str::from_utf8(bytes).map_err(|_| JsonError::NotUtf8)?;
    if text.starts_with('\u{feff}') {
        return Err(JsonError::NotUtf8);
    }
    let outline = Outline::of(bytes);
    if outline.depth > max_depth.min(HARD_MAX_DEPTH) {
        return Err(JsonError::TooDeep);
    }
    if names_reserved(text) {
        return Err(JsonError::Syntax);
    }
    let value: Value = serde_json::from_str(text).map_err(|_| JsonError::Syntax)?;
    // In valid JSON every colon outside a string belongs to exactly one member. `Value` keeps one of
    // two namesakes (and loses all that was nested in the other), so it then holds fewer members.
    // This needs no second parser.
    if members(&value) == outline.colons { Ok(value) } else { Err(JsonError::DuplicateMember) }
}

/// Whether a text holds a name that `serde_json` keeps for itself: with features that any crate of a build may switch on,
/// such a member is not read as one, and what its text holds is not counted.
fn names_reserved(text: &str) -> bool {
    const RESERVED: &str = "$serde_json::private::";
    // any of its characters can be written as an escape
    let escaped = || {
        let mut parts = text.split("\\u00");
        let mut plain = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
            plain.extend(byte.map(char::from));
            plain.push_str(if byte.is_some() { &part[2..] } else { part });
        }
        plain.contains(RESERVED)
    };
    text.contains(RESERVED) || text.contains("\\u00") && escaped()
}

/// What can be seen of a JSON text without parsing it.
struct Outline {
    /// Deepest nesting of `{` and `[` outside strings.
    depth: usize,
    /// Colons outside strings.
    colons: usize,
}

impl Outline {
    fn of(bytes: &[u8]) -> Self {
        let (mut depth, mut deepest, mut colons) = (0usize, 0usize, 0usize);
        let (mut in_string, mut escaped) = (false, false);
        for &byte in bytes {
            if in_string {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' => escaped = true,
                    b'"' => in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => in_string = true,
                b'{' | b'[' => {
                    depth += 1;
                    deepest = deepest.max(depth);
                }
                b'}' | b']' => depth = depth.saturating_sub(1),
                b':' => colons += 1,
                _ => {}
            }
        }
        Self { depth: deepest, colons }
    }
}

/// How many members all objects within `value` have together. Recursion is bounded by the depth limit.
fn members(value: &Value) -> usize {
    match value {
        Value::Object(object) => object.len() + object.values().map(members).sum::<usize>(),
        Value::Array(array) => array.iter().map(members).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_named_twice_is_refused_at_any_depth() {
        // JW-6
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":{"b":1},"a":2}"#,
            r#"{"x":[{"y":{"k":1,"k":2}}]}"#,
            r#"{"act":{"sub":"a"},"\u0061ct":{"sub":"b"}}"#,
            r#"{"":0,"":0}"#,
        ] {
            assert_eq!(parse_strict(text.as_bytes(), MAX_DEPTH), Err(JsonError::DuplicateMember), "{text}");
        }
        for text in [r#"{"a":{"a":{"a":":"}}}"#, r#"{"a:b":"c\":d","e\\":[":",{"f":"\\"}]}"#, r#"["a:b", 1]"#]
        {
            assert!(parse_strict(text.as_bytes(), MAX_DEPTH).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_member_that_serde_json_reserves_is_refused() {
        // With `arbitrary_precision` and `raw_value` (any crate of the build may switch them on) these would become a number,
        // and what the text holds.
        for text in [
            r#"{"$serde_json::private::Number":"1"}"#,
            r#"{"$serde_json::private::RawValue":"{\"act\":1,\"act\":2}"}"#,
            r#"{"a":[{"\u0024serde_json::private::RawValue":"1"}]}"#,
            r#"{"$\u0073erde\u005Fjson::private::RawValue":"1"}"#,
        ] {
            assert_eq!(parse_strict(text.as_bytes(), MAX_DEPTH), Err(JsonError::Syntax), "{text}");
        }
        for text in [r#"{"a":"\u00e9 \u0041 \u00zz"}"#, r#"{"a":"\u00"}"#] {
            assert_eq!(parse_strict(text.as_bytes(), MAX_DEPTH), Err(JsonError::Syntax), "{text}");
        }
        assert!(parse_strict(br#"{"a":"\u00e9\u0041 \\u00 serde_json"}"#, MAX_DEPTH).is_ok());
    }

    #[test]
    fn nesting_is_counted_and_not_survived_by_luck() {
        let deep = |n: usize| [vec![b'['; n], vec![b']'; n]].concat();
        assert!(parse_strict(&deep(16), 16).is_ok());
        assert_eq!(parse_strict(&deep(17), 16), Err(JsonError::TooDeep));
        assert_eq!(parse_strict(&deep(128), usize::MAX), Err(JsonError::TooDeep));
        assert_eq!(parse_strict(&deep(2_000_000), 16), Err(JsonError::TooDeep));
        assert!(parse_strict(br#""[[[[[[[[[[[[[[[[[[[[[[[[[""#, 1).is_ok());
    }

    #[test]
    fn only_plain_utf8_is_read() {
        // BP-11
        assert_eq!(parse_strict(b"\xef\xbb\xbf{}", 4), Err(JsonError::NotUtf8));
        assert_eq!(parse_strict(b"{\"a\":\"\xff\"}", 4), Err(JsonError::NotUtf8));
        assert_eq!(parse_strict(b"{\x00}", 4), Err(JsonError::Syntax));
        assert_eq!(parse_strict(b"{} x", 4), Err(JsonError::Syntax));
        assert_eq!(parse_strict(b"", 4), Err(JsonError::Syntax));
        assert_eq!(parse_strict(br#"{"a":NaN}"#, 4), Err(JsonError::Syntax));
        assert_eq!(parse_strict(br#""\ud800""#, 4), Err(JsonError::Syntax));
    }
}
