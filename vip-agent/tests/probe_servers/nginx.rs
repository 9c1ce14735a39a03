//! `http` against nginx, with certificates of every kind: also with one as operators make it, by openssl.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use vip_lab::{Lab, Node};

use super::agents::Ask as _;
use super::certificates::{Authority, Identity};
use super::{Case, all_are_right, hold};

/// nginx's configuration as it grows, and the probes that ask it.
struct Table<'a> {
    node: &'a Node,
    servers: String,
    port: u16,
    cases: Vec<Case>,
}

impl Table<'_> {
    fn file(&self, name: &str, text: &str) -> Result<String> {
        let path = self.node.file_path(name);
        self.node.write_file(&path, text)?;
        Ok(path.display().to_string())
    }

    /// A server with this certificate and these directives, and a probe that asks it.
    fn tls(
        &mut self,
        name: &'static str,
        identity: &Identity,
        directives: &str,
        probe: Value,
        expected: Result<(), &'static str>,
    ) -> Result<()> {
        let cert = self.file(&format!("{name}.pem"), &identity.cert)?;
        let key = self.file(&format!("{name}.key"), &identity.key)?;
        self.with_files(name, &cert, &key, directives, probe, expected);
        Ok(())
    }

    fn with_files(
        &mut self,
        name: &'static str,
        cert: &str,
        key: &str,
        directives: &str,
        probe: Value,
        expected: Result<(), &'static str>,
    ) {
        self.port += 1;
        let port = self.port;
        let _ = writeln!(
            self.servers,
            "server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {cert}; ssl_certificate_key {key}; {directives} \
             location / {{ return 200 'all well'; }} }}"
        );
        self.ask(name, format!("https://127.0.0.1:{port}/"), probe, expected);
    }

    fn ask(&mut self, name: &'static str, url: String, mut probe: Value, expected: Result<(), &'static str>) {
        probe["url"] = Value::String(url);
        self.cases.push(Case::new(name, "http", probe, expected));
    }

    /// The whole configuration.
    fn config(&self, files: &str) -> String {
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {files}/{kind};"))
            .join(" ");
        format!(
            "daemon off; user root; pid {files}/pid; error_log stderr; events {{}}\nhttp {{ access_log off; {temporary}\n{}}}\n",
            self.servers
        )
    }
}

/// Whom the server is, and whom the probe believes.
fn servers(table: &mut Table<'_>, authority: &Authority, ca: &str) -> Result<()> {
    let by_ca = json!({"ca_file": ca});
    let by_name = json!({"ca_file": ca, "host": "a.svc.example"});
    let ours = authority.server("127.0.0.1");
    let invalid = "TLS: invalid peer certificate: ";
    let unknown = "UnknownIssuer (`ca_file` names the authority";
    table.tls("right", &ours, "", by_ca.clone(), Ok(()))?;
    table.tls("tls-1.2", &ours, "ssl_protocols TLSv1.2;", by_ca.clone(), Ok(()))?;
    table.tls("tls-1.3", &ours, "ssl_protocols TLSv1.3;", by_ca.clone(), Ok(()))?;
    table.tls("name", &authority.server("a.svc.example"), "", by_name.clone(), Ok(()))?;
    table.tls("wildcard", &authority.server("*.svc.example"), "", by_name, Ok(()))?;
    let other_name = "TLS: invalid peer certificate: certificate not valid for name";
    table.tls("wrong-name", &authority.server("b.example"), "", by_ca.clone(), Err(other_name))?;
    table.tls("wrong-address", &authority.server("127.0.0.2"), "", by_ca.clone(), Err(other_name))?;
    table.tls("expired", &authority.expired("127.0.0.1"), "", by_ca.clone(), Err("certificate expired"))?;
    table.tls("early", &authority.early("127.0.0.1"), "", by_ca.clone(), Err("certificate not valid yet"))?;
    table.tls(
        "wrong-ca",
        &Authority::new().server("127.0.0.1"),
        "",
        by_ca.clone(),
        Err("BadSignature (`ca_file` names the authority"),
    )?;
    table.tls("system-ca", &ours, "", json!({}), Err(unknown))?;
    table.tls("insecure", &authority.expired("elsewhere"), "", json!({"insecure": true}), Ok(()))?;
    let missing = json!({"ca_file": "/no/ca.pem"});
    table.tls("ca-missing", &ours, "", missing, Err("/no/ca.pem: No such file or directory"))?;
    let client = authority.client();
    table.tls("a-clients", &client, "", by_ca.clone(), Err(invalid))?;

    let below = authority.below();
    let mut chained = below.server("127.0.0.1");
    table.tls("chain-missing", &chained, "", by_ca.clone(), Err(unknown))?;
    chained.cert.push_str(&below.pem);
    table.tls("chain", &chained, "", by_ca.clone(), Ok(()))?;
    let intermediate = table.file("below.pem", &below.pem)?;
    table.tls("ca-is-intermediate", &below.server("127.0.0.1"), "", json!({"ca_file": intermediate}), Ok(()))
}

/// What `openssl req -x509` makes: signed by itself, and an authority by its own account.
fn by_openssl(table: &mut Table<'_>, ca: &str) -> Result<()> {
    let (cert, key) = (table.node.file_path("own.pem"), table.node.file_path("own.key"));
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    let openssl =
        table.node.command("openssl").args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]);
    let openssl = openssl.args(["-subj", "/CN=probed", "-addext", "subjectAltName=IP:127.0.0.1"]);
    openssl.args(["-keyout", &key, "-out", &cert]).read()?;
    table.with_files("self-signed", &cert, &key, "", json!({"ca_file": cert}), Ok(()));
    let unknown = Err("TLS: invalid peer certificate");
    table.with_files("self-signed-unknown", &cert, &key, "", json!({}), unknown);
    table.with_files("self-signed-other", &cert, &key, "", json!({"ca_file": ca}), unknown);
    let other_name = json!({"ca_file": cert, "host": "a.example"});
    table.with_files("self-signed-name", &cert, &key, "", other_name, Err("not valid for name"));
    Ok(())
}

/// Who the probe is.
fn clients(table: &mut Table<'_>, authority: &Authority, ca: &str) -> Result<()> {
    let ours = authority.server("127.0.0.1");
    let demands = format!("ssl_client_certificate {ca}; ssl_verify_client on;");
    let shows = |table: &Table<'_>, name: &str, client: &Identity| -> Result<Value> {
        let cert = table.file(&format!("{name}.pem"), &client.cert)?;
        let key = table.file(&format!("{name}.key"), &client.key)?;
        Ok(json!({"ca_file": ca, "cert_file": cert, "key_file": key}))
    };
    let known = shows(table, "known-client", &authority.client())?;
    let stranger = shows(table, "other-client", &Authority::new().client())?;
    let mut torn = known.clone();
    torn["key_file"] = stranger["key_file"].clone();
    table.tls("client-known", &ours, &demands, known.clone(), Ok(()))?;
    table.tls("client-anonymous", &ours, &demands, json!({"ca_file": ca}), Err("status 400"))?;
    table.tls("client-stranger", &ours, &demands, stranger, Err("status 400"))?;
    table.tls("client-not-asked", &ours, "", known, Ok(()))?;
    table.tls("client-wrong-key", &ours, &demands, torn, Err("other-client.key"))
}

/// nginx as people have it: large files, compression, an upstream that hangs or is gone.
fn usual(table: &mut Table<'_>) -> Result<()> {
    let root = table.node.file_path("root").display().to_string();
    table.node.command("mkdir").arg(&root).read()?;
    table.node.command("truncate").args(["-s", "100M", &format!("{root}/huge")]).read()?;
    table.node.write_file(format!("{root}/page.html"), format!("{}needle", "x".repeat(100_000)))?;
    let _ = write!(
        table.servers,
        "server {{ listen 127.0.0.1:8080; listen [::1]:8080; root {root}; gzip on; gzip_types *; gzip_min_length 1;\n\
         location /gone {{ proxy_pass http://127.0.0.1:9; }}\n\
         location /slow {{ limit_rate 100; alias {root}/page.html; }}\n\
         location = /token {{ if ($http_authorization != 'Bearer hunter2') {{ return 401; }} return 204; }}\n\
         location = /moved {{ return 301 /page.html; }} }}\n\
         server {{ listen 127.0.0.1:8081; return 444; }}\n"
    );
    let at = |path: &str| format!("http://127.0.0.1:8080/{path}");
    let needle = json!({"body": "needle"});
    table.ask("page", at("page.html"), needle.clone(), Ok(()));
    table.ask("page-v6", "http://[::1]:8080/page.html".to_owned(), needle.clone(), Ok(()));
    let packed = json!({"body": "needle", "headers": {"Accept-Encoding": "gzip"}});
    table.ask("page-gzip", at("page.html"), packed, Err("Content-Encoding gzip"));
    let token = |table: &Table<'_>, text: &str| -> Result<Value> {
        Ok(json!({"status": ["200-299"], "token_file": table.file(text, &format!("{text}\n"))?}))
    };
    let (right, wrong) = (token(table, "hunter2")?, token(table, "hunter3")?);
    table.ask("token", at("token"), right, Ok(()));
    table.ask("token-wrong", at("token"), wrong, Err("status 401 Unauthorized"));
    table.ask("head", at("huge"), json!({"method": "HEAD"}), Ok(()));
    table.ask("huge", at("huge"), json!({}), Err("the body is larger than 256 KiB"));
    table.ask(
        "slow",
        at("slow"),
        json!({}),
        Err("no answer within 1s: reading the body|no answer within 1s: waiting for the answer"),
    );
    table.ask("bad-gateway", at("gone"), json!({}), Err("status 502 Bad Gateway"));
    table.ask(
        "moved",
        at("moved"),
        json!({}),
        Err("status 301 Moved Permanently (redirects are not followed)"),
    );
    table.ask("not-found", at("none"), json!({}), Err("status 404 Not Found"));
    table.ask(
        "closes",
        "http://127.0.0.1:8081/".to_owned(),
        json!({}),
        Err("closed the connection without an answer"),
    );
    table.ask("tls-to-plain", "https://127.0.0.1:8080/".to_owned(), json!({}), Err("TLS: "));
    let plain_to_tls = format!("http://127.0.0.1:{}/", table.port);
    table.ask("plain-to-tls", plain_to_tls, json!({}), Err("status 400 Bad Request"));
    Ok(())
}

#[test]
fn nginx_is_believed_by_its_certificate_and_up_and_down_as_it_answers() -> Result<()> {
    let lab = Lab::builder().nodes(1).clients(0).vips(["10.0.0.50"]).build()?;
    let node = lab.node(1);
    let authority = Authority::new();
    let mut table = Table { node, servers: String::new(), port: 8442, cases: Vec::new() };
    let ca = table.file("ca.pem", &authority.pem)?;
    servers(&mut table, &authority, &ca)?;
    by_openssl(&mut table, &ca)?;
    clients(&mut table, &authority, &ca)?;
    usual(&mut table)?;
    let files = node.file_path("nginx-files").display().to_string();
    node.command("mkdir").arg(&files).read()?;
    let config = table.file("nginx.conf", &table.config(&files))?;
    let nginx = node.command("nginx").args(["-p", &files, "-c", &config]).spawn("nginx")?;
    let agent = hold(&lab, &table.cases)?;
    println!("{} probes: {} KiB resident", table.cases.len(), agent.process().resident_kib()?);
    let shown = [agent.say(&["config"])?.out, agent.log(), agent.status()?.raw.to_string()].join("\n");
    // The files are named after what is in them.
    let shown = shown.replace("/hunter", "");
    ensure!(
        !shown.contains("hunter") && !shown.contains("PRIVATE KEY") && !shown.contains("BEGIN CERTIFICATE"),
        "{shown}"
    );

    nginx.signal(Signal::SIGTERM)?;
    nginx.wait(super::SOON)?;
    let gone: Vec<Case> = table
        .cases
        .into_iter()
        .filter(|case| case.expected.is_ok())
        .map(|case| Case { expected: Err("cannot connect to "), ..case })
        .collect();
    all_are_right(&agent, &gone)
}
