//! Whatever the file holds.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

const WORDS: &[&str] = &[
    "vrrp_instance",
    "vrrp_sync_group",
    "vrrp_script",
    "vrrp_track_process",
    "global_defs",
    "group",
    "A",
    "B",
    "VI 1",
    "{",
    "}",
    "\n",
    "\n",
    "\n",
    "\n",
    "interface",
    "eth0",
    "eth1",
    "virtual_router_id",
    "7",
    "1",
    "0",
    "priority 255",
    "255",
    "51",
    "priority 256",
    "virtual_router_id 256",
    "priority",
    "advert_int",
    "0.1",
    "-1",
    "1e9",
    "nan",
    "state",
    "MASTER",
    "virtual_ipaddress",
    "virtual_ipaddress_excluded",
    "10.0.0.1/24",
    "10.0.0.1",
    "10.0.0.2/32",
    "10.0.0.0/24",
    "fd00::1/64",
    "fe80::1",
    "dev",
    "label",
    "unicast_peer",
    "unicast_src_ip",
    "10.0.0.9",
    "min_ttl",
    "authentication",
    "auth_type",
    "PASS",
    "auth_pass",
    "12345678\u{7f}",
    "version",
    "2",
    "3",
    "nopreempt",
    "preempt_delay",
    "use_vmac",
    "track_script",
    "track_interface",
    "track_process",
    "weight",
    "20",
    "-20",
    "reverse",
    "script",
    "\"a b 'c'\"",
    "process",
    "interval",
    "strict_mode",
    "garp_master_delay",
    "garp_master_refresh",
    "router_id",
    "$A=1",
    "$A= \\",
    "$A",
    "${A}",
    "@one",
    "@two",
    "~SEQ(A,1,3)",
    "~LST(A,x,y)",
    "include",
    "/etc/k/a.conf",
    "!",
    "#",
    "\"",
    "'",
    "\\",
    "\u{2028}",
    "\0",
    "yes",
    "native_ipv6",
    "virtual_server",
];

/// A file that is mostly right.
fn instance() -> impl Strategy<Value = String> {
    let words = prop::collection::vec(select(WORDS), 0..60);
    (select(&["A", "B", "VI 1", "\u{1F600}", "-"][..]), 0u16..260, words).prop_map(|(name, id, words)| {
        let lines = words.iter().filter(|word| !matches!(**word, "{" | "}" | "\"" | "'" | "$A= \\" | "include"));
        let lines: Vec<_> = lines.copied().collect();
        format!(
            "vrrp_instance \"{name}\" {{\n interface eth0\n virtual_router_id {id}\n virtual_ipaddress {{\n 10.0.0.1/24\n }}\n{}\n}}\n",
            lines.join(" ")
        )
    })
}

/// Two to four instances in one sync group, which agree in little.
fn sync_group() -> impl Strategy<Value = String> {
    const STATEMENTS: &[&str] = &[
        "version 2",
        "version 3",
        "advert_int 0.25",
        "advert_int 2",
        "advert_int 41",
        "advert_int 255",
        "priority 50",
        "priority 255",
        "state MASTER",
        "nopreempt",
        "preempt_delay 5",
        "preempt_delay 900",
        "use_vmac\n vmac_xmit_base",
        "no_accept",
        "strict_mode",
        "track_interface {\n eth2 weight 20\n }",
        "virtual_ipaddress_excluded {\n fd00::ID\n }",
        "unicast_src_ip 10.0.0.200\n unicast_peer {\n 10.0.0.201\n }",
    ];
    let statements = prop::collection::vec(prop::sample::subsequence(STATEMENTS, 0..6), 2..5);
    (statements, any::<bool>()).prop_map(|(instances, keeps_weights)| {
        let instance = |(id, statements): (usize, &Vec<&str>)| {
            let lines = statements.join("\n ").replace("ID", &id.to_string());
            format!(
                "vrrp_instance I{id} {{\n interface eth0\n virtual_router_id {id}\n virtual_ipaddress {{\n 10.0.0.{id}\n }}\n {lines}\n}}\n"
            )
        };
        let all: String = (1..).zip(&instances).map(instance).collect();
        let weights = if keeps_weights { "sync_group_tracking_weight\n" } else { "" };
        format!("{all}vrrp_sync_group G {{\n group {{\n I1\n I2\n I3\n I4\n }}\n{weights}}}\n")
    })
}

fn valid(imported: &Imported) -> Result<(), TestCaseError> {
    prop_assert_eq!(imported.problems(), Vec::<String>::new(), "{}", imported.yaml);
    Ok(())
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(imported) = try_import(&bytes) {
            valid(&imported)?;
        }
    }

    #[test]
    fn any_words_in_any_order_make_a_valid_configuration_or_an_error(words in prop::collection::vec(select(WORDS), 0..200)) {
        if let Ok(imported) = try_import(words.join(" ").as_bytes()) {
            valid(&imported)?;
        }
    }

    #[test]
    fn any_statements_of_instances_make_a_valid_configuration(instances in prop::collection::vec(instance(), 1..4)) {
        if let Ok(imported) = try_import(instances.concat().as_bytes()) {
            valid(&imported)?;
        }
    }

    #[test]
    fn any_members_of_a_sync_group_come_to_agree(text in sync_group()) {
        let imported = try_import(text.as_bytes()).unwrap();
        valid(&imported)?;
        prop_assert!(!imported.yaml.contains("NOT SERVED, and"), "{}", imported.yaml);
    }

    #[test]
    fn any_password_stands_in_its_key_only(password in "[ -~]{1,12}") {
        let quoted = if password.contains('"') { return Ok(()) } else { format!("\"{password}\"") };
        let text = format!(
            "vrrp_instance A {{\n interface eth0\n virtual_router_id 1\n authentication {{\n auth_type PASS\n auth_pass {quoted}\n }}\n \
             virtual_ipaddress {{\n 10.0.0.9\n }}\n}}\n"
        );
        let yaml = try_import(text.as_bytes()).unwrap().yaml;
        let cut: String = password.chars().take(8).collect();
        let line = format!("    auth: {{ password: {} }}", yaml::quoted(&cut));
        prop_assert!(yaml.lines().any(|found| found == line), "{yaml}");
        if password.len() > 6 {
            prop_assert!(!yaml.replace(&line, "").contains(&password), "{yaml}");
        }
    }
}
