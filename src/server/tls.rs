//! TLS served directly: certificate and key from files, taken over anew when they change, without a connection lost.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::config::TlsConfig;
use crate::token::signer::sha256;

/// No chain of certificates is longer, bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Why a certificate and its key cannot be served. Names files, never what stands in them.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("{} cannot be read; check that it is there and that the service's user may read it", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is larger than any chain.
    #[error("{} is larger than {MAX_FILE_BYTES} bytes; name the right file", .0.display())]
    TooLarge(PathBuf),
    /// A file is no PEM.
    #[error("{} is not PEM", path.display())]
    NotPem {
        /// Which.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// There is no certificate in the file.
    #[error("{} holds no certificate; TLS_CERT_FILE is the chain in PEM, the server's own first", .0.display())]
    NoCertificate(PathBuf),
    /// There is no key in the file.
    #[error("{} holds no private key; TLS_KEY_FILE is an unencrypted key in PEM", .0.display())]
    NoKey(PathBuf),
    /// The key cannot be used, or belongs to another certificate.
    #[error("the key in {} cannot be used with the certificate in {}", key.display(), certificate.display())]
    NoMatch {
        /// `TLS_CERT_FILE`.
        certificate: PathBuf,
        /// `TLS_KEY_FILE`.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The library has no protocol to speak.
    #[error("TLS cannot be set up")]
    Protocol(#[source] rustls::Error),
}

/// A certificate that is served, and where it comes from.
pub struct Tls {
    config: TlsConfig,
    provider: Arc<CryptoProvider>,
    current: Arc<Current>,
    /// Of the files that were looked at last, usable or not.
    seen: Mutex<[u8; 32]>,
}

#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Tls {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// [`TlsError`], saying which file and what to do.
    pub fn open(config: &TlsConfig) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let files = Files::read(config)?;
        let current = files.certified(config, &provider)?;
        Ok(Self {
            config: config.clone(),
            provider,
            current: Arc::new(Current(ArcSwap::from_pointee(current))),
            seen: Mutex::new(files.hash()),
        })
    }

    /// TLS 1.2 and 1.3 with whatever certificate is current at each handshake.
    ///
    /// # Errors
    /// [`TlsError::Protocol`].
    pub fn server_config(&self) -> Result<ServerConfig, TlsError> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(TlsError::Protocol)?;
        Ok(builder.with_no_client_auth().with_cert_resolver(Arc::clone(&self.current) as _))
    }

    /// Takes over files that changed since the last look; whether it did. What is not usable is said once, and
    /// the certificate that is served stays.
    ///
    /// # Errors
    /// [`TlsError`]: they changed, and cannot be used.
    pub fn look(&self) -> Result<bool, TlsError> {
        let files = Files::read(&self.config)?;
        let hash = files.hash();
        if std::mem::replace(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner), hash) == hash {
            return Ok(false);
        }
        self.current.0.store(Arc::new(files.certified(&self.config, &self.provider)?));
        Ok(true)
    }
}

struct Files {
    certificate: Vec<u8>,
    key: zeroize::Zeroizing<Vec<u8>>,
}

impl Files {
    fn read(config: &TlsConfig) -> Result<Self, TlsError> {
        Ok(Self { certificate: read(&config.certificate)?, key: zeroize::Zeroizing::new(read(&config.key)?) })
    }

    fn hash(&self) -> [u8; 32] {
        sha256(&[sha256(&self.certificate), sha256(&self.key)].concat())
    }

    fn certified(&self, config: &TlsConfig, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let not_pem = |path: &Path| {
            let path = path.to_owned();
            move |source| TlsError::NotPem { path, source }
        };
        let chain = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(not_pem(&config.certificate))?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate(config.certificate.clone()));
        }
        let key = match PrivateKeyDer::from_pem_slice(&self.key) {
            Ok(key) => key,
            Err(pem::Error::NoItemsFound) => return Err(TlsError::NoKey(config.key.clone())),
            Err(error) => return Err(not_pem(&config.key)(error)),
        };
        CertifiedKey::from_der(chain, key, provider).map_err(|source| TlsError::NoMatch {
            certificate: config.certificate.clone(),
            key: config.key.clone(),
            source,
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(TlsError::TooLarge(path.to_owned()));
    }
    Ok(bytes)
}
