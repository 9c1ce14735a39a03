//! `api`, its token and its certificates, which nothing shows.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::super::{Api, Change, Config, Problems, Secrets, diff, effective, load, parse_with};
use super::{config, edge, errors, warnings};
use crate::api::{ServerIdentity, Token};

const TOKEN: &str = "5e5e5e5e5e5e5e5e5e5e";

/// With a token file that holds this token.
fn read(text: &str, token: &str) -> Result<(Config, Problems), Problems> {
    let secrets = Secrets { token_file: &|_| Ok(Token::new(token)?), ..Secrets::NONE };
    parse_with(text, "file.yaml", "this-node", &secrets)
}

fn api(line: &str) -> String {
    format!("{line}\n{}", edge(""))
}

/// A certificate and its key, both in PEM.
fn pair(dir: &Path, name: &str) -> [String; 2] {
    let files = ["crt", "key"].map(|kind| dir.join(format!("{name}.{kind}")));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
    openssl
        .args(["-days", "2", "-subj", &format!("/CN={name}"), "-out"])
        .arg(&files[0])
        .arg("-keyout")
        .arg(&files[1]);
    let output = openssl.output().expect("openssl (`cargo xtask setup` installs it)");
    assert!(output.status.success(), "{output:?}");
    files.map(|file| fs::read_to_string(file).unwrap())
}

#[test]
fn it_listens_for_this_host_alone_unless_told_otherwise_or_off() {
    let listen = |line: &str| config(&api(line)).api.map(|api| api.listen.to_string());
    assert_eq!(listen("").as_deref(), Some("127.0.0.1:9870"));
    assert_eq!(listen("api: {}").as_deref(), Some("127.0.0.1:9870"));
    assert_eq!(listen("api: {listen: \"[::]:80\"}").as_deref(), Some("[::]:80"));
    assert_eq!(listen("api: null"), None);
    assert_eq!(config(&api("")).api, Some(Api::default()));
}

#[test]
fn what_nobody_could_reach_is_refused() {
    let form = "must be IP:PORT as in \"127.0.0.1:9870\" or \"[::1]:9870\", not";
    for (line, expected) in [
        ("api: {listen: \"localhost:80\"}", format!("1:15: api.listen: {form} \"localhost:80\"")),
        ("api: {listen: \":9870\"}", format!("1:15: api.listen: {form} \":9870\"")),
        ("api: {listen: \"::1:80\"}", format!("1:15: api.listen: {form} \"::1:80\"")),
        (
            "api: {listen: \"127.0.0.1:0\"}",
            "1:15: api.listen: must name a port, 1-65535: nobody would find another".to_owned(),
        ),
        ("api: {tls: {cert_file: /a}}", "1:12: api.tls.key_file: is missing".to_owned()),
        (
            "api: {token_file: token}",
            "1:19: api.token_file: must be an absolute path, not \"token\"".to_owned(),
        ),
        ("api: {port: 80}", "1:7: api.port: unknown key; known here: listen, tls, token_file".to_owned()),
        ("api: true", "1:6: api: must be a mapping, not true".to_owned()),
    ] {
        assert_eq!(errors(&api(line)), [expected], "{line}");
    }
}

#[test]
fn a_token_that_crosses_the_network_in_the_clear_is_warned_of() {
    let warned = |line: &str| read(&api(line), TOKEN).unwrap().1.to_string();
    let expected = "file.yaml:1:6: api: warning: without `tls` the token crosses the network in the clear";
    assert_eq!(warned("api: {listen: \"0.0.0.0:9870\", token_file: /t}"), expected);
    assert_eq!(warned("api: {token_file: /t}"), "");
    assert!(warnings(&api("api: {listen: \"0.0.0.0:9870\"}")).is_empty());
}

#[test]
fn neither_the_effective_form_nor_debug_shows_the_token_and_another_one_is_a_change() {
    let text = api("api: {token_file: /etc/viplane/api.token}");
    let [old, new] = [TOKEN, "6e6e6e6e6e6e6e6e6e6e"].map(|token| read(&text, token).unwrap().0);
    for shown in [effective(&old), format!("{old:?}")] {
        assert!(shown.contains("/etc/viplane/api.token") && !shown.contains("5e5e"), "{shown}");
    }
    assert_eq!(diff(&old, &new), [Change::Api]);
    assert!(diff(&old, &old).is_empty());
}

#[test]
fn a_token_file_is_read_with_the_configuration_if_it_is_private_and_holds_one() {
    let dir = tempfile::tempdir().unwrap();
    let (file, token) = (dir.path().join("config.yaml"), dir.path().join("api.token"));
    fs::write(&file, api(&format!("api: {{token_file: {}}}", token.display()))).unwrap();
    for (held, mode, refusal) in [
        (format!("{TOKEN}\n"), 0o600, None),
        (format!("{TOKEN}\n"), 0o644, Some("chmod 600")),
        ("5e5e5\n".to_owned(), 0o600, Some("openssl rand -hex 32")),
        (format!("{TOKEN} {TOKEN}"), 0o600, Some("RFC 6750")),
        (String::new(), 0o600, Some("0 characters")),
    ] {
        fs::write(&token, &held).unwrap();
        fs::set_permissions(&token, Permissions::from_mode(mode)).unwrap();
        let error = load(&file, "node").err().map(|error| error.to_string());
        assert_eq!(error.is_some(), refusal.is_some(), "{error:?}");
        if let (Some(error), Some(refusal)) = (error, refusal) {
            assert!(error.contains(refusal) && error.contains("api.token_file: "), "{error}");
            assert!(!error.contains("5e5e5"), "{error}");
        }
    }
}

#[test]
fn certificates_and_key_are_read_if_they_belong_together_and_the_key_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let [cert, key] = pair(dir.path(), "node1");
    let [other, other_key] = pair(dir.path(), "node2");
    let path = |name: &str| dir.path().join(name);
    let file = path("config.yaml");
    let tls =
        format!("api: {{tls: {{cert_file: {}, key_file: {}}}}}", path("c").display(), path("k").display());
    fs::write(&file, api(&tls)).unwrap();
    let chain = format!("{cert}{other}");
    let none = "# none\n".to_owned();
    let refused = |held: [&String; 2], mode| {
        fs::write(path("c"), held[0]).unwrap();
        fs::write(path("k"), held[1]).unwrap();
        fs::set_permissions(path("k"), Permissions::from_mode(mode)).unwrap();
        load(&file, "node")
            .map(|loaded| assert!(loaded.config.api.unwrap().tls.is_some()))
            .err()
            .map(|e| e.to_string())
    };
    for held in [[&cert, &key], [&chain, &key]] {
        assert_eq!(refused(held, 0o600), None);
    }
    for (held, mode, expected) in [
        ([&cert, &key], 0o640, "chmod 600"),
        ([&cert, &other_key], 0o600, "cannot be used together"),
        ([&none, &key], 0o600, "holds no certificate"),
        ([&cert, &cert], 0o600, "holds no unencrypted private key"),
    ] {
        let error = refused(held, mode).expect("refused");
        assert!(error.contains(expected) && error.contains("api.tls: "), "{error}");
        assert!(!error.contains(key.lines().nth(1).unwrap()), "{error}");
    }
    let identity =
        |chain: &str, key: &str| ServerIdentity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
    assert_eq!(identity(&cert, &key), identity(&cert, &key));
    assert_ne!(identity(&cert, &key), identity(&chain, &key));
    assert!(!format!("{:?}", identity(&cert, &key)).contains("48, "));
}
