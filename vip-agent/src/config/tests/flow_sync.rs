//! `flow_sync`, whose keys nothing shows.

use super::super::{Config, Problems, Secrets, diff, effective, parse_with};
use super::{config, errors};
use crate::vrrp::trailer::KeyRing;

const KEY: &str = "5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e";
const SYNC: &str = "flow_sync: {listen: \"10.0.0.1:9871\", key_file: /etc/flows.key}";

fn read(sync: &str) -> Result<Config, Problems> {
    let keys = KeyRing::parse(KEY).expect("keys");
    let secrets = Secrets { key_file: &|_| Ok(keys.clone()), ..Secrets::NONE };
    parse_with(&format!("instances: []\n{sync}\n"), "file.yaml", "this-node", &secrets)
        .map(|(config, _)| config)
}

#[test]
fn nobody_is_told_of_flows_unless_the_file_says_so() {
    assert_eq!(config("instances: []\n").flow_sync, None);
    assert_eq!(config("instances: []\nflow_sync: null\n").flow_sync, None);
    let sync = read(SYNC).unwrap().flow_sync.unwrap();
    assert_eq!((sync.listen.to_string().as_str(), sync.peers), ("10.0.0.1:9871", None));
}

#[test]
fn peers_are_of_the_family_of_this_nodes_address_and_not_this_node() {
    let with = |peers: &str| SYNC.replace('}', &format!(", peers: {peers}}}"));
    let sync = read(&with("[10.0.0.2, 10.0.0.3]")).unwrap().flow_sync.unwrap();
    assert_eq!(sync.peers.map(|peers| peers.len()), Some(2));
    for (peers, why) in [
        ("[\"fd00::2\"]", "peers: fd00::2 is not of the family of `listen`, 10.0.0.1:9871"),
        ("[10.0.0.1]", "peers: 10.0.0.1 is this node's own, of `listen`"),
    ] {
        let refused = read(&with(peers)).unwrap_err().to_string();
        assert_eq!(refused, format!("file.yaml:2:12: flow_sync: {why}"));
    }
}

#[test]
fn what_does_not_name_this_node_or_a_key_file_is_refused_and_a_key_in_the_wrong_place_not_repeated() {
    let ways = "2:12: flow_sync: must be null or `{listen: \"IP:PORT\", key_file: FILE}`";
    for (sync, expected) in [
        (format!("flow_sync: {KEY}"), ways),
        (
            format!("flow_sync: {{listen: \"10.0.0.1:1\", key_file: {KEY}}}"),
            "2:45: flow_sync.key_file: must be the absolute path of a file",
        ),
        (
            "flow_sync: {listen: \"0.0.0.0:1\", key_file: /etc/flows.key}".to_owned(),
            "2:21: flow_sync.listen: must name one address of this node, by which its peers know it",
        ),
    ] {
        assert_eq!(errors(&format!("instances: []\n{sync}\n"))[0], expected, "{sync}");
    }
}

#[test]
fn its_keys_are_not_shown_and_a_change_waits_for_the_next_start() {
    let one = read(SYNC).unwrap();
    assert!(!effective(&one).contains("5e5e"), "{}", effective(&one));
    let none = config("instances: []\n");
    let changes: Vec<String> = diff(&none, &one).iter().map(|change| format!("{change:?}")).collect();
    assert_eq!(changes, ["Process(FlowSync)"]);
    assert_eq!(one.within_the_process_of(&none).flow_sync, None);
}
