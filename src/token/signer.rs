//! Private keys that sign, prepared once, and the JWS they make.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self as sig, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair, RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Serialize;
use zeroize::Zeroizing;

use super::alg::Alg;
use super::ids::Kid;
use super::keys::{KeyError, VerifyingKey};

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The claims could not be written as JSON.
    #[error("the claims cannot be written as JSON")]
    Claims(#[source] serde_json::Error),
    /// The key's holder (the crypto library, a key service) failed.
    #[error("the key could not sign: {0}")]
    Key(String),
}

/// Why a private key could not be made or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignerError {
    /// This service does not sign with that algorithm.
    #[error("this service does not sign with {0}")]
    Algorithm(Alg),
    /// Not an unencrypted PKCS#8 private key of the algorithm.
    #[error("is not an unencrypted PKCS#8 private key for {0}")]
    Malformed(Alg),
    /// The public half is not acceptable.
    #[error("the key {0}")]
    Key(#[from] KeyError),
    /// The crypto library could not make or write a key.
    #[error("the crypto library failed")]
    Library,
}

/// Signs. A key service (KMS, HSM) fits behind it: nothing here asks for the private key itself.
/// A signer that asks over a network blocks its caller; call it where blocking is allowed.
pub trait Signer: Send + Sync {
    /// The public half: it also names the key and its algorithm.
    fn verifying_key(&self) -> &VerifyingKey;

    /// The signature of `signing_input`, in the form JWS wants (ES256: 64 raw bytes).
    fn sign(&self, signing_input: &[u8]) -> Result<Vec<u8>, SignError>;

    /// The key's name.
    fn kid(&self) -> &Kid {
        self.verifying_key().kid()
    }

    /// The algorithm it signs with.
    fn alg(&self) -> Alg {
        self.verifying_key().alg()
    }
}

impl<S: Signer + ?Sized> Signer for Arc<S> {
    fn verifying_key(&self) -> &VerifyingKey {
        (**self).verifying_key()
    }

    fn sign(&self, signing_input: &[u8]) -> Result<Vec<u8>, SignError> {
        (**self).sign(signing_input)
    }
}

/// A private key in this process. `jsonwebtoken` would parse it anew for every signature, which
/// makes RS256 2.5 times slower; here it is parsed once.
pub struct LocalSigner {
    pair: Pair,
    public: VerifyingKey,
}

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl LocalSigner {
    /// A new key of its own; RSA keys have 2048 bits. Only [`Alg::SIGNING`] is possible.
    pub fn generate(alg: Alg) -> Result<Self, SignerError> {
        let library = |_| SignerError::Library;
        let pair = match alg {
            Alg::Es256 => {
                Pair::Ecdsa(EcdsaKeyPair::generate(&sig::ECDSA_P256_SHA256_FIXED_SIGNING).map_err(library)?)
            }
            Alg::Rs256 => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).map_err(library)?),
            Alg::EdDsa => Pair::Ed25519(Ed25519KeyPair::generate().map_err(library)?),
            other => return Err(SignerError::Algorithm(other)),
        };
        Self::with_public(alg, pair)
    }

    /// Reads an unencrypted PKCS#8 key (DER).
    pub fn from_pkcs8(alg: Alg, der: &[u8]) -> Result<Self, SignerError> {
        let malformed = |_| SignerError::Malformed(alg);
        let pair = match alg {
            Alg::Es256 => Pair::Ecdsa(
                EcdsaKeyPair::from_pkcs8(&sig::ECDSA_P256_SHA256_FIXED_SIGNING, der).map_err(malformed)?,
            ),
            Alg::Rs256 => Pair::Rsa(RsaKeyPair::from_pkcs8(der).map_err(malformed)?),
            // OpenSSL writes version 1 without the public key, which the stricter reader refuses.
            Alg::EdDsa => Pair::Ed25519(Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(malformed)?),
            other => return Err(SignerError::Algorithm(other)),
        };
        Self::with_public(alg, pair)
    }

    /// Reads an unencrypted PKCS#8 key in PEM (`-----BEGIN PRIVATE KEY-----`), as `openssl genpkey` writes it.
    pub fn from_pkcs8_pem(alg: Alg, pem: &str) -> Result<Self, SignerError> {
        let body = pem
            .trim()
            .strip_prefix("-----BEGIN PRIVATE KEY-----")
            .and_then(|rest| rest.strip_suffix("-----END PRIVATE KEY-----"))
            .ok_or(SignerError::Malformed(alg))?;
        let base64 = Zeroizing::new(body.split_ascii_whitespace().collect::<String>());
        let der = STANDARD.decode(base64.as_bytes()).map_err(|_| SignerError::Malformed(alg))?;
        Self::from_pkcs8(alg, &Zeroizing::new(der))
    }

    fn with_public(alg: Alg, pair: Pair) -> Result<Self, SignerError> {
        let public = match &pair {
            Pair::Ecdsa(pair) => VerifyingKey::from_raw(alg, pair.public_key().as_ref())?,
            Pair::Ed25519(pair) => VerifyingKey::from_raw(alg, pair.public_key().as_ref())?,
            Pair::Rsa(pair) => {
                let parts = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                VerifyingKey::from_rsa(alg, parts.n, parts.e)?
            }
        };
        Ok(Self { pair, public })
    }

    /// The private key as PKCS#8 (DER), to be sealed; wiped when dropped.
    pub fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, SignerError> {
        use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
        let library = |_| SignerError::Library;
        Ok(Zeroizing::new(match &self.pair {
            Pair::Ecdsa(pair) => pair.to_pkcs8v1().map_err(library)?.as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.to_pkcs8v1().map_err(library)?.as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(library)?;
                der.as_ref().to_vec()
            }
        }))
    }
}

impl Signer for LocalSigner {
    fn verifying_key(&self) -> &VerifyingKey {
        &self.public
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the library signs with its own generator and ignores this one"
    )]
    fn sign(&self, signing_input: &[u8]) -> Result<Vec<u8>, SignError> {
        let failed = |_| SignError::Key("the crypto library refused".to_owned());
        match &self.pair {
            Pair::Ecdsa(pair) => {
                Ok(pair.sign(&SystemRandom::new(), signing_input).map_err(failed)?.as_ref().to_vec())
            }
            Pair::Ed25519(pair) => Ok(pair.try_sign(signing_input).map_err(failed)?.as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign(&sig::RSA_PKCS1_SHA256, &SystemRandom::new(), signing_input, &mut out)
                    .map_err(failed)?;
                Ok(out)
            }
        }
    }
}

impl fmt::Debug for LocalSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalSigner({} {} [redacted])", self.alg(), self.kid())
    }
}

/// A signed JWS in compact form. Its text is a credential: it is never printed.
pub struct SignedJws {
    text: Zeroizing<String>,
    signing_input_len: usize,
}

impl SignedJws {
    /// `header.payload`: what was signed.
    #[must_use]
    pub fn signing_input(&self) -> &str {
        &self.text[..self.signing_input_len]
    }

    /// SHA-256 of [`Self::signing_input`]: what the issuance log binds (contract.md §6), since neither
    /// a second signature nor a malleated one changes it.
    #[must_use]
    pub fn signed_sha256(&self) -> [u8; 32] {
        sha256(self.signing_input().as_bytes())
    }

    /// The whole token.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The whole token, handed over.
    #[must_use]
    pub fn into_string(mut self) -> String {
        std::mem::take(&mut *self.text)
    }
}

impl fmt::Debug for SignedJws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignedJws([redacted])")
    }
}

/// Field order is the order on the wire.
#[derive(Serialize)]
struct OutHeader<'a> {
    alg: &'static str,
    typ: &'a str,
    kid: &'a str,
}

/// Writes and signs `claims` with the header `{"alg":…,"typ":…,"kid":…}` and nothing else in it.
/// The caller gives `typ` (`at+jwt`, …): verifiers of one kind of token refuse every other (BP-7).
pub fn encode_jws(signer: &dyn Signer, typ: &str, claims: &impl Serialize) -> Result<SignedJws, SignError> {
    let header = OutHeader { alg: signer.alg().name(), typ, kid: signer.kid().as_str() };
    let header = serde_json::to_vec(&header).map_err(SignError::Claims)?;
    let payload = serde_json::to_vec(claims).map_err(SignError::Claims)?;
    let mut text = Zeroizing::new(String::with_capacity((header.len() + payload.len()) * 4 / 3 + 400));
    URL_SAFE_NO_PAD.encode_string(&header, &mut text);
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(&payload, &mut text);
    let signing_input_len = text.len();
    let signature = signer.sign(text.as_bytes())?;
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(&signature, &mut text);
    Ok(SignedJws { text, signing_input_len })
}

/// SHA-256 of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}
