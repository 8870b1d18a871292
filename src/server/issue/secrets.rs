//! What handoff codes and idempotency keys are made under: keys derived from the master key, so that nothing
//! stored could be used, and a retry can rebuild what was answered.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::server::log::Tag;
use crate::server::master_key::{MasterKey, Purpose, frame, mac};
use crate::token::signer::sha256;
use crate::token::{ClientId, Entropy, GrantId, Kid};

/// Seals what the policy is asked again with.
const FACTS: Purpose = Purpose::new("handoff-facts.v1");
/// What a code begins with, so that scanners for leaked secrets can find one.
const PREFIX: &str = "hc_";

/// Keys of the desk.
pub struct HandoffSecrets {
    code: hmac::Key,
    request: hmac::Key,
    body: hmac::Key,
    master: MasterKey,
}

impl std::fmt::Debug for HandoffSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HandoffSecrets([redacted])")
    }
}

impl HandoffSecrets {
    /// Derived from `master`.
    #[must_use]
    pub fn new(master: &MasterKey) -> Self {
        Self {
            code: master.mac_key(Purpose::new("handoff-code.v1")),
            request: master.mac_key(Purpose::new("idempotency-key.v1")),
            body: master.mac_key(Purpose::new("idempotency-body.v1")),
            master: master.clone(),
        }
    }

    /// The code of a grant: 160 bits that only this service can compute (contract.md §8).
    pub(super) fn code(&self, grant: &GrantId) -> Zeroizing<String> {
        let tag = Zeroizing::new(mac(&self.code, grant.as_str().as_bytes()));
        Zeroizing::new(format!("{PREFIX}{}", *base32(&tag[..20])))
    }

    /// What finds a code's row. The code has more entropy than any search could walk, so a plain hash will do.
    pub(super) fn code_hash(code: &str) -> Tag {
        Tag(URL_SAFE_NO_PAD.encode(sha256(code.as_bytes())).into())
    }

    /// Stands for an idempotency key: keys belong to (client, method, path).
    #[must_use]
    pub fn request_key(&self, client: &ClientId, method: &str, path: &str, key: &str) -> Tag {
        let parts = [client.as_str().as_bytes(), method.as_bytes(), path.as_bytes(), key.as_bytes()];
        Tag(URL_SAFE_NO_PAD.encode(mac(&self.request, &frame(&parts))).into())
    }

    /// Stands for a body.
    #[must_use]
    pub fn request_body(&self, body: &[u8]) -> Tag {
        Tag(URL_SAFE_NO_PAD.encode(mac(&self.body, body)).into())
    }

    /// Seals facts to their grant.
    pub(super) fn seal(&self, grant: &GrantId, facts: &[u8], entropy: &dyn Entropy) -> Vec<u8> {
        self.master.seal(FACTS, grant.as_str().as_bytes(), facts, entropy)
    }

    /// Opens what was sealed to this grant; `None`: it was not, or was changed.
    pub(super) fn open(&self, grant: &GrantId, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        self.master.open(FACTS, grant.as_str().as_bytes(), sealed).ok()
    }

    /// The key of a grant that is not signed yet: none.
    pub(super) fn unsigned_kid() -> Kid {
        Kid::try_from("unsigned").expect("a short text without control characters")
    }
}

/// Lower-case letters and digits that nobody confuses, as in ids; safe in URLs and fragments.
fn base32(bytes: &[u8]) -> Zeroizing<String> {
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let mut out = Zeroizing::new(String::with_capacity(bytes.len().div_ceil(5) * 8));
    let (mut value, mut bits) = (0u32, 0u32);
    for byte in bytes {
        value = (value << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.push(char::from(ALPHABET[((value >> bits) & 31) as usize]));
        }
    }
    if bits > 0 {
        out.push(char::from(ALPHABET[((value << (5 - bits)) & 31) as usize]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::SystemEntropy;

    fn secrets(byte: u8) -> HandoffSecrets {
        HandoffSecrets::new(&MasterKey::from_bytes([byte; 32]))
    }

    #[test]
    fn a_code_can_be_rebuilt_and_not_guessed() {
        let (a, b): (GrantId, GrantId) = ("act_1".parse().unwrap(), "act_2".parse().unwrap());
        let code = secrets(1).code(&a);
        assert_eq!(code, secrets(1).code(&a));
        assert!(code != secrets(1).code(&b) && code != secrets(2).code(&a));
        assert_eq!(code.len(), 3 + 32);
        assert!(
            code.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_'),
            "contract.md §5: ids' alphabet"
        );
        assert!(!HandoffSecrets::code_hash(&code).0.contains(&code[3..]));
    }

    #[test]
    fn a_key_belongs_to_client_method_and_path() {
        let (a, b): (ClientId, ClientId) = ("client_1".parse().unwrap(), "client_2".parse().unwrap());
        let tag = |client, method, path, key| secrets(1).request_key(client, method, path, key);
        let one = tag(&a, "POST", "/v1/actor_tokens", "k");
        assert_eq!(one, tag(&a, "POST", "/v1/actor_tokens", "k"));
        for other in [
            tag(&b, "POST", "/v1/actor_tokens", "k"),
            tag(&a, "PUT", "/v1/actor_tokens", "k"),
            tag(&a, "POST", "/v1/actor_tokens/redeem", "k"),
            tag(&a, "POST", "/v1/actor_tokens", "K"),
            secrets(2).request_key(&a, "POST", "/v1/actor_tokens", "k"),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn facts_open_for_their_grant_only() {
        let (a, b): (GrantId, GrantId) = ("act_1".parse().unwrap(), "act_2".parse().unwrap());
        let sealed = secrets(1).seal(&a, b"facts", &SystemEntropy);
        assert_eq!(&**secrets(1).open(&a, &sealed).unwrap(), b"facts");
        assert!(secrets(1).open(&b, &sealed).is_none() && secrets(2).open(&a, &sealed).is_none());
    }

    #[test]
    fn base32_is_complete() {
        assert_eq!(&**base32(&[0xff; 20]), "z".repeat(32));
        assert_eq!(&**base32(&[0; 5]), "00000000");
        assert_eq!(base32(&[1]).len(), 2);
    }
}
