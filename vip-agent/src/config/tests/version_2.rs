//! `version: 2` and what it changes: intervals, families, checksums, passwords.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::super::{Auth, Config, Problems, Protocol, SecretFileError, Secrets, effective, load, parse_with};
use super::{config, edge, edge_with_vips, errors, warnings};
use crate::types::Seconds;
use crate::vrrp::auth::Password;

/// One IPv4 VIP, `version: 2` in line 6, `lines` from line 7 on.
fn version_2(lines: &str) -> String {
    edge_with_vips("10.0.0.50", &format!("version: 2\n{lines}"))
}

fn protocol(config: &Config) -> Protocol {
    config.instances[0].protocol.clone()
}

fn secret12() -> Password {
    Password::new("secret12").unwrap()
}

/// With password files that all hold `secret12`, and the configuration in a file that only its owner reads.
fn read(text: &str) -> Result<(Config, Problems), Problems> {
    let secrets = Secrets { password_file: &|_| Ok(secret12()), ..Secrets::NONE };
    parse_with(text, "file.yaml", "this-node", &secrets)
}

#[test]
fn without_more_words_it_means_one_second_and_no_password() {
    let expected = Protocol::V2 { advert_interval: Seconds::ONE, auth: None };
    assert_eq!(protocol(&config(&version_2(""))), expected);
    assert_eq!(protocol(&config(&version_2("auth: null"))), expected);
}

#[test]
fn intervals_are_whole_seconds() {
    for (text, seconds) in [("1s", 1), ("1000ms", 1), ("3s", 3), ("1m", 60), ("255s", 255)] {
        let read = protocol(&config(&version_2(&format!("advert_interval: {text}"))));
        assert_eq!(read.advert_interval(), Seconds::new(seconds).unwrap().into());
    }
    for (text, shown) in [
        ("0s", "0s"),
        ("10ms", "10ms"),
        ("1.5s", "1500ms"),
        ("40.95s", "40950ms"),
        ("256s", "256s"),
        ("1h", "1h"),
        ("1000001us", "1000001us"),
    ] {
        let expected = format!(
            "7:22: instances[0].advert_interval: must be 1s to 255s in whole seconds with `version: 2`, not {shown}"
        );
        assert_eq!(errors(&version_2(&format!("advert_interval: {text}"))), [expected]);
    }
}

#[test]
fn ipv6_vips_are_refused_each() {
    let expected = "carries IPv4 alone; put it into an instance of version 3";
    assert_eq!(
        errors(&edge_with_vips("10.0.0.50, \"fd00::50\", \"fe80::1/64\"", "version: 2")),
        [
            format!("5:23: instances[0].vips[1]: fd00::50: `version: 2` {expected}"),
            format!("5:35: instances[0].vips[2]: fe80::1: `version: 2` {expected}"),
        ]
    );
}

#[test]
fn a_checksum_is_refused_as_there_is_no_choice() {
    for mode in ["rfc9568", "old_unicast"] {
        assert_eq!(
            errors(&version_2(&format!("checksum: {mode}"))),
            [
                "7:15: instances[0].checksum: does not go with `version: 2`, whose adverts have one kind of checksum: \
                 leave it out"
            ]
        );
    }
    assert_eq!(
        warnings(&version_2("checksum: pseudo")),
        [
            "7:15: instances[0].checksum: warning: has no effect: adverts of version 2 have one kind of checksum"
        ]
    );
}

#[test]
fn a_password_needs_version_2() {
    for version in ["", "version: 3\n"] {
        let line = 6 + version.lines().count();
        assert_eq!(
            errors(&edge(&format!("{version}auth: {{password: secret12}}"))),
            [format!("{line}:11: instances[0].auth: needs `version: 2`: version 3 has no passwords")]
        );
    }
}

#[test]
fn a_password_stands_in_the_file_or_in_another_one() {
    let auth = |lines: &str| match protocol(&read(&version_2(lines)).unwrap().0) {
        Protocol::V2 { auth, .. } => auth.unwrap(),
        Protocol::V3 { .. } => panic!("version 3"),
    };
    assert_eq!(auth("auth: {password: secret12}"), Auth::Password(secret12()));
    assert_eq!(auth("auth: {password: \"12345678\"}"), Auth::Password(Password::new("12345678").unwrap()));
    let path = "/etc/viplane/vrrp.pass".into();
    let expected = Auth::PasswordFile { path, password: secret12() };
    assert_eq!(auth("auth: {password_file: /etc/viplane/vrrp.pass}"), expected);
}

#[test]
fn what_is_no_password_is_refused_without_repeating_it() {
    let ways = "must be null or exactly one of `{password: \"1-8 bytes\"}`, `{password_file: FILE}`";
    let table = [
        ("auth: hunter22", format!("7:11: instances[0].auth: {ways}")),
        ("auth: [hunter22]", format!("7:11: instances[0].auth: {ways}")),
        ("auth: {}", format!("7:11: instances[0].auth: {ways}")),
        ("auth: {password: hunter22, password_file: /hunter22}", format!("7:11: instances[0].auth: {ways}")),
        (
            "auth: {password: 22222222}",
            "7:22: instances[0].auth.password: must be a text of 1-8 bytes: put it in quotes".to_owned(),
        ),
        (
            "auth: {password: null}",
            "7:22: instances[0].auth.password: must be a text of 1-8 bytes: put it in quotes".to_owned(),
        ),
        (
            "auth: {password: \"\"}",
            "7:22: instances[0].auth.password: a password must be 1-8 bytes: this one is empty".to_owned(),
        ),
        (
            "auth: {password: hunter222}",
            "7:22: instances[0].auth.password: a password must be 1-8 bytes, as VRRP version 2 has room for no more: \
             this one is longer (keepalived uses the first eight and ignores the rest)"
                .to_owned(),
        ),
        (
            "auth: {password_file: hunter22}",
            "7:27: instances[0].auth.password_file: must be the absolute path of a file".to_owned(),
        ),
        (
            "auth: {password_file: 22222222}",
            "7:27: instances[0].auth.password_file: must be the absolute path of a file".to_owned(),
        ),
    ];
    for (line, expected) in table {
        let found = errors(&version_2(line));
        assert!(!found[0].contains("hunter") && !found[0].contains("2222"), "{found:?}");
        assert_eq!(found, [expected], "{line}");
    }
    assert_eq!(
        errors(&version_2("auth: {pasword: hunter22}")),
        [
            format!("7:11: instances[0].auth: {ways}"),
            "7:12: instances[0].auth.pasword: unknown key; did you mean `password`?".to_owned(),
        ]
    );
}

#[test]
fn a_password_file_that_does_not_serve_is_named_with_its_place() {
    let secrets = Secrets {
        password_file: &|path: &Path| {
            Err(SecretFileError::Shared { mode: 0o644, path: path.display().to_string() })
        },
        ..Secrets::NONE
    };
    let text = version_2("auth: {password_file: /etc/pass}");
    let found = parse_with(&text, "file.yaml", "n", &secrets).unwrap_err().to_string();
    assert_eq!(
        found,
        "file.yaml:7:27: instances[0].auth.password_file: /etc/pass may be read or written by others than its owner \
         (mode 0644): `chmod 600 /etc/pass`"
    );
    assert_eq!(errors(&text), ["7:27: instances[0].auth.password_file: /etc/pass is not read here"]);
}

#[test]
fn the_effective_form_and_debug_show_no_password() {
    let stands_here = read(&version_2("auth: {password: secret12}")).unwrap().0;
    let text = effective(&stands_here);
    assert!(
        text.contains("password: '***masked***'") || text.contains("password: \"***masked***\""),
        "{text}"
    );
    for shown in [text.clone(), format!("{stands_here:?}")] {
        assert!(!shown.contains("secret12") && !shown.contains("115, 101, 99"), "{shown}");
    }
    // Pasted back it is refused: nobody runs with the mask for a password.
    assert!(read(&text).unwrap_err().to_string().contains("instances[0].auth.password: a password must be"));

    let elsewhere = read(&version_2("auth: {password_file: /etc/pass}")).unwrap().0;
    let text = effective(&elsewhere);
    assert!(text.contains("password_file: /etc/pass") && !text.contains("secret12"), "{text}");
    assert!(!format!("{elsewhere:?}").contains("secret12"));
    assert_eq!(read(&text).unwrap().0, elsewhere);
}

#[test]
fn a_password_in_a_file_that_others_read_is_pointed_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    let warnings = |lines: &str, mode: u32| {
        fs::write(&path, version_2(lines)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let loaded = load(&path, "n").unwrap();
        assert!(!format!("{loaded:?}").contains("secret12"));
        loaded.warnings.to_string().replace(&path.display().to_string(), "FILE")
    };
    assert_eq!(
        warnings("auth: {password: secret12}", 0o644),
        "FILE:7:22: instances[0].auth.password: warning: stands in a file that others may read (mode 0644): \
         `chmod 600` it, or use `password_file`"
    );
    assert_eq!(warnings("auth: {password: secret12}", 0o600), "");
    assert_eq!(warnings("", 0o644), "");
}

#[test]
fn a_password_file_is_read_with_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let (path, password_file) = (dir.path().join("config.yaml"), dir.path().join("vrrp.pass"));
    fs::write(&path, version_2(&format!("auth: {{password_file: {}}}", password_file.display()))).unwrap();
    let put = |content: &str, mode: u32| {
        fs::write(&password_file, content).unwrap();
        fs::set_permissions(&password_file, Permissions::from_mode(mode)).unwrap();
    };
    put("first\n", 0o600);
    let first = load(&path, "n").unwrap().config;
    put("second\n", 0o600);
    let second = load(&path, "n").unwrap().config;
    assert_ne!(first, second);
    put("second\n", 0o640);
    let refused = load(&path, "n").unwrap_err().to_string();
    assert!(refused.contains("(mode 0640): `chmod 600 "), "{refused}");
}

#[test]
fn a_version_that_is_none_of_both_is_the_only_complaint() {
    for (version, shown) in [("1", "the number 1"), ("\"2\"", "the text \"2\""), ("null", "null")] {
        let lines = format!("version: {version}\nadvert_interval: 2ms\nauth: {{password: x}}");
        let expected = format!("6:14: instances[0].version: must be 2 or 3, not {shown}");
        assert_eq!(errors(&edge(&lines)), [expected]);
    }
}
