//! What the server shows and proves by TLS: certificate chain and private key.

use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;

/// Certificates and key, ready to be used. Two are equal if certificates and keys are.
#[derive(Clone)]
pub struct ServerIdentity {
    chain: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKeyDer<'static>>,
    config: Arc<ServerConfig>,
}

/// Why two texts make no identity. Does not repeat them.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No `BEGIN CERTIFICATE`, or something unreadable in it.
    #[error("the certificate file holds no certificate in PEM: {0}")]
    NoCertificate(String),
    /// No `BEGIN PRIVATE KEY` or the like, or something unreadable in it.
    #[error("the key file holds no unencrypted private key in PEM: {0}")]
    NoKey(String),
    /// They do not belong together, or are of a kind that is not served.
    #[error("certificate and key cannot be used together: {0}")]
    Unusable(#[from] rustls::Error),
}

impl ServerIdentity {
    /// From two PEM texts: the chain, the server's own certificate first, and its key.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let chain = certificates.map_err(|error| IdentityError::NoCertificate(error.to_string()))?;
        if chain.is_empty() {
            return Err(IdentityError::NoCertificate("there is none in it".into()));
        }
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|error| IdentityError::NoKey(error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain.clone(), key.clone_key())?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Each connection is one request: sessions to resume would be memory that strangers fill.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { chain, key: Arc::new(key), config: Arc::new(config) })
    }

    /// For a TLS acceptor.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}

impl PartialEq for ServerIdentity {
    fn eq(&self, other: &Self) -> bool {
        self.chain == other.chain && self.key == other.key
    }
}

impl Eq for ServerIdentity {}

impl fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerIdentity({} certificates)", self.chain.len())
    }
}
