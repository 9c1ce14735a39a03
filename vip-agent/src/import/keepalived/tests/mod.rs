//! What becomes of a keepalived.conf, keyword by keyword.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use super::*;

mod instances;
mod keywords;
mod properties;
mod tracked;

/// Files of a test.
#[derive(Default)]
pub(super) struct Memory(HashMap<PathBuf, Vec<u8>>);

impl Memory {
    pub(super) fn of(files: &[(&str, &[u8])]) -> Self {
        Self(files.iter().map(|(path, text)| (PathBuf::from(path), text.to_vec())).collect())
    }
}

impl Files for Memory {
    fn read(&self, path: &Path, most: usize) -> io::Result<Vec<u8>> {
        let found = self.0.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(found[..found.len().min(most)].to_vec())
    }

    /// `*` at the end of a name only.
    fn matching(&self, pattern: &Path) -> Vec<PathBuf> {
        let pattern = pattern.display().to_string();
        let fits = |path: &&PathBuf| match pattern.strip_suffix('*') {
            Some(start) => path.display().to_string().starts_with(start),
            None => path.display().to_string() == pattern,
        };
        let mut found: Vec<_> = self.0.keys().filter(fits).cloned().collect();
        found.sort();
        found
    }
}

pub(super) fn host() -> Host {
    let addresses = [("eth0", "10.0.0.50"), ("eth0", "10.0.0.1"), ("eth0", "fe80::1")];
    Host {
        config_id: "one".to_owned(),
        addresses: addresses.iter().map(|(name, ip)| ((*name).to_owned(), ip.parse().unwrap())).collect(),
    }
}

pub(super) fn try_import(text: &[u8]) -> Result<Imported, ImportError> {
    import_from(&Memory::of(&[("/etc/k/a.conf", text)]), Path::new("/etc/k/a.conf"), &host())
}

/// The YAML of a text that an agent would take, as far as this version serves it.
pub(super) fn import(text: &str) -> String {
    let imported = try_import(text.as_bytes()).unwrap();
    assert_eq!(imported.problems(), Vec::<String>::new(), "{}", imported.yaml);
    imported.yaml
}

/// The YAML of an instance of version 3 with these lines in it.
pub(super) fn with(lines: &str) -> String {
    import(&format!(
        "vrrp_instance VI_1 {{\n interface eth0\n virtual_router_id 51\n version 3\n \
         virtual_ipaddress {{\n 10.0.0.50/24\n }}\n{lines}\n}}\n"
    ))
}

/// Every part of `expected` stands in the text, in this order.
#[track_caller]
pub(super) fn says(yaml: &str, expected: &[&str]) {
    let mut rest = yaml;
    for part in expected {
        let Some(at) = rest.find(part) else { panic!("{part:?} is not (or not in its place) in\n{yaml}") };
        rest = &rest[at + part.len()..];
    }
}

#[test]
fn a_simple_instance_becomes_one_of_ours() {
    let yaml = import(
        "! a comment\nglobal_defs {\n  router_id edge-1 # mine\n  vrrp_version 3\n}\nvrrp_instance VI_1 {\n  interface eth0\n  \
         virtual_router_id 51\n  priority 150\n  advert_int 0.1\n  nopreempt\n  virtual_ipaddress {\n    10.0.0.50/24\n    \
         10.0.0.51/24\n  }\n}\n",
    );
    let (header, rest) = yaml.split_once("node:").unwrap();
    assert!(header.starts_with("# Imported from /etc/k/a.conf by vip-agent "), "{header}");
    assert!(header.contains(": 1 of 1 instances."), "{header}");
    assert_eq!(
        rest,
        " edge-1\ninstances:\n  - name: VI_1\n    virtual_router_id: 51\n    interface: eth0\n    version: 3\n    \
         priority: 150\n    advert_interval: 100ms\n    preempt: false\n    vips:\n      - \"10.0.0.50/24\"\n      - \
         \"10.0.0.51/24\"\n"
    );
}

#[test]
fn a_file_without_instances_becomes_a_configuration_without_any() {
    says(&import(""), &["0 of 0 instances", "instances: []"]);
    says(
        &import("virtual_server 10.0.0.1 80 {\n lb_algo rr\n}\n"),
        &["instances: []", "# a.conf:1: virtual_server 10.0.0.1 80: "],
    );
}

#[test]
fn syntax_errors_are_named_by_file_and_line_and_quote_nothing() {
    let table = [
        (
            "vrrp_instance A {\n",
            "/etc/k/a.conf:1: the block `vrrp_instance A` is not closed: a `}` is missing",
        ),
        ("\n}\n", "/etc/k/a.conf:2: a `}` too many: no block is open here"),
        ("a {\n auth_pass \"secret\n}\n", "/etc/k/a.conf:2: a quoted string is not closed: \" is missing"),
        (
            "a\nauth_pass secret {\n",
            "/etc/k/a.conf:2: the block `auth_pass ...` is not closed: a `}` is missing",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(try_import(text.as_bytes()).unwrap_err().to_string(), expected);
    }
}

#[test]
fn includes_stand_in_their_place_and_missing_ones_are_remarked() {
    let files = Memory::of(&[
        (
            "/etc/k/a.conf",
            b"include d/*\nvrrp_instance VI_1 {\n include vips\n virtual_router_id 1\n}\ninclude nowhere\n",
        ),
        ("/etc/k/d/1", b"global_defs {\n router_id n1\n}\n"),
        ("/etc/k/d/2", b"include ../more\nnonsense\n"),
        ("/etc/k/d/../more", b"vrrp_script x {\n script /bin/true\n}\n"),
        ("/etc/k/vips", b"virtual_ipaddress {\n 10.0.0.9\n}\n"),
    ]);
    let yaml = import_from(&files, Path::new("/etc/k/a.conf"), &host()).unwrap().yaml;
    says(
        &yaml,
        &[
            "# a.conf:6: include nowhere: no such file",
            "node: n1",
            "10.0.0.9",
            "# d/2:2: nonsense: unknown keyword",
        ],
    );
    let files = Memory::of(&[("/k", b"a {\ninclude bad\n}\n"), ("/bad", b"\n}}\n")]);
    let error = import_from(&files, Path::new("/k"), &host()).unwrap_err().to_string();
    assert_eq!(error, "/bad:2: a `}` too many: no block is open here");
}

#[test]
fn a_file_that_includes_itself_and_one_that_is_too_large_are_refused() {
    let error = try_import(b"include a.conf\n").unwrap_err().to_string();
    assert_eq!(error, "/etc/k/a.conf:1: includes itself: more than 32 files within each other");
    let error = try_import(&vec![b'\n'; 5 << 20]).unwrap_err().to_string();
    assert!(error.starts_with("/etc/k/a.conf: is more than 2 MiB"), "{error}");
    let error = try_import(&vec![b'a'; 1 << 20]).unwrap_err().to_string();
    assert!(error.contains(":1: is longer than 64 KiB"), "{error}");
}

#[test]
fn definitions_that_multiply_or_go_in_circles_are_refused() {
    let mut bomb = String::from("$A0=aaaaaaaaaaaaaaaa\n");
    (1..40).for_each(|n| bomb.push_str(&format!("$A{n}=${{A{0}}}${{A{0}}}\n", n - 1)));
    bomb.push_str("$A39\n");
    let circle = "$A=${A}\n$A\n";
    let lines = "$A= \\\n$A \\\n$A\n$A\n";
    let sequences = "~SEQ(A, 1, 100000) ~SEQ(B, 1, 100000) x\n";
    for text in [&bomb, circle, lines, sequences] {
        let error = try_import(text.as_bytes()).unwrap_err();
        assert!(matches!(error, ImportError::Syntax { .. } | ImportError::TooLarge { .. }), "{error}");
    }
}

#[test]
fn a_whole_node_of_255_instances_is_imported() {
    let text = "global_defs {\n vrrp_version 3\n}\n$VI= \\\nvrrp_instance VI_${ID} { \\\n interface eth0 \\\n virtual_router_id ${ID} \\\n \
                virtual_ipaddress { \\\n 10.1.${ID}.1/24 \\\n 10.1.${ID}.2/24 \\\n } \\\n}\n~SEQ(ID, 1, 255) $VI\n";
    let yaml = import(text);
    assert_eq!(yaml.matches("- name: VI_").count(), 255);
    says(&yaml, &["255 of 255 instances", "virtual_router_id: 255", "\"10.1.255.2/24\""]);
}

#[test]
fn conditional_lines_follow_the_configuration_id() {
    let yaml = with("@one priority 11\n@two priority 22\n@^one advert_int 9\n@^two advert_int 3");
    says(
        &yaml,
        &[
            "Read with the config id \"one\"",
            "2 conditional lines",
            "a.conf:9, a.conf:10",
            "priority: 11",
            "advert_interval: 3s",
        ],
    );
}

#[test]
fn what_stands_outside_of_vrrp_is_one_remark_each() {
    let yaml = import(
        "net_namespace blue\nstatic_routes {\n 10.0.0.0/8 via 10.1.1.1\n}\nbfd_instance b {\n neighbor_ip 1.1.1.1\n}\n\
         virtual_server_group g {\n 1.1.1.1 80\n}\nfoo bar {\n baz\n}\n",
    );
    says(
        &yaml,
        &[
            "# a.conf:1: net_namespace blue: run the agent in the namespace",
            "# a.conf:2: static_routes: not moved by VRRP",
            "# a.conf:5: bfd_instance b: viplane has no BFD",
            "# a.conf:8: virtual_server_group g: ",
            "# a.conf:11: foo bar: unknown keyword",
        ],
    );
}
