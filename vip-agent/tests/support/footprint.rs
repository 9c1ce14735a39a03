//! All that an agent could leave on a node: to be compared before and after.

#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of it")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use vip_lab::Node;

/// Where an agent has files, unless it is told otherwise.
const PLACES: [&str; 3] = ["/run", "/var/lib/viplane", "/sys/fs/bpf"];
/// The lab's own files, and names of network namespaces that `ip` makes.
const NOT_OURS: [&str; 2] = ["/run/lab", "/run/netns"];
/// Made to outlast the agent: what it must know of other owners when it comes back.
const MEMORY: &str = "/var/lib/viplane/owners.json";
const SYSCTLS: [&str; 5] = ["arp_ignore", "arp_announce", "arp_notify", "rp_filter", "forwarding"];

/// What a node looks like, by what was asked.
pub type Footprint = BTreeMap<String, String>;

/// Takes a node's footprint.
pub fn footprint(node: &Node) -> Result<Footprint> {
    let mut found = Footprint::new();
    for question in [
        "-o address show",
        "-o -d link show",
        "route show table all",
        "-6 route show table all",
        "rule show",
        "-6 rule show",
        "maddress show",
        "neighbour show nud permanent",
    ] {
        found.insert(format!("ip {question}"), timeless(&node.ip(question)?));
    }
    for interface in ["all", "default", "lo", "eth0"] {
        for name in SYSCTLS {
            let name = format!("net.ipv4.conf.{interface}.{name}");
            found.insert(name.clone(), node.sysctl(&name)?);
        }
    }
    let files: Vec<PathBuf> = node.run(|| {
        let mut files = Vec::new();
        PLACES.iter().for_each(|place| list(Path::new(place), &mut files));
        files.sort();
        files
    });
    found.insert("files".to_owned(), format!("{files:#?}"));
    Ok(found)
}

/// What is different now, one line each; none if nothing is.
pub fn changes(before: &Footprint, now: &Footprint) -> Vec<String> {
    let questions = before.keys().chain(now.keys());
    let mut changes: Vec<String> = questions
        .filter(|question| before.get(*question) != now.get(*question))
        .map(|question| format!("{question}: {:?} -> {:?}", before.get(question), now.get(question)))
        .collect();
    changes.dedup();
    changes
}

fn list(path: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(path) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if NOT_OURS.iter().chain([&MEMORY]).any(|known| path == Path::new(known)) {
            continue;
        }
        list(&path, files);
        files.push(path);
    }
}

/// Without lifetimes, which count down.
fn timeless(text: &str) -> String {
    let words = text.split_inclusive(char::is_whitespace);
    words.filter(|word| !word.trim_end().ends_with("sec")).collect()
}
