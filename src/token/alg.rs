//! The signature algorithms this service knows, each by its one exact name.

use std::fmt;

use aws_lc_rs::signature as sig;

/// A signature algorithm of RFC 7518 §3.1 or RFC 8037; no `none`, no HMAC, none that is not listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alg {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519, under RFC 8037's name `EdDSA` and RFC 9864's name `Ed25519` (BP-13).
    EdDsa,
}

/// What kind of key an algorithm needs (`kty`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    /// `RSA`
    Rsa,
    /// `EC`
    Ec,
    /// `OKP`
    Okp,
}

impl KeyType {
    /// The value of `kty`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rsa => "RSA",
            Self::Ec => "EC",
            Self::Okp => "OKP",
        }
    }
}

impl Alg {
    /// Every algorithm a verifier may accept.
    pub const ALL: [Self; 9] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// The algorithms this service signs with.
    pub const SIGNING: [Self; 3] = [Self::Es256, Self::Rs256, Self::EdDsa];

    /// The name written into headers and keys.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of this exact name (BP-1: case counts), if it is one of ours.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        if name == "Ed25519" {
            return Some(Self::EdDsa);
        }
        Self::ALL.into_iter().find(|alg| alg.name() == name)
    }

    /// The kind of key it needs.
    #[must_use]
    pub const fn key_type(self) -> KeyType {
        match self {
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => KeyType::Rsa,
            Self::Es256 | Self::Es384 => KeyType::Ec,
            Self::EdDsa => KeyType::Okp,
        }
    }

    /// The curve (`crv`) of its keys; none for RSA.
    #[must_use]
    pub const fn curve(self) -> Option<&'static str> {
        match self {
            Self::Es256 => Some("P-256"),
            Self::Es384 => Some("P-384"),
            Self::EdDsa => Some("Ed25519"),
            _ => None,
        }
    }

    /// Bytes of one coordinate of its public keys; none for RSA.
    pub(crate) const fn coordinate_bytes(self) -> Option<usize> {
        match self {
            Self::Es256 | Self::EdDsa => Some(32),
            Self::Es384 => Some(48),
            _ => None,
        }
    }

    /// Bytes of a signature where the algorithm fixes them (JW-7); RSA's depend on the key.
    pub(crate) const fn signature_bytes(self) -> Option<usize> {
        match self {
            Self::Es256 | Self::EdDsa => Some(64),
            Self::Es384 => Some(96),
            _ => None,
        }
    }

    /// The same algorithm in `jsonwebtoken`'s words.
    pub(crate) const fn to_jsonwebtoken(self) -> jsonwebtoken::Algorithm {
        use jsonwebtoken::Algorithm as A;
        match self {
            Self::Rs256 => A::RS256,
            Self::Rs384 => A::RS384,
            Self::Rs512 => A::RS512,
            Self::Ps256 => A::PS256,
            Self::Ps384 => A::PS384,
            Self::Ps512 => A::PS512,
            Self::Es256 => A::ES256,
            Self::Es384 => A::ES384,
            Self::EdDsa => A::EdDSA,
        }
    }

    /// The primitive that parses and checks a raw public key of this algorithm; none for RSA.
    pub(crate) fn raw_public_key(self) -> Option<&'static dyn sig::VerificationAlgorithm> {
        match self {
            Self::Es256 => Some(&sig::ECDSA_P256_SHA256_FIXED),
            Self::Es384 => Some(&sig::ECDSA_P384_SHA384_FIXED),
            Self::EdDsa => Some(&sig::ED25519),
            _ => None,
        }
    }
}

impl fmt::Display for Alg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_matched_exactly_or_not_at_all() {
        // BP-1
        for alg in Alg::ALL {
            assert_eq!(Alg::from_name(alg.name()), Some(alg));
        }
        assert_eq!(Alg::from_name("Ed25519"), Some(Alg::EdDsa));
        for name in ["none", "noNE", "", "es256", "ES256 ", "HS256", "ES512", "ES256K", "EDDSA", "RS1"] {
            assert_eq!(Alg::from_name(name), None, "{name}");
        }
    }
}
