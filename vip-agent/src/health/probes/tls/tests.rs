//! Whom a probe believes, and who it says that it is.

#[path = "../../../../tests/support/certificates.rs"]
mod certificates;

use std::net::SocketAddr;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use self::certificates::{Authority, Identity as Made, self_signed};
use super::super::{Asker, Limit};
use super::*;
use crate::config::Question;

/// Files of one test.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// A TLS server that answers 200 to whom it lets in; `clients`: whose certificates it asks for.
async fn server(identity: &Made, clients: Option<&Authority>) -> SocketAddr {
    let acceptor = acceptor(identity, clients);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            let _ = stream.shutdown().await;
        }
    });
    address
}

fn acceptor(identity: &Made, clients: Option<&Authority>) -> TlsAcceptor {
    let chain = CertificateDer::pem_slice_iter(identity.cert.as_bytes()).collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut store = RootCertStore::empty();
            store.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()))
}

/// A TLS server that says this and closes the connection without TLS's farewell.
async fn closing(identity: &Made, answer: &'static str) -> SocketAddr {
    let acceptor = acceptor(identity, None);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
    });
    address
}

fn asker(server: SocketAddr, change: impl FnOnce(&mut Http)) -> Asker {
    let mut http = Http::get(format!("https://{server}/").parse().unwrap());
    change(&mut http);
    Asker::new("probe", &Question::Http(Box::new(http)))
}

async fn ask(asker: &Asker) -> Result<(), String> {
    let timeout = Duration::from_secs(20);
    asker.ask(Limit { until: Instant::now() + timeout, timeout }).await
}

/// It fails, and says so.
async fn refused(asker: &Asker, why: &str) {
    let told = ask(asker).await.expect_err("it should not be up");
    assert!(told.contains(why), "{told:?} and not {why:?}");
}

#[tokio::test]
async fn a_server_is_believed_by_its_authority_its_name_and_the_date() {
    let (authority, files) = (Authority::new(), Files::new());
    let ca_file = files.write("ca.pem", &authority.pem);
    let by_ca = |http: &mut Http| http.ca_file = Some(ca_file.clone());
    let right = server(&authority.server("127.0.0.1"), None).await;
    assert_eq!(ask(&asker(right, by_ca)).await, Ok(()));
    let named = server(&authority.server("a.example"), None).await;
    refused(&asker(named, by_ca), "TLS: invalid peer certificate: certificate not valid for name").await;
    let by_name = |http: &mut Http| {
        by_ca(http);
        http.host = Some("a.example:8443".parse().unwrap());
    };
    assert_eq!(ask(&asker(named, by_name)).await, Ok(()));
    let expired = server(&authority.expired("127.0.0.1"), None).await;
    refused(&asker(expired, by_ca), "TLS: invalid peer certificate: certificate expired").await;
    let other = server(&Authority::new().server("127.0.0.1"), None).await;
    refused(&asker(other, by_ca), "TLS: invalid peer certificate").await;
}

#[tokio::test]
async fn a_self_signed_server_is_believed_by_its_very_certificate_at_its_name_and_in_its_time() {
    let files = Files::new();
    for authority in [true, false] {
        let made = self_signed("127.0.0.1", authority, false);
        let address = server(&made, None).await;
        let ca_file = files.write("own.pem", &made.cert);
        assert_eq!(ask(&asker(address, |http| http.ca_file = Some(ca_file.clone()))).await, Ok(()));
        let named = |http: &mut Http| {
            http.ca_file = Some(ca_file.clone());
            http.host = Some("a.example".parse().unwrap());
        };
        refused(&asker(address, named), "certificate not valid for name").await;
        let other = files.write("other.pem", &self_signed("127.0.0.1", authority, false).cert);
        refused(&asker(address, |http| http.ca_file = Some(other)), "TLS: invalid peer certificate").await;
        refused(&asker(address, |_| ()), "TLS: invalid peer certificate").await;

        let expired = self_signed("127.0.0.1", authority, true);
        let address = server(&expired, None).await;
        let ca_file = files.write("expired.pem", &expired.cert);
        refused(&asker(address, |http| http.ca_file = Some(ca_file)), "certificate expired").await;
    }
    let early = Authority::new();
    let ca_file = files.write("ca.pem", &early.pem);
    let address = server(&early.early("127.0.0.1"), None).await;
    refused(&asker(address, |http| http.ca_file = Some(ca_file)), "certificate not valid yet").await;
}

#[tokio::test]
async fn over_tls_a_body_that_breaks_off_is_no_answer_unless_its_end_is_the_connections() {
    let (authority, files) = (Authority::new(), Files::new());
    let ca_file = files.write("ca.pem", &authority.pem);
    let identity = authority.server("127.0.0.1");
    let outcome = async |answer: &'static str| {
        let address = closing(&identity, answer).await;
        ask(&asker(address, |http| http.ca_file = Some(ca_file.clone()))).await
    };
    let early = Err("in the body: the server closed the connection too early".to_owned());
    assert_eq!(outcome("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok").await, early);
    assert_eq!(outcome("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n").await, early);
    assert_eq!(outcome("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await, Ok(()));
    assert_eq!(outcome("HTTP/1.0 200 OK\r\n\r\nok").await, Ok(()));
}

#[tokio::test]
async fn without_a_ca_file_the_systems_authorities_count_and_insecure_takes_anybody() {
    let unknown = server(&Authority::new().expired("elsewhere"), None).await;
    assert!(ask(&asker(unknown, |_| ())).await.is_err());
    assert_eq!(ask(&asker(unknown, |http| http.insecure = true)).await, Ok(()));
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_who_asks_for_it() {
    let (authority, files) = (Authority::new(), Files::new());
    let ca_file = files.write("ca.pem", &authority.pem);
    let server = server(&authority.server("127.0.0.1"), Some(&authority)).await;
    let anonymous = |http: &mut Http| http.ca_file = Some(ca_file.clone());
    refused(&asker(server, anonymous), "CertificateRequired").await;
    let client = authority.client();
    let identity = Identity {
        cert_file: files.write("cert.pem", &client.cert),
        key_file: files.write("key.pem", &client.key),
    };
    let known = |http: &mut Http| {
        anonymous(http);
        http.identity = Some(identity.clone());
    };
    assert_eq!(ask(&asker(server, known)).await, Ok(()));
    files.write("key.pem", &authority.client().key);
    refused(&asker(server, known), "key.pem").await;
}

#[tokio::test]
async fn renewed_files_are_taken_up_and_unusable_ones_are_named_without_their_text() {
    let (authority, files) = (Authority::new(), Files::new());
    let server = server(&authority.server("127.0.0.1"), None).await;
    let ca_file = files.0.path().join("ca.pem");
    let asker = asker(server, |http| http.ca_file = Some(ca_file.clone()));
    refused(&asker, "ca.pem: No such file or directory").await;
    files.write("ca.pem", "hunter2");
    refused(&asker, "ca.pem: holds no certificate in PEM").await;
    files.write("ca.pem", "-----BEGIN CERTIFICATE-----\nhunter2\n-----END CERTIFICATE-----\n");
    let told = ask(&asker).await.unwrap_err();
    assert!(told.contains("ca.pem") && !told.contains("hunter2"), "{told}");
    files.write("ca.pem", &authority.pem);
    assert_eq!(ask(&asker).await, Ok(()));
    files.write("ca.pem", &Authority::new().pem);
    refused(&asker, "TLS: invalid peer certificate").await;
}

#[tokio::test]
async fn what_speaks_no_tls_is_said() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    });
    refused(&asker(address, |http| http.insecure = true), "TLS: ").await;
}
