//! What must hold of everything that we depend on, and of our own unsafe code: tests, for they need no tool.
//!
//! It is what cargo-deny would be asked for (licences, bans, sources) read from `cargo metadata`: building cargo-deny takes
//! longer than building all of this workspace, and every fresh checkout would pay for it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use serde_json::Value;
use spdx::{Expression, Licensee, ParseMode};

use crate::workspace::{cargo, output, root};

/// What we may pass on, under MIT or Apache-2.0: nothing that asks for more than a notice.
const LICENSES: [&str; 9] = [
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "CDLA-Permissive-2.0",
];

/// Crates that must not come in, and why.
const BANNED: [(&str, &str); 6] = [
    ("native-tls", "TLS is rustls: no C library of the host's decides what is verified"),
    ("openssl", "as native-tls"),
    ("openssl-sys", "as native-tls"),
    ("serde_yaml", "archived; serde-saphyr reads YAML"),
    ("libbpf-sys", "BPF is aya: no C toolchain"),
    ("log4rs", "logs go to stderr by tracing; files are the host's business"),
];

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The packages that this machine builds: those for other systems are not there without the network.
static PACKAGES: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let mut cargo = cargo();
    cargo.args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform"]);
    cargo.arg(format!("{}-unknown-linux-gnu", std::env::consts::ARCH));
    let metadata = output(&mut cargo).expect("cargo metadata: it needs a Cargo.lock that fits");
    let metadata: Value = serde_json::from_str(&metadata).expect("JSON");
    metadata["packages"].as_array().expect("packages").clone()
});

/// `NAME VERSION`
fn name(package: &Value) -> String {
    format!("{} {}", package["name"].as_str().unwrap_or("?"), package["version"].as_str().unwrap_or("?"))
}

fn may_be_used(license: &str) -> bool {
    let allowed: Vec<Licensee> =
        LICENSES.iter().map(|license| Licensee::parse(license).expect("a licence")).collect();
    Expression::parse_mode(license, ParseMode::LAX)
        .is_ok_and(|needed| needed.evaluate(|one| allowed.iter().any(|allowed| allowed.satisfies(one))))
}

#[test]
fn every_dependency_has_a_licence_that_asks_for_no_more_than_a_notice() {
    let license = |package: &Value| package["license"].as_str().unwrap_or("none").to_owned();
    let others: Vec<String> = PACKAGES
        .iter()
        .filter(|package| !may_be_used(&license(package)))
        .map(|package| format!("{}: {}", name(package), license(package)))
        .collect();
    assert!(others.is_empty(), "not in LICENSES: {others:#?}");
    assert!(PACKAGES.len() > 100, "{} packages are not all", PACKAGES.len());
}

#[test]
fn licences_are_read_as_they_are_meant() {
    for (license, usable) in [
        ("MIT/Apache-2.0", true),
        ("MIT OR GPL-2.0-only", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("Apache-2.0 AND ISC", true),
        ("GPL-3.0-only", false),
        ("MIT AND MPL-2.0", false),
        ("none", false),
        ("", false),
    ] {
        assert_eq!(may_be_used(license), usable, "{license:?}");
    }
}

#[test]
fn nothing_that_is_banned_comes_in() {
    let banned = |package: &Value| BANNED.iter().find(|(banned, _)| package["name"] == *banned);
    let found: Vec<String> = PACKAGES
        .iter()
        .filter_map(|package| banned(package).map(|(_, why)| format!("{}: {why}", name(package))))
        .collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn every_dependency_comes_from_crates_io_and_says_which_version() {
    for package in PACKAGES.iter() {
        let ours = package["source"].is_null();
        assert!(ours || package["source"] == CRATES_IO, "{} comes from {}", name(package), package["source"]);
        if ours {
            let manifest = package["manifest_path"].as_str().unwrap_or_default();
            assert!(Path::new(manifest).starts_with(root()), "{manifest} is none of ours");
            let dependencies = package["dependencies"].as_array().expect("dependencies");
            let open = dependencies
                .iter()
                .find(|dependency| dependency["req"] == "*" && dependency["path"].is_null());
            assert!(open.is_none(), "{}: any version of {:?} would do", name(package), open);
        }
    }
}

/// The `unsafe` of a file, by lines of code: not of comments, nor of words like `unsafe_code` and `unsafe-inline`.
fn unsafe_words(source: &str) -> usize {
    let code = source.lines().map(|line| line.split("//").next().unwrap_or_default());
    code.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-'))
        .filter(|word| *word == "unsafe")
        .count()
}

fn count(folder: &Path, found: &mut BTreeMap<String, usize>) {
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            count(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let words = unsafe_words(&fs::read_to_string(&entry).expect("a source"));
            if words > 0 {
                let file = entry.strip_prefix(root()).expect("below the root").display().to_string();
                found.insert(file, words);
            }
        }
    }
}

#[test]
fn the_inventory_of_unsafe_code_is_what_the_sources_hold() {
    let mut found = BTreeMap::new();
    for folder in ["vip-agent/src", "vip-common/src", "vip-ebpf/src"] {
        count(&root().join(folder), &mut found);
    }
    let page = fs::read_to_string(root().join("docs/security.md")).expect("docs/security.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let listed: BTreeMap<String, usize> = rows
        .filter(|(file, _)| file.ends_with(".rs"))
        .map(|(file, rest)| {
            (file.to_owned(), rest.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0))
        })
        .collect();
    for (file, words) in &found {
        let row = format!("docs/security.md needs the row \"| `{file}` | {words} | what for |\"");
        assert_eq!(listed.get(file), Some(words), "{row}");
    }
    let gone: Vec<_> = listed.keys().filter(|file| !found.contains_key(*file)).collect();
    assert!(gone.is_empty(), "docs/security.md lists files without unsafe code: {gone:?}");
}

#[test]
fn comments_and_names_are_no_unsafe_code() {
    assert_eq!(unsafe_words("// unsafe\n#![forbid(unsafe_code)]\nlet a = unsafe { b }; // unsafe"), 1);
    assert_eq!(unsafe_words("unsafe trait A {}\nunsafe impl A for B {}"), 2);
}
