//! TLS and the token, at the start and after reloads.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::json;
use vip_lab::Node;

use crate::agents::{self, SOON};
use crate::client::{API, Answer, Stream, connect, exchange, read};

const TOKEN: &str = "5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e";
const OTHER_TOKEN: &str = "6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e";

const OPENSSL: &str = "[req]\nprompt = no\ndistinguished_name = name\nx509_extensions = extensions\n[name]\nCN = node\n\
                       [extensions]\nbasicConstraints = critical,CA:FALSE\nsubjectAltName = IP:127.0.0.1\n";

/// A certificate for 127.0.0.1, signed by itself, and its key.
fn pair() -> Result<[String; 2]> {
    let dir = tempfile::tempdir()?;
    let [config, cert, key] = ["config", "cert", "key"].map(|name| dir.path().join(name));
    fs::write(&config, OPENSSL)?;
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]);
    openssl.arg("-config").arg(config).arg("-out").arg(&cert).arg("-keyout").arg(&key);
    let output = openssl.output().context("start openssl (`cargo xtask setup` installs it)")?;
    ensure!(output.status.success(), "{output:?}");
    Ok([fs::read_to_string(cert)?, fs::read_to_string(key)?])
}

fn write_private(node: &Node, name: &str, text: &str) -> Result<String> {
    let path = node.file_path(name);
    node.write_file(&path, text)?;
    let private = path.clone();
    node.run(move || fs::set_permissions(private, Permissions::from_mode(0o600)))?;
    Ok(path.to_string_lossy().into_owned())
}

/// Asks over TLS, believing this certificate alone.
fn get(node: &Node, certificate: &str, path: &str, token: &str) -> Result<Answer> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), API.ip().into())?;
    let mut stream = StreamOwned::new(connection, connect(node, API)?);
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    read(&mut stream)
}

#[test]
fn certificate_and_token_count_and_are_read_again_by_a_reload() -> Result<()> {
    let lab = agents::lab().nodes(1).build()?;
    let node = lab.node(1);
    let ([cert, key], [other_cert, other_key]) = (pair()?, pair()?);
    let (cert_file, key_file) = (write_private(node, "crt", &cert)?, write_private(node, "key", &key)?);
    let token_file = write_private(node, "token", TOKEN)?;
    let tls = json!({"cert_file": cert_file, "key_file": key_file});
    let agent = agents::agent(&lab, 1).set("api", json!({"tls": tls, "token_file": token_file})).start()?;
    agent.wait_state("active", SOON)?;

    for path in ["/", "/metrics", "/status"] {
        ensure!(get(node, &cert, path, TOKEN)?.status == 200, "{path}");
        let refused = get(node, &cert, path, OTHER_TOKEN)?;
        ensure!(refused.status == 401 && refused.headers.contains("www-authenticate: bearer"), "{refused:?}");
    }
    ensure!(get(node, &cert, "/healthz", "")?.status == 200);
    ensure!(get(node, &other_cert, "/healthz", "").is_err(), "another certificate");
    ensure!(exchange(node, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").is_err(), "HTTP without TLS");

    write_private(node, "crt", &other_cert)?;
    write_private(node, "key", &other_key)?;
    write_private(node, "token", OTHER_TOKEN)?;
    agent.reload(&agent.builder())?;
    ensure!(get(node, &other_cert, "/status", OTHER_TOKEN)?.status == 200);
    ensure!(get(node, &other_cert, "/status", TOKEN)?.status == 401);
    ensure!(get(node, &cert, "/healthz", "").is_err(), "the former certificate");

    let shown = [agent.log(), agent.builder().command(&["config"]).read()?, agent.status()?.raw.to_string()];
    for text in shown {
        ensure!(!text.contains(TOKEN) && !text.contains(OTHER_TOKEN), "{text}");
        ensure!(!text.contains(other_key.lines().nth(1).context("a key")?), "{text}");
    }
    Ok(())
}

#[test]
fn a_stream_that_an_old_token_opened_ends_with_it() -> Result<()> {
    let lab = agents::lab().nodes(1).build()?;
    let node = lab.node(1);
    let token_file = write_private(node, "token", TOKEN)?;
    let agent = agents::agent(&lab, 1).set("api", json!({"token_file": token_file})).start()?;
    agent.wait_state("active", SOON)?;
    let mut stream = Stream::open(node, &format!("Authorization: Bearer {TOKEN}\r\n"))?;
    write_private(node, "token", OTHER_TOKEN)?;
    agent.reload(&agent.builder())?;
    while stream.line()?.is_some() {}
    ensure!(Stream::open(node, &format!("Authorization: Bearer {TOKEN}\r\n")).is_err());
    Stream::open(node, &format!("Authorization: Bearer {OTHER_TOKEN}\r\n"))?;
    Ok(())
}
