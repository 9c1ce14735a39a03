//! `auth_trailer` and its keys, which nothing shows; `on_conflict`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::super::{Config, OnConflict, Problems, Secrets, diff, effective, load, parse_with};
use super::{config, edge, errors};
use crate::vrrp::trailer::KeyRing;

const KEY: &str = "5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e";

/// With a key file that holds these keys.
fn read(text: &str, keys: &str) -> Result<(Config, Problems), Problems> {
    let keys = KeyRing::parse(keys).expect("keys");
    let secrets = Secrets { key_file: &|_| Ok(keys.clone()), ..Secrets::NONE };
    parse_with(text, "file.yaml", "this-node", &secrets)
}

#[test]
fn without_it_nothing_is_signed_and_with_it_unsigned_adverts_are_not_heard() {
    assert_eq!(config(&edge("")).instances[0].auth_trailer, None);
    assert_eq!(config(&edge("auth_trailer: null")).instances[0].auth_trailer, None);
    let (config, warnings) = read(&edge("auth_trailer: {key_file: /etc/edge.key}"), KEY).unwrap();
    let trailer = config.instances[0].auth_trailer.clone().unwrap();
    assert_eq!((trailer.key_file.to_str(), trailer.accept_unsigned), (Some("/etc/edge.key"), false));
    assert!(warnings.is_empty(), "{warnings}");
}

#[test]
fn hearing_unsigned_adverts_is_warned_of() {
    let text = edge("auth_trailer: {key_file: /etc/edge.key, accept_unsigned: true}");
    let warnings = read(&text, KEY).unwrap().1.to_string();
    assert!(
        warnings.starts_with(
            "file.yaml:6:62: instances[0].auth_trailer.accept_unsigned: warning: is for changing over"
        ),
        "{warnings}"
    );
}

#[test]
fn a_key_in_the_wrong_place_is_not_repeated() {
    let ways = "6:19: instances[0].auth_trailer: must be null or `{key_file: FILE, accept_unsigned: false}`";
    let path = "6:30: instances[0].auth_trailer.key_file: must be the absolute path of a file";
    for (line, expected) in [
        (format!("auth_trailer: {KEY}"), ways),
        (format!("auth_trailer: [{KEY}]"), ways),
        (format!("auth_trailer: {{key_file: {KEY}}}"), path),
        ("auth_trailer: {key_file: edge.key}".to_owned(), path),
        ("auth_trailer: {}".to_owned(), "6:19: instances[0].auth_trailer.key_file: is missing"),
        (
            "auth_trailer: {key_file: /etc/edge.key}".to_owned(),
            "6:30: instances[0].auth_trailer.key_file: /etc/edge.key is not read here",
        ),
    ] {
        assert_eq!(errors(&edge(&line)), [expected], "{line}");
    }
    let slipped = errors(&edge(&format!("auth_trailer: {{key_file: /k, accept_unsigned: {KEY}}}")));
    assert_eq!(slipped[1], "6:50: instances[0].auth_trailer.accept_unsigned: must be true or false");
}

#[test]
fn neither_the_effective_form_nor_debug_shows_a_key() {
    let config = read(&edge("auth_trailer: {key_file: /etc/edge.key}"), KEY).unwrap().0;
    let text = effective(&config);
    assert!(text.contains("key_file: /etc/edge.key") && text.contains("accept_unsigned: false"), "{text}");
    for shown in [text, format!("{config:?}")] {
        assert!(!shown.contains("5e5e") && !shown.contains("94, 94"), "{shown}");
    }
}

#[test]
fn other_keys_in_the_same_file_are_a_change_that_restarts_nothing() {
    let text = edge("auth_trailer: {key_file: /etc/edge.key}");
    let other = KEY.replace('5', "6");
    let [old, new] = [KEY, &format!("{KEY}\n{other}")].map(|keys| read(&text, keys).unwrap().0);
    assert!(diff(&old, &old).is_empty());
    let changes = diff(&old, &new);
    assert_eq!(changes.len(), 1);
    assert!(!changes[0].restarts_instance(), "{changes:?}");
}

#[test]
fn a_key_file_is_read_with_the_configuration_if_nobody_else_may() {
    let dir = tempfile::tempdir().unwrap();
    let (file, key_file) = (dir.path().join("config.yaml"), dir.path().join("edge.key"));
    fs::write(&file, edge(&format!("auth_trailer: {{key_file: {}}}", key_file.display()))).unwrap();
    fs::write(&key_file, format!("# ours\n{KEY}\n")).unwrap();
    for (mode, served) in [(0o600, true), (0o640, false)] {
        fs::set_permissions(&key_file, Permissions::from_mode(mode)).unwrap();
        let loaded = load(&file, "node");
        assert_eq!(loaded.is_ok(), served, "{mode:o}");
        if let Err(error) = loaded {
            assert!(
                error.to_string().contains("chmod 600") && !error.to_string().contains("5e5e"),
                "{error}"
            );
        }
    }
}

#[test]
fn a_conflict_is_an_alarm_unless_it_is_to_be_a_fault() {
    let on_conflict = |lines: &str| config(&edge(lines)).instances[0].on_conflict;
    assert_eq!(on_conflict(""), OnConflict::Alarm);
    assert_eq!(on_conflict("on_conflict: fault"), OnConflict::Fault);
    assert_eq!(
        errors(&edge("on_conflict: stop")),
        ["6:18: instances[0].on_conflict: must be `alarm` or `fault`, not the text \"stop\""]
    );
}
