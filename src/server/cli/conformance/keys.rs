//! The keys of a conformance run: a few private test keys in one PEM file, and the set that publishes them.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::token::alg::KeyType;
use crate::token::signer::SignerError;
use crate::token::{Alg, LocalSigner, Signer};

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// Why there are no keys to work with.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The text holds no private key at all.
    #[error("there is no `{BEGIN}` block in it (PKCS#8 PEM, unencrypted)")]
    Empty,
    /// A block that is no key this service could sign with.
    #[error("block {0} is not an unencrypted PKCS#8 key for ES256, RS256 or EdDSA")]
    Block(usize),
    /// A key could not be made or written out.
    #[error("a key could not be made: {0}")]
    Signer(#[from] SignerError),
}

/// One private test key and the name it is published under.
pub struct TestKey {
    signer: LocalSigner,
    kid: String,
}

impl TestKey {
    /// A new key, named by its thumbprint.
    pub fn generate(alg: Alg) -> Result<Self, KeyFileError> {
        let signer = LocalSigner::generate(alg)?;
        let kid = signer.kid().to_string();
        Ok(Self { signer, kid })
    }

    /// The same key under another name: for a service whose test issuer names its key by itself.
    #[must_use]
    pub fn named(mut self, kid: &str) -> Self {
        kid.clone_into(&mut self.kid);
        self
    }

    /// The key itself, for tokens that are written elsewhere.
    #[must_use]
    pub fn signer(&self) -> &LocalSigner {
        &self.signer
    }

    /// Its algorithm.
    #[must_use]
    pub fn alg(&self) -> Alg {
        self.signer.alg()
    }

    /// Its name.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public JWK.
    #[must_use]
    pub fn jwk(&self) -> Value {
        let mut jwk = self.signer.verifying_key().to_jwk();
        jwk["kid"] = json!(self.kid);
        jwk
    }

    /// The raw signature of `input`.
    ///
    /// # Panics
    /// When the crypto library fails with a key that it made or read itself.
    #[must_use]
    pub fn sign(&self, input: &[u8]) -> Vec<u8> {
        self.signer.sign(input).expect("a key in this process signs")
    }

    /// A private key block as `openssl genpkey` writes it.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, KeyFileError> {
        Ok(Zeroizing::new(pem(BEGIN, &self.signer.to_pkcs8()?, END)))
    }

    /// The public key as `SubjectPublicKeyInfo` (RFC 5280): what a careless service takes for an HMAC secret.
    #[must_use]
    pub fn public_der(&self) -> Vec<u8> {
        let jwk = self.signer.verifying_key().to_jwk();
        let part =
            |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap_or_default()).unwrap_or_default();
        let (algorithm, key): (&[u8], Vec<u8>) = match self.alg().key_type() {
            // id-ecPublicKey, prime256v1
            KeyType::Ec => (
                &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7],
                [&[4][..], &part("x"), &part("y")].concat(),
            ),
            // rsaEncryption, NULL
            KeyType::Rsa => (
                &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0],
                der(0x30, &[der(2, &[&[0][..], &part("n")].concat()), der(2, &part("e"))].concat()),
            ),
            // id-Ed25519
            KeyType::Okp => (&[6, 3, 0x2b, 0x65, 0x70], part("x")),
        };
        der(0x30, &[der(0x30, algorithm), der(3, &[&[0][..], &key].concat())].concat())
    }

    /// The public key in PEM.
    #[must_use]
    pub fn public_pem(&self) -> String {
        pem("-----BEGIN PUBLIC KEY-----", &self.public_der(), "-----END PUBLIC KEY-----")
    }
}

impl fmt::Debug for TestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TestKey({} {} [redacted])", self.alg(), self.kid)
    }
}

fn pem(begin: &str, der: &[u8], end: &str) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> =
        body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("base64 is ASCII")).collect();
    format!("{begin}\n{}\n{end}\n", lines.join("\n"))
}

/// One DER value: tag, length, content.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len().to_be_bytes();
    let significant: &[u8] = &length[length.iter().position(|b| *b != 0).unwrap_or(length.len() - 1)..];
    if content.len() < 0x80 {
        out.push(significant[0]);
    } else {
        out.push(0x80 | u8::try_from(significant.len()).expect("a length has at most 8 bytes"));
        out.extend_from_slice(significant);
    }
    out.extend_from_slice(content);
    out
}

/// An ECDSA signature `r ‖ s` as X.509 and TLS write it: never right in a JWS (RFC 7518 §3.4).
#[must_use]
pub fn ecdsa_der(raw: &[u8]) -> Vec<u8> {
    let integer = |bytes: &[u8]| {
        let start = bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len() - 1);
        let sign = if bytes[start] & 0x80 == 0 { &[][..] } else { &[0][..] };
        der(2, &[sign, &bytes[start..]].concat())
    };
    let (r, s) = raw.split_at(raw.len() / 2);
    der(0x30, &[integer(r), integer(s)].concat())
}

/// Every private key of a PEM file, in order.
pub fn read_pem(text: &str) -> Result<Vec<TestKey>, KeyFileError> {
    let mut keys = Vec::new();
    for (index, block) in text.split(BEGIN).skip(1).enumerate() {
        let body = block.split(END).next().unwrap_or_default();
        let block = Zeroizing::new(format!("{BEGIN}{body}{END}"));
        let signer = Alg::SIGNING
            .into_iter()
            .find_map(|alg| LocalSigner::from_pkcs8_pem(alg, &block).ok())
            .ok_or(KeyFileError::Block(index + 1))?;
        let kid = signer.kid().to_string();
        keys.push(TestKey { signer, kid });
    }
    if keys.is_empty() { Err(KeyFileError::Empty) } else { Ok(keys) }
}

/// The public set of `keys`.
#[must_use]
pub fn jwks(keys: &[TestKey]) -> Value {
    json!({ "keys": keys.iter().map(TestKey::jwk).collect::<Vec<_>>() })
}

/// An HMAC of `hash` (`HS256`, `HS384`, `HS512`) under a secret that everybody knows.
#[must_use]
pub fn hmac(name: &str, secret: &[u8], input: &[u8]) -> Vec<u8> {
    let algorithm = match name {
        "HS384" => hmac::HMAC_SHA384,
        "HS512" => hmac::HMAC_SHA512,
        _ => hmac::HMAC_SHA256,
    };
    hmac::sign(&hmac::Key::new(algorithm, secret), input).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::KeySet;

    #[test]
    fn a_key_file_is_read_back_as_it_was_written() {
        let keys = [Alg::Es256, Alg::Rs256, Alg::EdDsa].map(|alg| TestKey::generate(alg).unwrap());
        let file: String = keys.iter().map(|key| key.to_pem().unwrap().to_string()).collect();
        let read = read_pem(&file).unwrap();
        assert_eq!(jwks(&read), jwks(&keys));
        let set = KeySet::from_jwks_json(jwks(&read).to_string().as_bytes()).unwrap();
        assert_eq!((set.len(), set.skipped().len()), (3, 0));
        assert!(matches!(read_pem("hello"), Err(KeyFileError::Empty)));
        assert!(matches!(read_pem(&format!("{BEGIN}\nAAAA\n{END}")), Err(KeyFileError::Block(1))));
        assert!(!format!("{keys:?}").contains("PRIVATE"));
    }

    #[test]
    fn the_public_key_in_der_is_the_one_the_crypto_library_writes() {
        use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
        use aws_lc_rs::signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
        let keys = [Alg::Es256, Alg::Rs256, Alg::EdDsa].map(|alg| TestKey::generate(alg).unwrap());
        let pkcs8 = |i: usize| keys[i].signer.to_pkcs8().unwrap();
        let ec = EcdsaKeyPair::from_pkcs8(&aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8(0))
            .unwrap();
        let spki: PublicKeyX509Der<'_> = ec.public_key().as_der().unwrap();
        assert_eq!(keys[0].public_der(), spki.as_ref());
        let rsa = RsaKeyPair::from_pkcs8(&pkcs8(1)).unwrap();
        let spki: PublicKeyX509Der<'_> = rsa.public_key().as_der().unwrap();
        assert_eq!(keys[1].public_der(), spki.as_ref());
        let ed = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8(2)).unwrap();
        let spki: PublicKeyX509Der<'_> = ed.public_key().as_der().unwrap();
        assert_eq!(keys[2].public_der(), spki.as_ref());
    }

    #[test]
    fn a_der_signature_has_no_leading_zeros_and_no_negative_numbers() {
        let mut raw = vec![0u8; 64];
        raw[31] = 0x80;
        raw[63] = 1;
        assert_eq!(ecdsa_der(&raw), [0x30, 7, 2, 2, 0, 0x80, 2, 1, 1]);
    }
}
