//! TLS for `http` probes: whom to believe, and who we are.

mod own;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::config::{Http, Identity};

/// A probe's TLS, made of its files anew when one of them has changed: certificates are renewed while the agent runs.
#[derive(Debug)]
pub(super) struct Tls {
    ca_file: Option<PathBuf>,
    identity: Option<Identity>,
    insecure: bool,
    made: Mutex<Option<(Vec<Stamp>, Arc<ClientConfig>)>>,
}

/// By what a file is told from what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    modified: (i64, i64),
    length: u64,
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self { inode: file.ino(), modified: (file.mtime(), file.mtime_nsec()), length: file.len() }
    }
}

impl Tls {
    pub(super) fn new(http: &Http) -> Self {
        Self {
            ca_file: http.ca_file.clone().filter(|_| !http.insecure),
            identity: http.identity.clone(),
            insecure: http.insecure,
            made: Mutex::new(None),
        }
    }

    /// Reads files, so it may hang.
    ///
    /// # Errors
    /// One of them does not serve. Says nothing of what is in it.
    pub(super) fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let stamps = self.files().map(stamp).collect::<Result<Vec<_>, _>>()?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((from, config)) = &*made
            && *from == stamps
        {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.make()?);
        *made = Some((stamps, Arc::clone(&config)));
        Ok(config)
    }

    fn files(&self) -> impl Iterator<Item = &Path> {
        let identity = self.identity.iter().flat_map(|identity| [&identity.cert_file, &identity.key_file]);
        self.ca_file.iter().chain(identity).map(PathBuf::as_path)
    }

    fn make(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match &self.ca_file {
            _ if self.insecure => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            }
            Some(file) => {
                let known = certificates(file)?;
                let named = |error: &dyn fmt::Display| format!("ca_file {}: {error}", file.display());
                let verifier = own::Own::new(known, provider).map_err(|error| named(&error))?;
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
            }
            None => builder.with_root_certificates(system_authorities()?),
        };
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(Identity { cert_file, key_file }) => {
                let chain = certificates(cert_file)?;
                let key = PrivateKeyDer::from_pem_file(key_file)
                    .map_err(|error| format!("key_file {}: {}", key_file.display(), pem(&error)))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| {
                    format!("cert_file {}, key_file {}: {error}", cert_file.display(), key_file.display())
                })?
            }
        };
        // Each question is a conversation of its own: nothing is to be resumed, and no memory to be spent on it.
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn stamp(file: &Path) -> Result<Stamp, String> {
    let metadata = std::fs::metadata(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(Stamp::of(&metadata))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error: &rustls::pki_types::pem::Error| format!("{}: {}", file.display(), pem(error));
    let certificates = CertificateDer::pem_file_iter(file)
        .map_err(|error| wrong(&error))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(&error))?;
    if certificates.is_empty() {
        return Err(format!("{}: holds no certificate in PEM", file.display()));
    }
    Ok(certificates)
}

/// What is wrong with a PEM file: never any of its text.
fn pem(error: &rustls::pki_types::pem::Error) -> String {
    match error {
        rustls::pki_types::pem::Error::Io(error) => error.to_string(),
        rustls::pki_types::pem::Error::NoItemsFound => "holds nothing of the kind in PEM".to_owned(),
        _ => "is no PEM".to_owned(),
    }
}

/// Those that the system trusts, read once: they are the same for all probes.
fn system_authorities() -> Result<Arc<RootCertStore>, String> {
    static SYSTEM: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(store) = SYSTEM.get() {
        return Ok(Arc::clone(store));
    }
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() {
        return Err(
            "this system has no certificates of authorities: install ca-certificates, or name a ca_file"
                .into(),
        );
    }
    Ok(Arc::clone(SYSTEM.get_or_init(|| Arc::new(store))))
}

/// `insecure`: any certificate will do.
struct Anybody(Arc<CryptoProvider>);

impl fmt::Debug for Anybody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Anybody")
    }
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
