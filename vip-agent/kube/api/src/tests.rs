//! What texts of objects mean, and what the API server is told of their form.

use std::net::IpAddr;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn addresses(text: &str, avoid_buggy: bool) -> Vec<String> {
    let range = AddressRange::parse(text).unwrap();
    range.addresses(avoid_buggy).map(|address| address.to_string()).collect()
}

#[test]
fn a_range_is_a_subnet_from_to_or_one_address() {
    assert_eq!(addresses("10.0.0.4/30", false), ["10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.7"]);
    assert_eq!(addresses("10.0.0.254-10.0.1.1", false).len(), 4);
    assert_eq!(addresses("10.0.0.254 - 10.0.1.1", true), ["10.0.0.254", "10.0.1.1"]);
    assert_eq!(addresses("10.0.0.9", false), ["10.0.0.9"]);
    assert_eq!(addresses("fd00::fe-fd00::100", true), ["fd00::fe", "fd00::ff", "fd00::100"]);
    assert_eq!(AddressRange::parse("fd00::/64").unwrap().count(false), 1 << 64);
}

#[test]
fn what_no_host_can_have_is_in_no_range() {
    for (text, expected) in [
        (
            "10.0.0.5/30",
            "10.0.0.5/30: 10.0.0.5 is within the subnet, which begins with 10.0.0.4: write 10.0.0.4/30",
        ),
        ("10.0.0.0/33", "10.0.0.0/33: the prefix length must be 1-32"),
        ("fd00::/0", "fd00::/0: the prefix length must be 1-128"),
        (
            "10.0.0.9-10.0.0.8",
            "10.0.0.9-10.0.0.8: the first address must come before the last one, and be of the same family",
        ),
        (
            "10.0.0.9-fd00::1",
            "10.0.0.9-fd00::1: the first address must come before the last one, and be of the same family",
        ),
        ("126.0.0.0/7", "126.0.0.0/7: there are addresses in it that are loopback addresses"),
        (
            "128.0.0.0/1",
            "128.0.0.0/1: there are addresses in it that are multicast, reserved or broadcast addresses",
        ),
        (
            "ten",
            "\"ten\" is no range of addresses: write `10.0.0.64/28`, `10.0.0.100-10.0.0.120` or `10.0.0.50`",
        ),
    ] {
        assert_eq!(AddressRange::parse(text).unwrap_err().to_string(), expected);
    }
}

fn schema(definition: &CustomResourceDefinition) -> Value {
    let schema = &definition.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema;
    serde_json::to_value(schema).unwrap()
}

/// No word of a schema that a server of 1.16 does not know, or later ones warn of.
#[test]
fn schemas_are_structural_and_speak_no_cel() {
    for definition in definitions() {
        let text = schema(&definition).to_string();
        for word in ["x-kubernetes-validations", "uint", "\"$ref\"", "anyOf", "\"null\""] {
            assert!(!text.contains(word), "{word}: {text}");
        }
        let version = &definition.spec.versions[0];
        assert_eq!(version.name, "v1alpha1");
        assert!(version.subresources.as_ref().unwrap().status.is_some());
    }
}

#[test]
fn a_virtual_ip_has_an_address_or_a_pool() {
    let [_, definition] = definitions();
    let spec = &schema(&definition)["properties"]["spec"];
    assert_eq!(spec["oneOf"], json!([{"required": ["address"]}, {"required": ["pool"]}]));
    assert_eq!(spec["properties"]["localAddress"]["enum"], json!(["active", "never"]), "{spec:#}");
}

#[test]
fn what_is_left_out_is_what_the_documentation_says() {
    let spec: VipPoolSpec = serde_json::from_value(json!({"addresses": ["10.0.0.0/28"]})).unwrap();
    assert!(spec.auto_assign && !spec.avoid_buggy_addresses);
    let status: VipPoolStatus = serde_json::from_value(json!({})).unwrap();
    assert_eq!(status, VipPoolStatus::default());
}

proptest! {
    #[test]
    fn the_count_is_that_of_the_addresses(first in 0x0a00_0000_u32..0x0a00_0400, length in 0_u32..1000, avoid_buggy: bool) {
        let ends = [first, first + length].map(|bits| IpAddr::from(std::net::Ipv4Addr::from_bits(bits)));
        let range = AddressRange::parse(&format!("{}-{}", ends[0], ends[1])).unwrap();
        prop_assert_eq!(range.count(avoid_buggy), range.addresses(avoid_buggy).count() as u128);
        prop_assert!(range.addresses(false).all(|address| range.contains(address)));
    }

    #[test]
    fn no_text_makes_it_panic(text in "[0-9a-f:./ -]*|.*") {
        let _ = AddressRange::parse(&text);
    }
}
