//! Private keys that were made elsewhere: PEM, DER or JWK, as PKCS#8.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::token::{Alg, LocalSigner};

/// The largest key file, bytes.
pub const MAX_KEY_FILE_BYTES: usize = 16 << 10;

/// Why a file is no key that can be taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// Too large.
    #[error("the file is larger than any key; give one private key alone")]
    TooLarge,
    /// PEM of another kind.
    #[error("the PEM is not an unencrypted PKCS#8 key; convert it with `openssl pkcs8 -topk8 -nocrypt`")]
    Pem,
    /// Not a private key of a kind that signs here.
    #[error("the file is no private key for ES256, RS256 (2048 bits or more) or EdDSA; make one of these")]
    Kind,
    /// A JWK that is not a private key of its kind.
    #[error("the JWK lacks `{0}` or has it malformed; give the complete private key")]
    Member(&'static str),
}

/// Reads a private key; which algorithm it is for follows from its kind.
pub(super) fn read_private_key(file: &[u8]) -> Result<LocalSigner, ImportError> {
    if file.len() > MAX_KEY_FILE_BYTES {
        return Err(ImportError::TooLarge);
    }
    match std::str::from_utf8(file).map(str::trim) {
        Ok(text) if text.starts_with("-----BEGIN") => {
            if !text.starts_with("-----BEGIN PRIVATE KEY-----") {
                return Err(ImportError::Pem);
            }
            first(|alg| LocalSigner::from_pkcs8_pem(alg, text).ok())
        }
        Ok(text) if text.starts_with('{') => from_jwk(text),
        _ => from_der(file),
    }
}

fn from_der(der: &[u8]) -> Result<LocalSigner, ImportError> {
    first(|alg| LocalSigner::from_pkcs8(alg, der).ok())
}

fn first(read: impl Fn(Alg) -> Option<LocalSigner>) -> Result<LocalSigner, ImportError> {
    Alg::SIGNING.into_iter().find_map(read).ok_or(ImportError::Kind)
}

/// A private JWK (RFC 7518 §6, RFC 8037 §2). The public members are not trusted: the signer derives its own.
fn from_jwk(text: &str) -> Result<LocalSigner, ImportError> {
    let jwk: Map<String, Value> = serde_json::from_str(text).map_err(|_| ImportError::Kind)?;
    let word = |name: &str| jwk.get(name).and_then(Value::as_str);
    let der = match (word("kty"), word("crv")) {
        (Some("OKP"), Some("Ed25519")) => {
            let seed = number(&jwk, "d", 32)?;
            let seed = <&[u8; 32]>::try_from(&seed[..]).map_err(|_| ImportError::Member("d"))?;
            ed25519_pkcs8(seed)
        }
        (Some("EC"), Some("P-256")) => {
            let (x, y) = (number(&jwk, "x", 32)?, number(&jwk, "y", 32)?);
            let point = [&[0, 4], &x[..], &y[..]].concat();
            // RFC 5915: ECPrivateKey { version 1, privateKey, [1] publicKey }
            let key = sequence(&[
                &tlv(0x02, &[1]),
                &tlv(0x04, &number(&jwk, "d", 32)?),
                &tlv(0xa1, &tlv(0x03, &point)),
            ]);
            pkcs8(&[&tlv(0x06, OID_EC), &tlv(0x06, OID_P256)], &key)
        }
        (Some("RSA"), _) => {
            // RFC 8017 §A.1.2: RSAPrivateKey { version 0, n, e, d, p, q, dp, dq, qi }
            let mut parts = vec![Zeroizing::new(tlv(0x02, &[0]))];
            for name in ["n", "e", "d", "p", "q", "dp", "dq", "qi"] {
                parts.push(Zeroizing::new(integer(&number(&jwk, name, 0)?)));
            }
            let parts: Vec<&[u8]> = parts.iter().map(|p| p.as_slice()).collect();
            pkcs8(&[&tlv(0x06, OID_RSA), &tlv(0x05, &[])], &sequence(&parts))
        }
        _ => return Err(ImportError::Kind),
    };
    from_der(&der)
}

const OID_EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const OID_P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const OID_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const OID_ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// RFC 8410 §7: an Ed25519 private key, version 1; 48 bytes that end with the seed.
pub(super) fn ed25519_pkcs8(seed: &[u8; 32]) -> Zeroizing<Vec<u8>> {
    pkcs8(&[&tlv(0x06, OID_ED25519)], &Zeroizing::new(tlv(0x04, seed)))
}

/// RFC 5958: PrivateKeyInfo { version 0, algorithm, privateKey }.
fn pkcs8(algorithm: &[&[u8]], key: &[u8]) -> Zeroizing<Vec<u8>> {
    sequence(&[&tlv(0x02, &[0]), &sequence(algorithm), &Zeroizing::new(tlv(0x04, key))])
}

fn sequence(parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(tlv(0x30, &Zeroizing::new(parts.concat())))
}

/// A DER element; lengths up to 65 535, as the file's limit has it.
fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() + 4);
    out.push(tag);
    match u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes() {
        [0, short] if short < 0x80 => out.push(short),
        [0, long] => out.extend([0x81, long]),
        [high, low] => out.extend([0x82, high, low]),
    }
    out.extend_from_slice(value);
    out
}

/// A positive INTEGER: no needless zeros in front, one where the first bit is set.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let digits = &bytes[bytes.iter().take_while(|b| **b == 0).count()..];
    if digits.first().is_none_or(|b| *b >= 0x80) {
        tlv(0x02, &Zeroizing::new([&[0], digits].concat()))
    } else {
        tlv(0x02, digits)
    }
}

/// A base64url member; of exactly `length` bytes unless that is 0.
fn number(
    jwk: &Map<String, Value>,
    name: &'static str,
    length: usize,
) -> Result<Zeroizing<Vec<u8>>, ImportError> {
    let text = jwk.get(name).and_then(Value::as_str).ok_or(ImportError::Member(name))?;
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| ImportError::Member(name))?;
    if bytes.is_empty() || (length != 0 && bytes.len() != length) {
        return Err(ImportError::Member(name));
    }
    Ok(Zeroizing::new(bytes))
}
