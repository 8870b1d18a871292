//! Client secrets: how they look, how they are made, how they are stored.
//!
//! `sk_live_` or `sk_test_`, 33 random characters of `[A-Za-z0-9]` (196 bits), and a check sum of 6: CRC-32
//! (IEEE 802.3) of all that stands before it, prefix included, in base 62 (`0-9A-Za-z`, most significant
//! first, padded with `0`), as GitHub's tokens have one. A scanner finds a leak by
//! `\bsk_(live|test)_[A-Za-z0-9]{39}\b` and rules out look-alikes by the check sum, without asking us.
//!
//! Stored is its SHA-256, inside the client's row, which is authenticated as a whole (HMAC under a key derived
//! from the master key): nobody without that key can add a hash. A slow hash would add nothing against 196
//! random bits, and a hash keyed by the master key could not survive a change of that key (`key reseal`).

use std::fmt;

use aws_lc_rs::digest;
use zeroize::Zeroizing;

use crate::token::Entropy;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const RANDOM_CHARS: usize = 33;
const CHECK_CHARS: usize = 6;
const LIVE: &str = "sk_live_";
const TEST: &str = "sk_test_";

/// Length of every secret, bytes.
pub const SECRET_BYTES: usize = LIVE.len() + RANDOM_CHARS + CHECK_CHARS;

/// Whether a secret is for production or for trying things out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretKind {
    /// `sk_live_…`
    Live,
    /// `sk_test_…`: `serve` refuses it.
    Test,
}

impl SecretKind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Live => LIVE,
            Self::Test => TEST,
        }
    }
}

/// A client's secret, well formed; prints as `[redacted]`.
#[derive(Clone)]
pub struct ClientSecret {
    text: Zeroizing<String>,
    kind: SecretKind,
}

impl ClientSecret {
    /// A new secret.
    #[must_use]
    pub fn generate(kind: SecretKind, entropy: &dyn Entropy) -> Self {
        let mut text = Zeroizing::new(String::with_capacity(SECRET_BYTES));
        text.push_str(kind.prefix());
        let mut random = Zeroizing::new([0u8; 64]);
        while text.len() < LIVE.len() + RANDOM_CHARS {
            entropy.fill(&mut *random);
            // 6 bits pick one of 64; the two beyond the alphabet are thrown away, so that all are equally likely
            let chars = random.iter().filter_map(|b| ALPHABET.get(usize::from(b & 63)));
            let missing = LIVE.len() + RANDOM_CHARS - text.len();
            text.extend(chars.take(missing).map(|c| char::from(*c)));
        }
        let check = check_sum(&text);
        text.extend(check.map(char::from));
        Self { text, kind }
    }

    /// Reads a secret; `None` when it cannot be one: wrong prefix, length, alphabet or check sum.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let kind = [SecretKind::Live, SecretKind::Test].into_iter().find(|k| text.starts_with(k.prefix()))?;
        if text.len() != SECRET_BYTES || !text[LIVE.len()..].bytes().all(|b| b.is_ascii_alphanumeric()) {
            return None;
        }
        let (body, check) = text.split_at(SECRET_BYTES - CHECK_CHARS);
        (check.as_bytes() == check_sum(body)).then(|| Self { text: Zeroizing::new(text.to_owned()), kind })
    }

    /// Live or test.
    #[must_use]
    pub const fn kind(&self) -> SecretKind {
        self.kind
    }

    /// The text itself, to be shown once.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// What is stored of it.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        let mut out = [0; 32];
        out.copy_from_slice(digest::digest(&digest::SHA256, self.text.as_bytes()).as_ref());
        SecretHash(out)
    }
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecret([redacted])")
    }
}

/// A secret as stored; prints as `[redacted]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecretHash(pub(super) [u8; 32]);

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash([redacted])")
    }
}

fn check_sum(body: &str) -> [u8; CHECK_CHARS] {
    let mut rest = crc32(body.as_bytes());
    let mut out = [b'0'; CHECK_CHARS];
    for place in out.iter_mut().rev() {
        *place = ALPHABET[(rest % 62) as usize];
        rest /= 62;
    }
    out
}

/// CRC-32 as in IEEE 802.3, bit by bit: it runs over forty bytes.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| (c >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(c & 1)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::SystemEntropy;

    #[test]
    fn the_check_sum_is_crc32_and_counts_the_prefix() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926); // the check value in every catalogue of CRCs
        let secret = ClientSecret::generate(SecretKind::Live, &SystemEntropy);
        let swapped = secret.expose().replace("sk_live_", "sk_test_");
        assert!(ClientSecret::parse(&swapped).is_none());
    }

    #[test]
    fn a_secret_reads_back_and_every_typo_is_refused() {
        for kind in [SecretKind::Live, SecretKind::Test] {
            let secret = ClientSecret::generate(kind, &SystemEntropy);
            let text = secret.expose();
            assert_eq!(text.len(), SECRET_BYTES);
            assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
            assert_eq!(ClientSecret::parse(text).unwrap().kind(), kind);
            for i in LIVE.len()..text.len() {
                let mut typo = text.as_bytes().to_vec();
                typo[i] = if typo[i] == b'x' { b'y' } else { b'x' };
                assert!(ClientSecret::parse(std::str::from_utf8(&typo).unwrap()).is_none(), "typo at {i}");
            }
        }
        for bad in
            ["", "sk_live_", "sk_live_é", &"a".repeat(SECRET_BYTES), &format!("sk_live_{}", "-".repeat(39))]
        {
            assert!(ClientSecret::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn secrets_differ_use_the_whole_alphabet_and_never_print() {
        let many: Vec<_> =
            (0..200).map(|_| ClientSecret::generate(SecretKind::Live, &SystemEntropy)).collect();
        let distinct: std::collections::HashSet<_> = many.iter().map(ClientSecret::expose).collect();
        assert_eq!(distinct.len(), many.len());
        let used: std::collections::BTreeSet<u8> =
            many.iter().flat_map(|s| s.expose().bytes().skip(LIVE.len()).take(RANDOM_CHARS)).collect();
        assert_eq!(used.len(), 62);
        let shown = format!("{:?} {:?}", many[0], many[0].hash());
        assert_eq!(shown, "ClientSecret([redacted]) SecretHash([redacted])");
    }
}
