//! Frames by their fields, written without the code under test. `..Arp::question()` fills in the ordinary rest.

use etherparse::Icmpv6Type;

pub type Mac = [u8; 6];
pub type V4 = [u8; 4];
pub type V6 = [u8; 16];

/// This node's interface.
pub const OWN: Mac = [0x02, 0, 0, 0, 0, 0x01];
/// The node that owned the VIPs before.
pub const FORMER: Mac = [0x02, 0, 0, 0, 0, 0x02];
/// A client.
pub const CLIENT: Mac = [0x02, 0, 0, 0, 0, 0xc1];
/// Somebody else.
pub const STRANGER: Mac = [0x02, 0, 0, 0, 0, 0xee];
pub const BROADCAST: Mac = [0xff; 6];

/// VRID of the VIPs, where they have virtual MACs.
pub const VRID: u8 = 51;
/// The virtual MACs of the VIPs' router.
pub const VIRTUAL4: Mac = [0x00, 0x00, 0x5e, 0x00, 0x01, VRID];
pub const VIRTUAL6: Mac = [0x00, 0x00, 0x5e, 0x00, 0x02, VRID];
/// That of a router which is none of ours.
pub const OTHER_VIRTUAL: Mac = [0x00, 0x00, 0x5e, 0x00, 0x01, 52];

pub const VIP4: V4 = [10, 0, 0, 50];
pub const CLIENT4: V4 = [10, 0, 0, 9];
/// No VIP.
pub const OTHER4: V4 = [10, 0, 0, 51];

pub const VIP6: V6 = v6([0xfd00, 0, 0, 0, 0, 0, 0x12, 0x3450]);
pub const CLIENT6: V6 = v6([0xfd00, 0, 0, 0, 0, 0, 0, 9]);
/// No VIP, in the VIP's solicited-node group.
pub const OTHER6: V6 = v6([0xfd00, 0, 0, 0, 0, 0, 0x9912, 0x3450]);
/// The VIP's solicited-node group.
pub const GROUP6: V6 = v6([0xff02, 0, 0, 0, 0, 1, 0xff12, 0x3450]);
pub const GROUP_MAC: Mac = [0x33, 0x33, 0xff, 0x12, 0x34, 0x50];
pub const ALL_NODES: V6 = v6([0xff02, 0, 0, 0, 0, 0, 0, 1]);
pub const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];

/// Priority 3, VID 100: a VLAN whose sub-interface carries the VIPs.
pub const VLAN: [u8; 4] = [0x81, 0x00, 0x60, 100];
/// A service tag, VID 100, in front of [`VLAN_200`].
pub const SERVICE_VLAN: [u8; 4] = [0x88, 0xa8, 0x00, 100];
pub const VLAN_200: [u8; 4] = [0x81, 0x00, 0x00, 200];
/// Priority only.
pub const PRIORITY_TAG: [u8; 4] = [0x81, 0x00, 0xa0, 0];
/// A VLAN of which nothing is known.
pub const UNKNOWN_VLAN: [u8; 4] = [0x81, 0x00, 0x00, 101];

const fn v6(groups: [u16; 8]) -> V6 {
    std::net::Ipv6Addr::new(
        groups[0], groups[1], groups[2], groups[3], groups[4], groups[5], groups[6], groups[7],
    )
    .octets()
}

/// An Ethernet frame around anything.
pub fn ethernet(to: Mac, from: Mac, tags: &[[u8; 4]], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &tags.concat(), &ethertype.to_be_bytes(), payload].concat()
}

/// The frame, padded as a NIC would.
pub fn padded(mut frame: Vec<u8>, length: usize) -> Vec<u8> {
    frame.resize(length, 0);
    frame
}

#[derive(Clone, Debug)]
pub struct Arp {
    pub to: Mac,
    pub from: Mac,
    pub tags: Vec<[u8; 4]>,
    pub htype: u16,
    pub ptype: u16,
    pub hlen: u8,
    pub plen: u8,
    pub op: u16,
    pub sender_mac: Mac,
    pub sender: V4,
    pub target_mac: Mac,
    pub target: V4,
}

impl Arp {
    /// The client asks everyone for the VIP.
    pub fn question() -> Self {
        Self {
            to: BROADCAST,
            from: CLIENT,
            tags: Vec::new(),
            htype: 1,
            ptype: 0x0800,
            hlen: 6,
            plen: 4,
            op: 1,
            sender_mac: CLIENT,
            sender: CLIENT4,
            target_mac: [0; 6],
            target: VIP4,
        }
    }

    /// What the client is to hear.
    pub fn answer() -> Self {
        Self {
            to: CLIENT,
            from: OWN,
            op: 2,
            sender_mac: OWN,
            sender: VIP4,
            target_mac: CLIENT,
            target: CLIENT4,
            ..Self::question()
        }
    }

    /// Another node claims the VIP.
    pub fn foreign() -> Self {
        Self { from: STRANGER, sender_mac: STRANGER, sender: VIP4, target: VIP4, ..Self::question() }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let message = [
            &self.htype.to_be_bytes()[..],
            &self.ptype.to_be_bytes(),
            &[self.hlen, self.plen],
            &self.op.to_be_bytes(),
            &self.sender_mac,
            &self.sender,
            &self.target_mac,
            &self.target,
        ]
        .concat();
        ethernet(self.to, self.from, &self.tags, 0x0806, &message)
    }
}

/// A neighbour solicitation or advertisement.
#[derive(Clone, Debug)]
pub struct Nd {
    pub to: Mac,
    pub from: Mac,
    pub tags: Vec<[u8; 4]>,
    pub hops: u8,
    pub source: V6,
    pub destination: V6,
    pub kind: u8,
    pub code: u8,
    /// The word behind the checksum: an advertisement's flags.
    pub flags: [u8; 4],
    pub target: V6,
    pub options: Vec<u8>,
    /// Added to the right checksum.
    pub checksum_error: u16,
}

impl Nd {
    /// The client asks the VIP's group, with its link-layer address.
    pub fn question() -> Self {
        Self {
            to: GROUP_MAC,
            from: CLIENT,
            tags: Vec::new(),
            hops: 255,
            source: CLIENT6,
            destination: GROUP6,
            kind: 135,
            code: 0,
            flags: [0; 4],
            target: VIP6,
            options: link_layer(1, CLIENT),
            checksum_error: 0,
        }
    }

    /// Duplicate address detection for the VIP.
    pub fn probe() -> Self {
        Self { source: [0; 16], options: Vec::new(), ..Self::question() }
    }

    /// What the client is to hear: router, solicited, override.
    pub fn answer() -> Self {
        Self {
            to: CLIENT,
            from: OWN,
            source: VIP6,
            destination: CLIENT6,
            kind: 136,
            flags: [0xe0, 0, 0, 0],
            options: link_layer(2, OWN),
            ..Self::question()
        }
    }

    /// Another node claims the VIP.
    pub fn foreign() -> Self {
        Self {
            to: ALL_NODES_MAC,
            from: STRANGER,
            source: VIP6,
            destination: ALL_NODES,
            kind: 136,
            flags: [0x20, 0, 0, 0],
            options: link_layer(2, STRANGER),
            ..Self::question()
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let body = [&self.target[..], &self.options].concat();
        let kind = Icmpv6Type::Unknown { type_u8: self.kind, code_u8: self.code, bytes5to8: self.flags };
        let checksum = kind.calc_checksum(self.source, self.destination, &body).expect("a short payload");
        let checksum = checksum.wrapping_add(self.checksum_error).to_be_bytes();
        let message = [&[self.kind, self.code][..], &checksum, &self.flags, &body].concat();
        let packet = ipv6(self.source, self.destination, 58, self.hops, &message);
        ethernet(self.to, self.from, &self.tags, 0x86dd, &packet)
    }
}

/// An option that holds a link-layer address.
pub fn link_layer(kind: u8, mac: Mac) -> Vec<u8> {
    [&[kind, 1][..], &mac].concat()
}

pub fn ipv6(source: V6, destination: V6, next_header: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&[0x60, 0, 0, 0][..], &length, &[next_header, hops], &source, &destination, payload].concat()
}

/// `fragment` is the field with the flags and the offset.
pub fn ipv4(source: V4, destination: V4, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).expect("a short payload").to_be_bytes();
    let [high, low] = fragment.to_be_bytes();
    let start = [0x45, 0, length[0], length[1], 0, 1, high, low, 64, protocol, 0, 0];
    [&start[..], &source, &destination, payload].concat()
}

/// A TCP segment to a VIP.
#[derive(Clone, Debug)]
pub struct Tcp {
    pub to: Mac,
    pub from: Mac,
    pub tags: Vec<[u8; 4]>,
    pub client: Address,
    pub vip: Address,
    pub client_port: u16,
    pub vip_port: u16,
    pub flags: u8,
    /// IPv4: flags and offset of a fragment.
    pub fragment: u16,
}

/// An address of either family.
#[derive(Clone, Copy, Debug)]
pub enum Address {
    V4(V4),
    V6(V6),
}

pub const SYN: u8 = 0x02;
pub const ACK: u8 = 0x10;

impl Tcp {
    /// The client goes on with an IPv4 connection.
    pub fn v4() -> Self {
        Self {
            to: OWN,
            from: CLIENT,
            tags: Vec::new(),
            client: Address::V4(CLIENT4),
            vip: Address::V4(VIP4),
            client_port: 40_000,
            vip_port: 80,
            flags: ACK,
            fragment: 0,
        }
    }

    /// The client goes on with an IPv6 connection.
    pub fn v6() -> Self {
        Self { client: Address::V6(CLIENT6), vip: Address::V6(VIP6), ..Self::v4() }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let ports = [self.client_port.to_be_bytes(), self.vip_port.to_be_bytes()].concat();
        let segment = [&ports[..], &[0; 8], &[0x50, self.flags, 0xff, 0xff, 0, 0, 0, 0], b"data"].concat();
        match (self.client, self.vip) {
            (Address::V4(client), Address::V4(vip)) => {
                let packet = ipv4(client, vip, 6, self.fragment, &segment);
                ethernet(self.to, self.from, &self.tags, 0x0800, &packet)
            }
            (Address::V6(client), Address::V6(vip)) => {
                let packet = ipv6(client, vip, 6, 64, &segment);
                ethernet(self.to, self.from, &self.tags, 0x86dd, &packet)
            }
            mixed => panic!("one family, not {mixed:?}"),
        }
    }
}
