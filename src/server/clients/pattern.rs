//! Which actors a client may name who did not prove themselves (`--may-assert`).
//!
//! A pattern is `SUB` or `ISS#SUB`; `*` stands for any run of characters, none included, and every other
//! character for itself. Without `#` a pattern covers only actors named without an issuer; with one it covers
//! only actors named with an issuer, both parts matching. An issuer's address holds no `#`, so the first one
//! parts the two; an empty issuer part (`#SUB`) means an actor without issuer whose id itself may hold `#`.

use std::fmt;

use crate::token::{Issuer, Sub};

/// The longest pattern, bytes.
const MAX_BYTES: usize = 512;
/// The most stars in one pattern: bounds the work of a match.
const MAX_STARS: usize = 8;

/// One pattern of `may_assert`.
#[derive(Clone, PartialEq, Eq)]
pub struct AssertPattern(String);

impl AssertPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// A phrase that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_BYTES {
            return Err(format!("must be 1 to {MAX_BYTES} bytes long"));
        }
        if text.chars().any(char::is_control) {
            return Err("must not contain control characters".to_owned());
        }
        if text.bytes().filter(|b| *b == b'*').count() > MAX_STARS {
            return Err(format!("must not hold more than {MAX_STARS} stars"));
        }
        if text.split_once('#').is_some_and(|(_, sub)| sub.is_empty()) {
            return Err(
                "names an issuer but nobody at it; write ISS#SUB, such as https://login.example#*".to_owned()
            );
        }
        Ok(Self(text.to_owned()))
    }

    /// The pattern as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the pattern covers this actor.
    #[must_use]
    pub fn covers(&self, sub: &Sub, iss: Option<&Issuer>) -> bool {
        match (self.0.split_once('#'), iss) {
            (None, None) => glob(&self.0, sub.as_str()),
            (Some(("", pattern)), None) => glob(pattern, sub.as_str()),
            (Some((issuer, pattern)), Some(iss)) if !issuer.is_empty() => {
                glob(issuer, iss.as_str()) && glob(pattern, sub.as_str())
            }
            _ => false,
        }
    }
}

impl fmt::Debug for AssertPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Whether `text` is `pattern` with every `*` replaced by something: the first part at the start, the last at
/// the end, those between leftmost in order.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(text) = text.strip_prefix(first).and_then(|t| t.strip_suffix(last)) else { return false };
    let found =
        middle.split('*').try_fold(text, |rest, part| rest.find(part).map(|at| &rest[at + part.len()..]));
    found.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_what_it_says_and_nothing_else() {
        for (pattern, sub, iss, expected) in [
            ("admin_7", "admin_7", None, true),
            ("admin_7", "admin_70", None, false),
            ("admin_7", "Admin_7", None, false),
            ("admin_*", "admin_", None, true),
            ("admin_*", "xadmin_7", None, false),
            ("*@example.com", "a@example.com", None, true),
            ("*@example.com", "a@example.com.evil", None, false),
            ("a*b*c", "a-b-c", None, true),
            ("a*b*c", "ac", None, false),
            ("ab*ba", "aba", None, false),
            ("a*b*b", "ab", None, false),
            ("a**b", "ab", None, true),
            ("a?c", "abc", None, false),
            ("*", "anybody", None, true),
            // who is named with an issuer is covered only by a pattern with one, and the reverse
            ("*", "anybody", Some("https://a.example"), false),
            ("*#*", "anybody", None, false),
            ("https://a.example#*", "x", Some("https://a.example"), true),
            ("https://a.example#*", "x", Some("https://a.example.evil"), false),
            ("https://a.example#u_*", "x", Some("https://a.example"), false),
            ("https://a.example#x", "https://a.example#x", None, false),
            ("#a#b", "a#b", None, true),
            ("#a#b", "a#b", Some("https://a.example"), false),
            ("é*", "éa", None, true),
        ] {
            let iss = iss.map(|i| Issuer::try_from(i).unwrap());
            let covers =
                AssertPattern::parse(pattern).unwrap().covers(&Sub::try_from(sub).unwrap(), iss.as_ref());
            assert_eq!(covers, expected, "{pattern} over {sub} of {iss:?}");
        }
    }

    #[test]
    fn a_pattern_that_means_nothing_is_refused() {
        for bad in ["", "a\nb", &"a".repeat(513), "*********", "https://a.example#"] {
            assert!(AssertPattern::parse(bad).is_err(), "{bad:?}");
        }
    }
}
