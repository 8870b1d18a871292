//! Public keys that verify: one `kid`, one algorithm, one key (house.md rule 19).

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::signature::ParsedPublicKey;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use serde_json::{Map, Value};

use super::alg::{Alg, KeyType};
use super::ids::Kid;

/// The shortest RSA modulus that is accepted (JW-9).
const MIN_RSA_BITS: usize = 2048;
/// The longest: beyond it one signature check costs milliseconds.
const MAX_RSA_BITS: usize = 8192;
/// The smallest public exponent: 65537, as FIPS 186-5 demands; smaller ones turn padding mistakes into forgeries.
const MIN_RSA_EXPONENT: u64 = 65_537;

/// Why a key was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a JSON object.
    #[error("is not a JSON object")]
    NotAnObject,
    /// A member is absent or not of its type.
    #[error("member `{0}` is missing or malformed")]
    Member(&'static str),
    /// A symmetric or unknown kind of key: never used here (JW-1).
    #[error("key type is not RSA, EC or OKP")]
    KeyType,
    /// An algorithm that is not known here, or one that does not go with the key's type or curve.
    #[error("algorithm is unknown or does not fit the key")]
    Algorithm,
    /// The key says that it is for something else (`use`, `key_ops`).
    #[error("is not meant for verifying signatures")]
    NotForVerifying,
    /// Private members in a key that was to be public.
    #[error("carries private members")]
    Private,
    /// Too short, too long, or not a point of its curve.
    #[error("is weak or not a valid key")]
    Unsound,
}

/// A public key with its name and its one algorithm. Built only from what was checked.
#[derive(Clone)]
pub struct VerifyingKey {
    kid: Kid,
    alg: Alg,
    material: Material,
    decoding: DecodingKey,
}

#[derive(Clone, PartialEq, Eq)]
enum Material {
    /// Big-endian, no leading zeros.
    Rsa { n: Vec<u8>, e: Vec<u8> },
    /// Coordinates of full length.
    Ec { x: Vec<u8>, y: Vec<u8> },
    /// RFC 8032 encoding.
    Okp { x: Vec<u8> },
}

impl VerifyingKey {
    /// Reads one public JWK (RFC 7517). `kty`, `use`, `key_ops`, `alg` and `crv` are checked here, as
    /// `jsonwebtoken` looks at none of them. A key without `kid` is named by its thumbprint; an RSA key
    /// without `alg` is an RS256 key (the one RFC 9068 makes mandatory), curves name theirs.
    pub fn from_jwk(jwk: &Value) -> Result<Self, KeyError> {
        let jwk = jwk.as_object().ok_or(KeyError::NotAnObject)?;
        let kty = text(jwk, "kty")?.ok_or(KeyError::Member("kty"))?;
        let key_type = [KeyType::Rsa, KeyType::Ec, KeyType::Okp]
            .into_iter()
            .find(|t| t.name() == kty)
            .ok_or(KeyError::KeyType)?;
        if ["d", "p", "q", "dp", "dq", "qi", "oth", "k"].iter().any(|m| jwk.contains_key(*m)) {
            return Err(KeyError::Private);
        }
        meant_for_verifying(jwk)?;
        let alg = algorithm(jwk, key_type)?;
        let material = match key_type {
            KeyType::Rsa => Material::Rsa { n: bytes(jwk, "n")?, e: bytes(jwk, "e")? },
            KeyType::Ec => Material::Ec { x: bytes(jwk, "x")?, y: bytes(jwk, "y")? },
            KeyType::Okp => Material::Okp { x: bytes(jwk, "x")? },
        };
        let kid = match text(jwk, "kid")? {
            Some(kid) => Some(Kid::try_from(kid).map_err(|_| KeyError::Member("kid"))?),
            None => None,
        };
        Self::build(kid, alg, material)
    }

    /// A public key from its parts: the RSA modulus and exponent, big-endian without leading zeros.
    /// Its `kid` is the RFC 7638 thumbprint.
    pub fn from_rsa(alg: Alg, n: Vec<u8>, e: Vec<u8>) -> Result<Self, KeyError> {
        if alg.key_type() != KeyType::Rsa {
            return Err(KeyError::Algorithm);
        }
        Self::build(None, alg, Material::Rsa { n, e })
    }

    /// A public key from its raw form: `0x04 ‖ x ‖ y` for EC (SEC 1), 32 bytes for Ed25519.
    /// Its `kid` is the RFC 7638 thumbprint.
    pub fn from_raw(alg: Alg, raw: &[u8]) -> Result<Self, KeyError> {
        let half = alg.coordinate_bytes().ok_or(KeyError::Algorithm)?;
        let material = match (alg.key_type(), raw) {
            (KeyType::Okp, _) => Material::Okp { x: raw.to_vec() },
            (KeyType::Ec, [0x04, point @ ..]) if point.len() == 2 * half => {
                Material::Ec { x: point[..half].to_vec(), y: point[half..].to_vec() }
            }
            _ => return Err(KeyError::Unsound),
        };
        Self::build(None, alg, material)
    }

    fn build(kid: Option<Kid>, alg: Alg, material: Material) -> Result<Self, KeyError> {
        check(alg, &material)?;
        let decoding = match &material {
            Material::Rsa { n, e } => DecodingKey::from_rsa_raw_components(n, e),
            Material::Ec { x, y } => DecodingKey::from_ec_der(&[&[0x04], &x[..], &y[..]].concat()),
            Material::Okp { x } => DecodingKey::from_ed_der(x),
        };
        let kid = match kid {
            Some(kid) => kid,
            None => thumbprint(alg, &material),
        };
        Ok(Self { kid, alg, material, decoding })
    }

    /// The key's name.
    #[must_use]
    pub fn kid(&self) -> &Kid {
        &self.kid
    }

    /// The only algorithm this key verifies.
    #[must_use]
    pub fn alg(&self) -> Alg {
        self.alg
    }

    /// RFC 7638 SHA-256 thumbprint, base64url: depends on the key alone (JW-2).
    #[must_use]
    pub fn thumbprint(&self) -> Kid {
        thumbprint(self.alg, &self.material)
    }

    /// The public JWK as it is published: `{kty, …, kid, alg, use: "sig"}` (JW-1).
    #[must_use]
    pub fn to_jwk(&self) -> Value {
        let mut jwk = required_members(self.alg, &self.material);
        jwk.insert("kid".into(), self.kid.as_str().into());
        jwk.insert("alg".into(), self.alg.name().into());
        jwk.insert("use".into(), "sig".into());
        Value::Object(jwk)
    }

    /// Whether `signature` (raw bytes) is this key's signature of `signing_input`.
    ///
    /// The check itself is `jsonwebtoken`'s. Its backend is named here and not taken from the process
    /// default: with two crypto features switched on somewhere in a build, that default panics.
    #[must_use]
    pub fn verifies(&self, signing_input: &[u8], signature: &[u8]) -> bool {
        if self.alg.signature_bytes().is_some_and(|n| n != signature.len()) {
            return false;
        }
        (DEFAULT_PROVIDER.verifier_factory)(&self.alg.to_jsonwebtoken(), &self.decoding)
            .is_ok_and(|verifier| verifier.verify(signing_input, &signature.to_vec()).is_ok())
    }
}

impl PartialEq for VerifyingKey {
    fn eq(&self, other: &Self) -> bool {
        self.kid == other.kid && self.alg == other.alg && self.material == other.material
    }
}

impl Eq for VerifyingKey {}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({} {})", self.alg, self.kid)
    }
}

/// A member that is text where it is there at all.
fn text<'a>(jwk: &'a Map<String, Value>, name: &'static str) -> Result<Option<&'a str>, KeyError> {
    match jwk.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(KeyError::Member(name)),
    }
}

/// A member of canonical base64url (JW-8).
fn bytes(jwk: &Map<String, Value>, name: &'static str) -> Result<Vec<u8>, KeyError> {
    let text = text(jwk, name)?.ok_or(KeyError::Member(name))?;
    if text.len() > MAX_RSA_BITS / 4 {
        return Err(KeyError::Unsound);
    }
    URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyError::Member(name))
}

fn meant_for_verifying(jwk: &Map<String, Value>) -> Result<(), KeyError> {
    if text(jwk, "use")?.is_some_and(|u| u != "sig") {
        return Err(KeyError::NotForVerifying);
    }
    match jwk.get("key_ops") {
        None => Ok(()),
        Some(Value::Array(ops)) if ops.iter().all(Value::is_string) => {
            if ops.iter().any(|op| op == "verify") { Ok(()) } else { Err(KeyError::NotForVerifying) }
        }
        Some(_) => Err(KeyError::Member("key_ops")),
    }
}

fn algorithm(jwk: &Map<String, Value>, key_type: KeyType) -> Result<Alg, KeyError> {
    let curve = text(jwk, "crv")?;
    let alg = match text(jwk, "alg")? {
        Some(name) => Alg::from_name(name).ok_or(KeyError::Algorithm)?,
        None if key_type == KeyType::Rsa => Alg::Rs256,
        None => Alg::ALL
            .into_iter()
            .find(|alg| alg.curve().is_some() && alg.curve() == curve)
            .ok_or(KeyError::Algorithm)?,
    };
    let fits = alg.key_type() == key_type && (key_type == KeyType::Rsa || alg.curve() == curve);
    if fits { Ok(alg) } else { Err(KeyError::Algorithm) }
}

fn check(alg: Alg, material: &Material) -> Result<(), KeyError> {
    let sound = match material {
        Material::Rsa { n, e } => sound_rsa(n, e),
        Material::Ec { x, y } => {
            let full = alg.coordinate_bytes();
            Some(x.len()) == full && Some(y.len()) == full && parses(alg, &[&[0x04], &x[..], &y[..]].concat())
        }
        Material::Okp { x } => Some(x.len()) == alg.coordinate_bytes() && parses(alg, x),
    };
    if sound { Ok(()) } else { Err(KeyError::Unsound) }
}

/// Whether the crypto library takes the point: it checks that it lies on the curve.
fn parses(alg: Alg, raw: &[u8]) -> bool {
    alg.raw_public_key().is_some_and(|parser| ParsedPublicKey::new(parser, raw).is_ok())
}

fn sound_rsa(n: &[u8], e: &[u8]) -> bool {
    let bits = |number: &[u8]| match number.first() {
        Some(first) if *first != 0 => number.len() * 8 - first.leading_zeros() as usize,
        _ => 0,
    };
    let odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
    // At most 32 bits, as every widespread library limits it.
    let exponent = e.iter().fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
    (MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits(n))
        && odd(n)
        && odd(e)
        && (17..=32).contains(&bits(e))
        && exponent >= MIN_RSA_EXPONENT
}

/// The members RFC 7638 §3.2 demands; `serde_json` keeps or sorts them, the thumbprint sorts by itself.
fn required_members(alg: Alg, material: &Material) -> Map<String, Value> {
    let b64 = |bytes: &[u8]| Value::from(URL_SAFE_NO_PAD.encode(bytes));
    let mut members = Map::new();
    members.insert("kty".into(), alg.key_type().name().into());
    match material {
        Material::Rsa { n, e } => {
            members.insert("n".into(), b64(n));
            members.insert("e".into(), b64(e));
        }
        Material::Ec { x, y } => {
            members.insert("crv".into(), alg.curve().into());
            members.insert("x".into(), b64(x));
            members.insert("y".into(), b64(y));
        }
        Material::Okp { x } => {
            members.insert("crv".into(), alg.curve().into());
            members.insert("x".into(), b64(x));
        }
    }
    members
}

/// RFC 7638 §3: the required members in lexical order without white space, hashed.
fn thumbprint(alg: Alg, material: &Material) -> Kid {
    let members = required_members(alg, material);
    let mut names: Vec<&String> = members.keys().collect();
    names.sort();
    let body: Vec<String> = names.iter().map(|name| format!("\"{name}\":{}", members[*name])).collect();
    let hash = digest::digest(&digest::SHA256, format!("{{{}}}", body.join(",")).as_bytes());
    Kid::try_from(URL_SAFE_NO_PAD.encode(hash)).expect("43 characters of base64url are a kid")
}
