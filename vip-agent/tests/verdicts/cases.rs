//! The adverts: each right but for what its name says, and of a higher priority where nothing else is said.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vip_lab::Mac;

use crate::forgery::{AT_ADDRESSES, AT_COUNT, AT_INTERVAL, AT_PRIORITY, Forgery, Seal};
use crate::setting::{LOWER, NEWCOMER, OTHER, PRIORITY, Setting, Station, group};
use Setting::{Multicast4, Multicast6, Old, OldWithPassword, Unicast4, Unicast6};

/// An advert that is fed to a Backup and to an Active router.
pub(crate) struct Case {
    pub(crate) advert: &'static str,
    pub(crate) setting: Setting,
    /// What is odd about it.
    pub(crate) odd: fn(&mut Forgery),
    /// Whom the Backup heard until then; the odd advert comes from [`OTHER`].
    pub(crate) before: Station,
    /// How many the virtual router has over IPv4.
    pub(crate) vips: u8,
    /// Of the `vrrp_instance`.
    pub(crate) keepalived_line: &'static str,
    /// Why ours does what it does.
    pub(crate) why: &'static str,
}

const LISTS: &str = "[heard, with an alarm](#another-list)";
const FALLEN: &str = "[an owner that falls is replaced](#fallen)";
const INTERVAL_0: &str = "erratum 8301: whoever learns it takes over at once, again and again";
const RFC_CHECKSUM: &str = "5.2.8 wants just this, and other routers send it: refusing it makes two owners";
const NO_PEER: &str = "peers are configured, and others are no routers of ours";

fn case(setting: Setting, advert: &'static str, odd: fn(&mut Forgery)) -> Case {
    Case { advert, setting, odd, before: OTHER, vips: 1, keepalived_line: "", why: "" }
}

impl Case {
    fn why(self, why: &'static str) -> Self {
        Self { why, ..self }
    }

    fn vips(self, vips: u8) -> Self {
        Self { vips, ..self }
    }

    /// The Backup has heard another router, not the one that sends the odd advert.
    fn first_of_its_sender(self) -> Self {
        Self { before: NEWCOMER, ..self }
    }

    fn keepalived(self, keepalived_line: &'static str) -> Self {
        Self { keepalived_line, ..self }
    }
}

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    let parts = [elections(), checksums(), lists(), structure(), ip(), unicast(), ipv6(), old(), passwords()];
    parts.into_iter().flatten().collect()
}

fn elections() -> Vec<Case> {
    vec![
        case(Multicast4, "nothing odd", |_| {}),
        case(Multicast4, "priority 0", |advert| advert.message[AT_PRIORITY] = 0),
        case(Multicast4, "priority 255", |advert| advert.message[AT_PRIORITY] = 255),
        case(Multicast4, "a lower priority", |advert| advert.message[AT_PRIORITY] = PRIORITY - 1).why(FALLEN),
        case(Multicast4, "an equal priority, from a greater address", |advert| {
            advert.message[AT_PRIORITY] = PRIORITY;
        }),
        case(Multicast4, "an equal priority, from a lower address", |advert| {
            advert.message[AT_PRIORITY] = PRIORITY;
            advert.source = LOWER.ipv4();
        }),
        case(Multicast4, "an interval of 3 s", |advert| interval(advert, 300)),
        case(Multicast4, "an interval of 0", |advert| interval(advert, 0)).why(INTERVAL_0),
        case(Multicast4, "reserved bits set", |advert| advert.message[AT_INTERVAL] |= 0xf0),
    ]
}

fn checksums() -> Vec<Case> {
    vec![
        case(Multicast4, "a checksum without pseudo-header, as RFC 9568 has it", |advert| {
            advert.seal = Seal::Message;
        })
        .why(RFC_CHECKSUM),
        case(Multicast4, "a wrong checksum", |advert| advert.seal = Seal::Wrong),
    ]
}

fn lists() -> Vec<Case> {
    let another = |advert: &mut Forgery| advert.message[AT_ADDRESSES + 2] = 77;
    let longer = |advert: &mut Forgery| {
        advert.message[AT_COUNT] += 1;
        advert.message.extend([10, 0, 77, 1]);
    };
    vec![
        case(Multicast4, "another VIP", another).why(LISTS),
        case(Multicast4, "another VIP, first advert of its sender", another).first_of_its_sender().why(LISTS),
        case(Multicast4, "another VIP (keepalived: `skip_check_adv_addr`)", another)
            .keepalived("skip_check_adv_addr")
            .why(LISTS),
        case(
            Multicast4,
            "another VIP, first advert of its sender (keepalived: `skip_check_adv_addr`)",
            another,
        )
        .first_of_its_sender()
        .keepalived("skip_check_adv_addr")
        .why(LISTS),
        case(Multicast4, "one VIP more", longer).why(LISTS),
        case(Multicast4, "one VIP more, first advert of its sender", longer).first_of_its_sender().why(LISTS),
        case(Multicast4, "one VIP more (keepalived: `skip_check_adv_addr`)", longer)
            .keepalived("skip_check_adv_addr")
            .why(LISTS),
        case(Multicast4, "one VIP fewer", |advert| {
            advert.message[AT_COUNT] -= 1;
            advert.message.truncate(AT_ADDRESSES + 4);
        })
        .vips(2)
        .why(LISTS),
        case(Multicast4, "the VIPs in another order", |advert| advert.message[AT_ADDRESSES..].rotate_left(4))
            .vips(2),
        case(Multicast4, "one VIP twice in the place of two", |advert| {
            advert.message.copy_within(AT_ADDRESSES..AT_ADDRESSES + 4, AT_ADDRESSES + 4);
        })
        .vips(2)
        .why(LISTS),
        case(Multicast4, "no VIPs", |advert| {
            advert.message[AT_COUNT] = 0;
            advert.message.truncate(AT_ADDRESSES);
        }),
    ]
}

fn structure() -> Vec<Case> {
    vec![
        case(Multicast4, "shorter than its count says", |advert| advert.message.truncate(AT_ADDRESSES)),
        case(Multicast4, "four bytes long", |advert| advert.message.truncate(4)),
        case(Multicast4, "four bytes too long", |advert| advert.message.extend([0; 4])),
        case(Multicast4, "eight bytes too long", |advert| advert.message.extend([0; 8])),
        case(Multicast4, "type 0", |advert| advert.message[0] = 0x30),
        case(Multicast4, "type 2", |advert| advert.message[0] = 0x32),
        case(Multicast4, "version 1", |advert| advert.message[0] = 0x11),
        case(Multicast4, "version 2", as_version_2),
        case(Multicast4, "version 4", |advert| advert.message[0] = 0x41),
        case(Multicast4, "a virtual router that nobody has", |advert| advert.message[1] = 254),
        case(Multicast4, "virtual router 0", |advert| advert.message[1] = 0),
    ]
}

fn ip() -> Vec<Case> {
    vec![
        case(Multicast4, "TTL 254", |advert| advert.hop_limit = 254),
        case(Multicast4, "TTL 1", |advert| advert.hop_limit = 1),
        case(Multicast4, "to the unicast address of the router", to_the_router),
        case(Multicast4, "to 224.0.0.1", |advert| advert.destination = Ipv4Addr::new(224, 0, 0, 1).into()),
        case(Multicast4, "to 255.255.255.255", |advert| advert.destination = Ipv4Addr::BROADCAST.into()),
        case(Multicast4, "to the group, but the MAC of the router", |advert| {
            advert.destination_mac = Some(advert.receiver);
        }),
        case(Multicast4, "to the group, but the broadcast MAC", |advert| {
            advert.destination_mac = Some(Mac::BROADCAST);
        }),
        case(Multicast4, "from the virtual MAC", |advert| {
            advert.source_mac = Mac([0, 0, 0x5e, 0, 1, advert.message[1]]);
        }),
        case(Multicast4, "from the router's own address", |advert| {
            advert.source = Ipv4Addr::new(10, 0, 0, 2).into();
        }),
        case(Multicast4, "from an address of another subnet", |advert| {
            advert.source = Ipv4Addr::new(192, 0, 2, 9).into();
        }),
        case(Multicast4, "from 0.0.0.0", |advert| advert.source = Ipv4Addr::UNSPECIFIED.into())
            .why("no router has it (RFC 1122, 3.2.1.3): there is nobody to yield to"),
        case(Multicast4, "from 127.0.0.1", |advert| advert.source = Ipv4Addr::LOCALHOST.into()),
        case(Multicast4, "from 224.0.0.99", |advert| advert.source = Ipv4Addr::new(224, 0, 0, 99).into()),
        case(Multicast4, "with an IP option (router alert)", |advert| {
            advert.options = vec![0x94, 4, 0, 0];
        }),
        case(Multicast4, "the first part of a fragmented packet", |advert| advert.fragment = 0x2000),
        case(Multicast4, "the last part of a fragmented packet", |advert| advert.fragment = 0x0001),
        case(Multicast4, "a wrong IP header checksum", |advert| advert.ip_checksum_wrong = true),
        case(Multicast4, "TOS 0", |advert| advert.traffic_class = 0),
        case(Multicast4, "Ethernet padding", |advert| advert.padding = 14),
    ]
}

fn unicast() -> Vec<Case> {
    vec![
        case(Unicast4, "nothing odd", |_| {}),
        case(Unicast4, "TTL 64", |advert| advert.hop_limit = 64),
        case(Unicast4, "TTL 1", |advert| advert.hop_limit = 1),
        case(Unicast4, "a checksum as of old keepaliveds, for the group", |advert| {
            advert.seal = Seal::OldUnicast;
        }),
        case(Unicast4, "a checksum without pseudo-header", |advert| advert.seal = Seal::Message)
            .why(RFC_CHECKSUM),
        case(Unicast4, "a wrong checksum", |advert| advert.seal = Seal::Wrong),
        case(Unicast4, "to the multicast group", |advert| advert.destination = group(Unicast4)),
        case(Unicast4, "from an address that is no peer", |advert| advert.source = NEWCOMER.ipv4())
            .why(NO_PEER),
        case(Unicast4, "another VIP", |advert| advert.message[AT_ADDRESSES + 2] = 77).why(LISTS),
        case(Unicast4, "reserved bits set", |advert| advert.message[AT_INTERVAL] |= 0xf0),
    ]
}

fn ipv6() -> Vec<Case> {
    vec![
        case(Multicast6, "nothing odd", |_| {}),
        case(Multicast6, "an equal priority, from a greater address", |advert| {
            advert.message[AT_PRIORITY] = PRIORITY;
        }),
        case(Multicast6, "an equal priority, from a lower address", |advert| {
            advert.message[AT_PRIORITY] = PRIORITY;
            advert.source = LOWER.link_local();
        }),
        case(Multicast6, "an interval of 0", |advert| interval(advert, 0)).why(INTERVAL_0),
        case(Multicast6, "reserved bits set", |advert| advert.message[AT_INTERVAL] |= 0xf0),
        case(Multicast6, "a checksum without pseudo-header", |advert| advert.seal = Seal::Message),
        case(Multicast6, "a wrong checksum", |advert| advert.seal = Seal::Wrong),
        case(Multicast6, "hop limit 254", |advert| advert.hop_limit = 254),
        case(Multicast6, "from a global address", |advert| advert.source = OTHER.ipv6()),
        case(Multicast6, "a first VIP that is not link-local", |advert| {
            advert.message[AT_ADDRESSES..].rotate_left(16);
        }),
        case(Multicast6, "without the link-local VIP", |advert| {
            advert.message[AT_COUNT] -= 1;
            advert.message.drain(AT_ADDRESSES..AT_ADDRESSES + 16);
        })
        .why(LISTS),
        case(Multicast6, "no VIPs", |advert| {
            advert.message[AT_COUNT] = 0;
            advert.message.truncate(AT_ADDRESSES);
        }),
        case(Multicast6, "version 2", |advert| advert.message[0] = 0x21),
        case(Multicast6, "to ff02::1", |advert| {
            advert.destination = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into();
        }),
        case(Multicast6, "to the unicast address of the router", to_the_router),
        case(Multicast6, "from the router's own address", |advert| {
            advert.source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 2).into();
        })
        .why("it is an echo, or a host that has taken our address: nobody to yield to"),
        case(Multicast6, "a hop-by-hop header before it (router alert)", |advert| {
            advert.options = vec![112, 0, 5, 2, 0, 0, 1, 0];
        })
        .why("5.1.2.4: the next header is 112; routers send no extension headers"),
        case(Unicast6, "nothing odd", |_| {}),
        case(Unicast6, "hop limit 64", |advert| advert.hop_limit = 64),
        case(Unicast6, "to the multicast group", |advert| {
            advert.destination = group(Unicast6);
            advert.source = OTHER.link_local();
        }),
        case(Unicast6, "from an address that is no peer", |advert| advert.source = NEWCOMER.ipv6())
            .why(NO_PEER),
    ]
}

fn old() -> Vec<Case> {
    vec![
        case(Old, "nothing odd", |_| {}),
        case(Old, "priority 0", |advert| advert.message[AT_PRIORITY] = 0),
        case(Old, "a lower priority", |advert| advert.message[AT_PRIORITY] = PRIORITY - 1).why(FALLEN),
        case(Old, "an equal priority, from a lower address", |advert| {
            advert.message[AT_PRIORITY] = PRIORITY;
            advert.source = LOWER.ipv4();
        }),
        case(Old, "an interval of 2 s", |advert| advert.message[AT_INTERVAL + 1] = 2),
        case(Old, "an interval of 0", |advert| advert.message[AT_INTERVAL + 1] = 0),
        case(Old, "a checksum with a pseudo-header", |advert| advert.seal = Seal::Pseudo),
        case(Old, "a wrong checksum", |advert| advert.seal = Seal::Wrong),
        case(Old, "TTL 254", |advert| advert.hop_limit = 254),
        case(Old, "version 3", |advert| {
            advert.message.truncate(AT_ADDRESSES + 4);
            advert.message[0] = 0x31;
            interval(advert, 100);
            advert.seal = Seal::Pseudo;
        }),
        case(Old, "another VIP", |advert| advert.message[AT_ADDRESSES + 2] = 77).why(LISTS),
        case(Old, "another VIP, from an address owner (priority 255)", |advert| {
            advert.message[AT_ADDRESSES + 2] = 77;
            advert.message[AT_PRIORITY] = 255;
        })
        .why("RFC 3768, 7.1: an address owner's list is right by definition"),
        case(Old, "no VIPs", |advert| {
            advert.message[AT_COUNT] = 0;
            advert.message.drain(AT_ADDRESSES..AT_ADDRESSES + 4);
        }),
        case(Old, "without authentication data", |advert| advert.message.truncate(AT_ADDRESSES + 4)),
        case(Old, "authentication data that is not zero", |advert| {
            advert.message[AT_ADDRESSES + 4..].fill(7);
        }),
        case(Old, "four bytes too long", |advert| advert.message.extend([0; 4])),
        case(Old, "a password", |advert| with_password(advert, *b"secret12")),
    ]
}

fn passwords() -> Vec<Case> {
    vec![
        case(OldWithPassword, "nothing odd", |_| {}),
        case(OldWithPassword, "another password", |advert| with_password(advert, *b"secret13")),
        case(OldWithPassword, "a password in capitals", |advert| with_password(advert, *b"SECRET12")),
        case(OldWithPassword, "no authentication", |advert| {
            with_password(advert, [0; 8]);
            advert.message[AT_INTERVAL] = 0;
        }),
        case(OldWithPassword, "no authentication by its type, but the password", |advert| {
            advert.message[AT_INTERVAL] = 0;
        }),
        case(OldWithPassword, "authentication type 2 (IP Authentication Header)", |advert| {
            advert.message[AT_INTERVAL] = 2;
        }),
        case(OldWithPassword, "authentication type 3", |advert| advert.message[AT_INTERVAL] = 3),
    ]
}

fn interval(advert: &mut Forgery, centiseconds: u16) {
    advert.message[AT_INTERVAL..][..2].copy_from_slice(&centiseconds.to_be_bytes());
}

/// As a router of version 2 sends it.
fn as_version_2(advert: &mut Forgery) {
    advert.message[0] = 0x21;
    advert.message[AT_INTERVAL..][..2].copy_from_slice(&[0, 1]);
    advert.message.extend([0; 8]);
    advert.seal = Seal::Message;
}

fn to_the_router(advert: &mut Forgery) {
    advert.destination = match advert.source {
        IpAddr::V4(_) => Ipv4Addr::new(10, 0, 0, 2).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2).into(),
    };
}

fn with_password(advert: &mut Forgery, password: [u8; 8]) {
    advert.message[AT_INTERVAL] = 1;
    advert.message[AT_ADDRESSES + 4..].copy_from_slice(&password);
}
