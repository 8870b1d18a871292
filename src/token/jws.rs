//! The compact form of a JWS, read strictly; what comes out is not yet verified and says so in its name.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::alg::Alg;
use super::ids::MAX_ID_BYTES;
use super::invalid::Invalid;
use super::json;
use super::key_set::KeySet;
use super::keys::VerifyingKey;

/// The longest token that is looked at, in bytes: proxies and servers cap all headers at 8 KiB or more.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Header members that are never accepted: extensions that are not understood here (JW-4, JW-5), keys and
/// addresses of keys that the sender chose (JW-11), and the members of encrypted or compressed tokens.
const REFUSED_MEMBERS: [&str; 9] = ["crit", "b64", "jku", "x5u", "jwk", "x5c", "enc", "zip", "epk"];

/// A JWS taken apart. Nothing of it is verified.
pub struct UnverifiedJws<'a> {
    signing_input: &'a [u8],
    header: UnverifiedHeader,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

/// The header members that are looked at.
#[derive(Debug)]
pub struct UnverifiedHeader {
    /// The algorithm the sender names; it chooses among keys and never the check that is made.
    pub alg: Alg,
    /// The media type, if any.
    pub typ: Option<String>,
    /// The name of the key, if any.
    pub kid: Option<String>,
}

impl<'a> UnverifiedJws<'a> {
    /// Takes a compact JWS apart: length first, then form, then encoding, then the header.
    pub fn parse(token: &'a str, max_bytes: usize) -> Result<Self, Invalid> {
        if token.len() > max_bytes {
            return Err(Invalid::TooLong);
        }
        let bytes = token.as_bytes();
        // BP-8: no white space, padding, braces or quotes anywhere.
        if !bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
            return Err(Invalid::NotCompact);
        }
        let parts: Vec<&str> = token.split('.').collect();
        let [header, payload, signature] = parts[..] else {
            return Err(if parts.len() == 5 { Invalid::Encrypted } else { Invalid::NotCompact });
        };
        if header.is_empty() || signature.is_empty() {
            return Err(Invalid::NotCompact);
        }
        let signing_input = &bytes[..header.len() + 1 + payload.len()];
        // The engine refuses padding and trailing bits that are not zero (JW-8).
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Invalid::Encoding);
        let (header, payload, signature) = (decode(header)?, decode(payload)?, decode(signature)?);
        Ok(Self { signing_input, header: UnverifiedHeader::parse(&header)?, payload, signature })
    }

    /// The header.
    #[must_use]
    pub fn unverified_header(&self) -> &UnverifiedHeader {
        &self.header
    }

    /// The payload as a strict JSON object.
    pub fn unverified_claims(&self) -> Result<Map<String, Value>, Invalid> {
        match json::parse_strict(&self.payload, json::MAX_DEPTH) {
            Ok(Value::Object(claims)) => Ok(claims),
            Ok(_) => Err(Invalid::Claims),
            Err(error) => Err(Invalid::of_json(error, Invalid::Claims)),
        }
    }

    /// `header.payload`, the signed bytes.
    #[must_use]
    pub fn signing_input(&self) -> &'a [u8] {
        self.signing_input
    }

    /// Chooses the key by name and checks the signature. The header's `alg` must be the key's (BP-2);
    /// without `kid`, the set must have exactly one key of that algorithm.
    pub fn verify<'k>(&self, keys: &'k KeySet) -> Result<&'k Arc<VerifyingKey>, Invalid> {
        let alg = self.header.alg;
        let key = match &self.header.kid {
            Some(kid) => keys.get(kid).ok_or(Invalid::KeyUnknown)?,
            None => keys.only_one_for(alg).ok_or(Invalid::KeyAmbiguous)?,
        };
        if key.alg() != alg {
            return Err(Invalid::Algorithm);
        }
        if key.verifies(self.signing_input, &self.signature) { Ok(key) } else { Err(Invalid::Signature) }
    }

    /// The payload's bytes, once [`Self::verify`] has accepted them.
    #[must_use]
    pub fn into_payload(self) -> Vec<u8> {
        self.payload
    }
}

impl UnverifiedHeader {
    fn parse(bytes: &[u8]) -> Result<Self, Invalid> {
        let header = match json::parse_strict(bytes, json::MAX_DEPTH) {
            Ok(Value::Object(header)) => header,
            Ok(_) => return Err(Invalid::Header),
            Err(error) => return Err(Invalid::of_json(error, Invalid::Header)),
        };
        if let Some(name) = REFUSED_MEMBERS.into_iter().find(|name| header.contains_key(*name)) {
            return Err(Invalid::HeaderMember(name));
        }
        let text = |name| match header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() && text.len() <= MAX_ID_BYTES => {
                Ok(Some(text.clone()))
            }
            Some(_) => Err(Invalid::Header),
        };
        let alg = text("alg")?.ok_or(Invalid::Header)?;
        let alg = Alg::from_name(&alg).ok_or(Invalid::Algorithm)?;
        Ok(Self { alg, typ: text("typ")?, kid: text("kid")? })
    }
}
