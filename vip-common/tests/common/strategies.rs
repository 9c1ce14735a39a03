//! Random frames: of the kinds that matter, with random fields, then damaged.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use vip_common::heartbeat::{Key, Kind, Message};

use super::frames::*;
use super::world::{KEY, NODE, PEER};

/// Any frame, from noise to a sound question.
pub fn frame() -> impl Strategy<Value = Vec<u8>> {
    let kinds = prop_oneof![
        4 => arp(),
        6 => nd(),
        1 => probe(),
        4 => tcp(),
        1 => other(),
        1 => vec(any::<u8>(), 14..200),
    ];
    (kinds, damage())
        .prop_map(|(frame, damage)| damage.into_iter().fold(frame, |frame, damage| damage.to(frame)))
}

/// At most two random changes.
fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let one = prop_oneof![
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, value)| Damage::Byte(at, value)),
        any::<prop::sample::Index>().prop_map(Damage::Cut),
        (0..80_usize).prop_map(Damage::Pad),
    ];
    prop_oneof![2 => Just(Vec::new()), 1 => vec(one, 1..3)]
}

#[derive(Clone, Debug)]
enum Damage {
    Byte(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Pad(usize),
}

impl Damage {
    /// Leaves an Ethernet header, without which BPF_PROG_TEST_RUN takes no frame.
    fn to(self, mut frame: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Byte(at, value) => {
                let at = at.index(frame.len());
                frame[at] = value;
            }
            Self::Cut(at) => frame.truncate(14 + at.index(frame.len() - 13)),
            Self::Pad(by) => frame.resize(frame.len() + by, 0x5a),
        }
        frame
    }
}

fn tags() -> impl Strategy<Value = Vec<[u8; 4]>> {
    let one = select(vec![VLAN, SERVICE_VLAN, VLAN_200, PRIORITY_TAG, UNKNOWN_VLAN]);
    prop_oneof![4 => Just(Vec::new()), 2 => vec(one.clone(), 1..4), 1 => Just(vec![SERVICE_VLAN, VLAN_200])]
}

fn mac() -> impl Strategy<Value = Mac> {
    prop_oneof![
        8 => select(vec![OWN, CLIENT, FORMER, STRANGER, BROADCAST, GROUP_MAC, ALL_NODES_MAC, [0; 6]]),
        4 => select(vec![VIRTUAL4, VIRTUAL6, OTHER_VIRTUAL, [0, 0, 0x5e, 0, 3, VRID]]),
        1 => any::<Mac>(),
    ]
}

fn address4() -> impl Strategy<Value = V4> {
    prop_oneof![8 => select(vec![VIP4, CLIENT4, OTHER4, [0; 4], [255; 4]]), 1 => any::<V4>()]
}

fn address6() -> impl Strategy<Value = V6> {
    prop_oneof![
        8 => select(vec![VIP6, CLIENT6, OTHER6, GROUP6, ALL_NODES, [0; 16]]),
        1 => any::<V6>()
    ]
}

/// Mostly the usual value.
fn mostly<T: Clone + std::fmt::Debug + 'static>(
    usual: T,
    other: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = T> {
    prop_oneof![8 => Just(usual), 1 => other]
}

pub fn arp() -> impl Strategy<Value = Vec<u8>> {
    let ethernet =
        (mostly(BROADCAST, mac()), mac(), tags(), mostly(1_u16, 0..8_u16), mostly(0x0800, any::<u16>()));
    let sender_mac = prop_oneof![Just(CLIENT), Just(OWN), mac()];
    let addresses = (sender_mac, address4(), mac(), mostly(VIP4, address4()));
    let lengths = (mostly(6_u8, any::<u8>()), mostly(4_u8, any::<u8>()), mostly(1_u16, 0..5_u16));
    (ethernet, addresses, lengths).prop_map(
        |((to, from, tags, htype, ptype), (sender_mac, sender, target_mac, target), (hlen, plen, op))| {
            Arp { to, from, tags, htype, ptype, hlen, plen, op, sender_mac, sender, target_mac, target }
                .bytes()
        },
    )
}

pub fn nd() -> impl Strategy<Value = Vec<u8>> {
    let ethernet = (mostly(GROUP_MAC, mac()), mostly(CLIENT, mac()), tags(), mostly(255_u8, any::<u8>()));
    let addresses = (mostly(CLIENT6, address6()), mostly(GROUP6, address6()), mostly(VIP6, address6()));
    let message = (
        mostly(135_u8, select(vec![136_u8, 134, 143])),
        mostly(0_u8, any::<u8>()),
        options(),
        mostly(0_u16, any::<u16>()),
    );
    (ethernet, addresses, message).prop_map(
        |((to, from, tags, hops), (source, destination, target), (kind, code, options, checksum_error))| {
            let flags = [0; 4];
            Nd {
                to,
                from,
                tags,
                hops,
                source,
                destination,
                kind,
                code,
                flags,
                target,
                options,
                checksum_error,
            }
            .bytes()
        },
    )
}

/// Duplicate address detection, mostly sound.
fn probe() -> impl Strategy<Value = Vec<u8>> {
    (
        mostly(GROUP_MAC, mac()),
        prop_oneof![Just(CLIENT), Just(OWN), mac()],
        mostly(GROUP6, address6()),
        tags(),
    )
        .prop_map(|(to, from, destination, tags)| Nd { to, from, destination, tags, ..Nd::probe() }.bytes())
}

/// Packets of other protocols, mostly to a VIP.
fn other() -> impl Strategy<Value = Vec<u8>> {
    let to = mostly(OWN, select(vec![VIRTUAL4, VIRTUAL6, OTHER_VIRTUAL]));
    let destination = (mostly(VIP4, Just(OTHER4)), mostly(VIP6, Just(OTHER6)));
    (to, destination, select(vec![0_u8, 1, 2, 17, 58, 112]), any::<bool>(), vec(any::<u8>(), 0..60)).prop_map(
        |(to, (vip4, vip6), protocol, four, payload)| {
            if four {
                ethernet(to, CLIENT, &[], 0x0800, &ipv4(CLIENT4, vip4, protocol, 0, &payload))
            } else {
                ethernet(to, CLIENT, &[], 0x86dd, &ipv6(CLIENT6, vip6, protocol, 64, &payload))
            }
        },
    )
}

/// Link-layer addresses, a nonce, noise of sound and of unsound length.
fn options() -> impl Strategy<Value = Vec<u8>> {
    let one = prop_oneof![
        6 => (1..3_u8, mac()).prop_map(|(kind, mac)| link_layer(kind, mac)),
        2 => Just(vec![14, 1, 1, 2, 3, 4, 5, 6]),
        1 => (any::<u8>(), 0..4_u8, vec(any::<u8>(), 6..30)).prop_map(|(kind, units, body)| {
            [&[kind, units][..], &body].concat()
        }),
    ];
    vec(one, 0..4).prop_map(|options| options.concat())
}

pub fn tcp() -> impl Strategy<Value = Vec<u8>> {
    let addresses = prop_oneof![
        (mostly(CLIENT4, address4()), mostly(VIP4, address4()))
            .prop_map(|(client, vip)| (Address::V4(client), Address::V4(vip))),
        (mostly(CLIENT6, address6()), mostly(VIP6, address6()))
            .prop_map(|(client, vip)| (Address::V6(client), Address::V6(vip))),
    ];
    let header = (40_000..40_004_u16, select(vec![SYN, ACK, SYN | ACK, 0x04, 0x11]));
    let fragment = mostly(0x4000_u16, select(vec![0_u16, 0x2000, 0x2001, 0x0001]));
    (mostly(OWN, mac()), mac(), tags(), addresses, header, fragment).prop_map(
        |(to, from, tags, (client, vip), (client_port, flags), fragment)| {
            Tcp { to, from, tags, client, vip, client_port, vip_port: 80, flags, fragment }.bytes()
        },
    )
}

/// Frames of fast detection: mostly the peer's, mostly sound.
pub fn heartbeat() -> impl Strategy<Value = Vec<u8>> {
    let kind = select(vec![Kind::Heartbeat, Kind::Question, Kind::Answer]);
    let node = mostly(PEER, select(vec![NODE, PEER + 64, 0]));
    // Small times lie in the past of both clocks; the largest is in the future of both.
    let time = prop_oneof![8 => 0..100_u64, 1 => Just(u64::MAX)];
    let message = (kind, node, time, mostly(NODE, any::<u64>()), mostly(KEY, Just(Key::PUBLIC)));
    let framing = (mostly(FORMER, mac()), tags(), damage());
    (message, framing).prop_map(|((kind, node, time, body, key), (from, tags, damage))| {
        let message = Message { kind, node, time, body }.sealed(key);
        let frame = padded(ethernet(BROADCAST, from, &tags, 0x88b5, &message), 60);
        damage.into_iter().fold(frame, |frame, damage| damage.to(frame))
    })
}
