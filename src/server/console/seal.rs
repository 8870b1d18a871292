//! Cookies that only this service can write: sealed under the master key, each kind for itself.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::server::master_key::{MasterKey, Purpose};
use crate::token::Entropy;

/// The longest sealed text that fits a cookie beside its attributes, bytes: browsers drop cookies over 4096.
const MAX_SEALED_BYTES: usize = 3900;

/// What does not fit a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what has to be kept does not fit a cookie")]
pub struct TooLong;

/// Seals and opens cookies.
#[derive(Clone)]
pub struct Seals {
    master: MasterKey,
    entropy: Arc<dyn Entropy>,
}

impl Seals {
    /// Seals under `master`.
    #[must_use]
    pub fn new(master: MasterKey, entropy: Arc<dyn Entropy>) -> Self {
        Self { master, entropy }
    }

    /// The sealed text of `value`.
    ///
    /// # Errors
    /// [`TooLong`] for a cookie.
    pub fn seal(&self, purpose: Purpose, value: &impl Serialize) -> Result<String, TooLong> {
        let plain = zeroize::Zeroizing::new(serde_json::to_vec(value).map_err(|_| TooLong)?);
        let text = URL_SAFE_NO_PAD.encode(self.master.seal(purpose, b"", &plain, &*self.entropy));
        if text.len() > MAX_SEALED_BYTES { Err(TooLong) } else { Ok(text) }
    }

    /// What was sealed for `purpose`; `None`: it was not sealed here, or for something else.
    #[must_use]
    pub fn open<T: DeserializeOwned>(&self, purpose: Purpose, text: &str) -> Option<T> {
        if text.len() > MAX_SEALED_BYTES {
            return None;
        }
        let sealed = URL_SAFE_NO_PAD.decode(text).ok()?;
        serde_json::from_slice(&self.master.open(purpose, b"", &sealed).ok()?).ok()
    }

    /// A word that a page's forms carry, so that no other site can send them: it follows from `session` alone.
    #[must_use]
    pub fn form_word(&self, session: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.master.mac(FORM_WORD, session.as_bytes()))
    }

    /// Whether `word` is [`Self::form_word`] of `session`, in constant time.
    #[must_use]
    pub fn is_form_word(&self, session: &str, word: &str) -> bool {
        URL_SAFE_NO_PAD
            .decode(word)
            .is_ok_and(|tag| self.master.verify_mac(FORM_WORD, session.as_bytes(), &tag))
    }

    /// A random word of 128 bits.
    #[must_use]
    pub fn random_word(&self) -> String {
        let mut bytes = [0u8; 16];
        self.entropy.fill(&mut bytes);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// A PKCE verifier (RFC 7636 §4.1) of 256 random bits.
    #[must_use]
    pub fn random_verifier(&self) -> String {
        let mut bytes = [0u8; 32];
        self.entropy.fill(&mut bytes);
        URL_SAFE_NO_PAD.encode(bytes)
    }
}

const FORM_WORD: Purpose = Purpose::new("console-form.v1");

#[cfg(test)]
pub(super) fn test_seals() -> Seals {
    Seals::new(MasterKey::from_bytes([7; 32]), Arc::new(crate::token::SystemEntropy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_of_one_kind_is_none_of_another() {
        const A: Purpose = Purpose::new("test-a");
        const B: Purpose = Purpose::new("test-b");
        let seals = test_seals();
        let sealed = seals.seal(A, &"x").unwrap();
        assert_eq!(seals.open::<String>(A, &sealed).as_deref(), Some("x"));
        assert_eq!(seals.open::<String>(B, &sealed), None);
        assert_eq!(seals.open::<String>(A, &sealed[1..]), None);
        assert_eq!(seals.seal(A, &"x".repeat(4000)), Err(TooLong));
    }

    #[test]
    fn a_form_word_fits_one_session() {
        let seals = test_seals();
        let word = seals.form_word("one");
        assert!(seals.is_form_word("one", &word));
        assert!(!seals.is_form_word("two", &word));
        assert!(!seals.is_form_word("one", ""));
    }
}
