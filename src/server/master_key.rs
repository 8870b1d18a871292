//! The master key: what is secret at rest is sealed under it, and what must not be forged is authenticated.
//!
//! No key is used for two things: every use derives a key of its own from the master key by HKDF-SHA-256
//! (RFC 5869) with the [`Purpose`] as `info`. Sealing is AES-256-GCM with a random 96-bit nonce; the purpose
//! and the caller's context are its associated data, so that a sealed value fits one place only.

use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::{Zeroize, Zeroizing};

use super::config::SecretSource;
use crate::token::Entropy;

/// What a key is derived for. Two uses never share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Purpose(&'static str);

impl Purpose {
    /// Authenticates rows of clients.
    pub const CLIENT_ROW: Self = Self::new("client-row.v1");
    /// Authenticates rows of signing keys.
    pub const KEY_ROW: Self = Self::new("signing-key-row.v1");
    /// Seals signing keys.
    pub const KEY_SEAL: Self = Self::new("signing-key-seal.v1");

    /// A purpose of its own; the name is never used for anything else, and never changes.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }
}

/// Why there is no usable master key.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// No key file.
    #[error("the master key file {} is not there; run `stagedoor init`, or set MASTER_KEY_FILE", .0.display())]
    Missing(PathBuf),
    /// A key file that cannot be read or written.
    #[error("the master key file {} cannot be used ({source}); check its owner and mode 0600", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A key file that is there already, where one should be made.
    #[error("the master key file {} is there already; move it away first, or keep using it", .0.display())]
    Exists(PathBuf),
    /// Not 32 bytes in base64url.
    #[error("the master key in {0} is not 32 bytes in base64url (43 characters); restore the right one")]
    Malformed(String),
}

/// A value that was not sealed here, for this, under this key; or was changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sealed value was not sealed under this master key for this use, or was changed")]
pub struct NotAuthentic;

/// The key itself: in memory as HKDF's extracted form only, wiped when dropped. Cheap to clone.
#[derive(Clone)]
pub struct MasterKey(Arc<hkdf::Prk>);

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey([redacted])")
    }
}

/// Version byte of sealed values: AES-256-GCM, nonce first.
const SEALED_V1: u8 = 1;
const NONCE_BYTES: usize = 12;

impl MasterKey {
    /// Takes 32 bytes and wipes them.
    #[must_use]
    pub fn from_bytes(mut bytes: [u8; 32]) -> Self {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, b"stagedoor master key v1").extract(&bytes);
        bytes.zeroize();
        Self(Arc::new(prk))
    }

    /// Loads the key from where it is configured.
    ///
    /// # Errors
    /// It is not there, cannot be read, or is no key.
    pub fn load(source: &SecretSource) -> Result<Self, MasterKeyError> {
        match source {
            SecretSource::Inline(secret) => Self::parse(secret.expose(), || "MASTER_KEY".to_owned()),
            SecretSource::File(path) => {
                let text = read_key_file(path)?;
                Self::parse(text.trim_ascii(), || path.display().to_string())
            }
        }
    }

    /// Makes a key file of mode 0600, and never writes over one that is there.
    ///
    /// # Errors
    /// It is there already, or cannot be written.
    pub fn create(path: &Path, entropy: &dyn Entropy) -> Result<Self, MasterKeyError> {
        let failed = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::AlreadyExists => MasterKeyError::Exists(path.to_owned()),
            _ => MasterKeyError::File { path: path.to_owned(), source },
        };
        let mut bytes = Zeroizing::new([0u8; 32]);
        entropy.fill(&mut *bytes);
        let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes));
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        // A key that seals things must survive a power cut: its bytes, then its name.
        let directory = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        writeln!(file, "{}", &*text)
            .and_then(|()| file.sync_all())
            .and_then(|()| std::fs::File::open(directory)?.sync_all())
            .map_err(failed)?;
        Ok(Self::from_bytes(*bytes))
    }

    fn parse(text: &str, place: impl Fn() -> String) -> Result<Self, MasterKeyError> {
        let mut bytes = Zeroizing::new([0u8; 33]);
        match URL_SAFE_NO_PAD.decode_slice(text.trim_end_matches('='), &mut *bytes) {
            Ok(32) => {}
            _ => return Err(MasterKeyError::Malformed(place())),
        }
        let mut key = [0u8; 32];
        key.copy_from_slice(&bytes[..32]);
        let out = Self::from_bytes(key);
        key.zeroize();
        Ok(out)
    }

    /// A key for message authentication, for callers that use it often.
    ///
    /// # Panics
    /// Never: the derived key's length is fixed and within HKDF's limit.
    #[must_use]
    pub fn mac_key(&self, purpose: Purpose) -> hmac::Key {
        let info = [b"mac:".as_slice(), purpose.0.as_bytes()];
        let okm = self.0.expand(&info, hmac::HMAC_SHA256);
        hmac::Key::from(okm.expect("32 bytes are less than HKDF's limit"))
    }

    /// HMAC-SHA-256 of `data` under the key of `purpose`.
    #[must_use]
    pub fn mac(&self, purpose: Purpose, data: &[u8]) -> [u8; 32] {
        mac(&self.mac_key(purpose), data)
    }

    /// Whether `tag` is [`Self::mac`] of `data`, in constant time.
    #[must_use]
    pub fn verify_mac(&self, purpose: Purpose, data: &[u8], tag: &[u8]) -> bool {
        hmac::verify(&self.mac_key(purpose), data, tag).is_ok()
    }

    /// Seals `plaintext` for `purpose` in the context `aad`.
    ///
    /// # Panics
    /// When `plaintext` is larger than the cipher takes (64 GiB).
    #[must_use]
    pub fn seal(&self, purpose: Purpose, aad: &[u8], plaintext: &[u8], entropy: &dyn Entropy) -> Vec<u8> {
        let mut nonce = [0u8; NONCE_BYTES];
        entropy.fill(&mut nonce);
        // The buffer holds the plaintext and the tag from the start: growing it would leave a copy behind.
        let mut body = Vec::with_capacity(plaintext.len() + 16);
        body.extend_from_slice(plaintext);
        self.aead_key(purpose)
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut body)
            .expect("the cipher takes inputs of this size");
        let mut sealed = Vec::with_capacity(1 + NONCE_BYTES + body.len());
        sealed.push(SEALED_V1);
        sealed.extend_from_slice(&nonce);
        sealed.append(&mut body);
        sealed
    }

    /// Opens what [`Self::seal`] sealed for the same purpose and context.
    ///
    /// # Errors
    /// It was sealed otherwise or changed since.
    pub fn open(
        &self,
        purpose: Purpose,
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, NotAuthentic> {
        let (&[SEALED_V1], rest) = sealed.split_first_chunk::<1>().ok_or(NotAuthentic)? else {
            return Err(NotAuthentic);
        };
        let (nonce, body) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(NotAuthentic)?;
        let mut body = Zeroizing::new(body.to_vec());
        let length = self
            .aead_key(purpose)
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), &mut body)
            .map_err(|_| NotAuthentic)?
            .len();
        body.truncate(length);
        Ok(body)
    }

    fn aead_key(&self, purpose: Purpose) -> LessSafeKey {
        let info = [b"aead:".as_slice(), purpose.0.as_bytes()];
        let okm = self.0.expand(&info, &AES_256_GCM);
        LessSafeKey::new(UnboundKey::from(okm.expect("32 bytes are less than HKDF's limit")))
    }
}

/// HMAC-SHA-256 under a key of [`MasterKey::mac_key`].
#[must_use]
pub fn mac(key: &hmac::Key, data: &[u8]) -> [u8; 32] {
    let mut out = [0u8; 32];
    out.copy_from_slice(hmac::sign(key, data).as_ref());
    out
}

/// The parts of an authenticated row in one piece, each after its length: no two rows give the same bytes.
#[must_use]
pub fn frame(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(parts.iter().map(|p| p.len() + 8).sum());
    for part in parts {
        out.extend_from_slice(&(part.len() as u64).to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

fn read_key_file(path: &Path) -> Result<Zeroizing<String>, MasterKeyError> {
    use std::io::Read;
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => MasterKeyError::Missing(path.to_owned()),
        _ => MasterKeyError::File { path: path.to_owned(), source },
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    // readable by a group: how Kubernetes hands a secret to a container's user
    if mode & 0o027 != 0 {
        tracing::warn!(path = %path.display(), "others may read the master key file: set its mode to 0600 (or 0640)");
    }
    let mut text = Zeroizing::new(String::with_capacity(256));
    file.take(256).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::config::Secret;
    use crate::token::SystemEntropy;

    const USE: Purpose = Purpose::KEY_SEAL;

    fn key(byte: u8) -> MasterKey {
        MasterKey::from_bytes([byte; 32])
    }

    #[test]
    fn a_sealed_value_opens_only_for_its_key_purpose_and_context() {
        let sealed = key(1).seal(USE, b"kid|ES256", b"secret", &SystemEntropy);
        assert_eq!(&**key(1).open(USE, b"kid|ES256", &sealed).unwrap(), b"secret");
        assert!(key(2).open(USE, b"kid|ES256", &sealed).is_err());
        assert!(key(1).open(Purpose::CLIENT_ROW, b"kid|ES256", &sealed).is_err());
        assert!(key(1).open(USE, b"kid|RS256", &sealed).is_err());
        assert_ne!(sealed, key(1).seal(USE, b"kid|ES256", b"secret", &SystemEntropy));
    }

    #[test]
    fn a_sealed_value_with_any_changed_byte_does_not_open() {
        let sealed = key(1).seal(USE, b"", b"secret", &SystemEntropy);
        for i in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[i] ^= 1;
            assert_eq!(key(1).open(USE, b"", &changed).unwrap_err(), NotAuthentic, "byte {i}");
            assert!(key(1).open(USE, b"", &sealed[..i]).is_err(), "cut at {i}");
        }
    }

    #[test]
    fn macs_differ_by_purpose_and_key() {
        let tag = key(1).mac(Purpose::CLIENT_ROW, b"row");
        assert!(key(1).verify_mac(Purpose::CLIENT_ROW, b"row", &tag));
        assert!(!key(1).verify_mac(Purpose::KEY_ROW, b"row", &tag));
        assert!(!key(2).verify_mac(Purpose::CLIENT_ROW, b"row", &tag));
        assert!(!key(1).verify_mac(Purpose::CLIENT_ROW, b"row", &tag[..16]));
    }

    #[test]
    fn the_key_file_is_private_and_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        let source = SecretSource::File(path.clone());
        assert!(matches!(MasterKey::load(&source), Err(MasterKeyError::Missing(_))));
        let made = MasterKey::create(&path, &SystemEntropy).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let loaded = MasterKey::load(&source).unwrap();
        assert_eq!(made.mac(USE, b"x"), loaded.mac(USE, b"x"));
        assert!(matches!(MasterKey::create(&path, &SystemEntropy), Err(MasterKeyError::Exists(_))));
        assert_eq!(loaded.mac(USE, b"x"), MasterKey::load(&source).unwrap().mac(USE, b"x"));
    }

    #[test]
    fn only_32_bytes_of_base64url_are_a_key_and_errors_do_not_show_it() {
        for bad in ["", "short", &"A".repeat(42), &"A".repeat(44), &"+".repeat(43)] {
            let error = MasterKey::load(&SecretSource::Inline(Secret::new(bad.to_owned()))).unwrap_err();
            assert!(matches!(error, MasterKeyError::Malformed(_)), "{bad}");
            assert!(bad.is_empty() || !error.to_string().contains(bad), "{error}");
        }
        assert!(MasterKey::load(&SecretSource::Inline(Secret::new("A".repeat(43)))).is_ok());
        assert_eq!(format!("{:?}", key(7)), "MasterKey([redacted])");
    }
}
