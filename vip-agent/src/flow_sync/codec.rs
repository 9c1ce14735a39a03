//! Datagrams between peers.
//!
//! ```text
//!  0      4        8      16     24         32             40     48     56      58
//! | "VPF1" | key id | from | to | sequence | acknowledged | base | upto | count | changes ... | HMAC-SHA256 |
//! ```
//!
//! Numbers in network order. A change is
//!
//! ```text
//! | flags | protocol | client port | VIP port | client | VIP |                                     gone
//! | flags | protocol | client port | VIP port | client | VIP | idle ms | backend | [own | port, port] |   noted
//! ```
//!
//! with addresses of 4 or 16 bytes. The HMAC is over a label of its own and all that is in front of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use vip_common::steering::packet::has_ports;
use vip_common::steering::tables::FlowState;

use super::table::{Flow, FlowKey, Translation};
use crate::vrrp::trailer::KeyRing;

/// Largest datagram: goes through any IPv6 path in one piece (RFC 8200, 5), tunnels included.
pub const LARGEST: usize = 1200;

const MAGIC: [u8; 4] = *b"VPF1";
const LABEL: &[u8; 16] = b"viplane flows 1\0";
const KEY_ID: std::ops::Range<usize> = 4..8;
const HEADER: usize = 58;
const SIGNATURE: usize = 32;
/// Bytes for changes in one datagram.
const ROOM: usize = LARGEST - HEADER - SIGNATURE;

/// Bits of a change's flags. The state is in the two lowest.
mod flags {
    pub(super) const STATE: u8 = 0x03;
    pub(super) const GONE: u8 = 0x04;
    pub(super) const TRANSLATED: u8 = 0x08;
    /// The client and the VIP are IPv6.
    pub(super) const V6: u8 = 0x10;
    /// The backend is.
    pub(super) const BACKEND_V6: u8 = 0x20;
    pub(super) const KNOWN: u8 = 0x3f;
}

/// A number that an end has drawn for the other to repeat. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Nonce(std::num::NonZeroU64);

impl Nonce {
    /// `None` for 0.
    pub fn new(number: u64) -> Option<Self> {
        std::num::NonZeroU64::new(number).map(Self)
    }

    const fn get(self) -> u64 {
        self.0.get()
    }
}

/// What a datagram says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The sender's number.
    pub from: Nonce,
    /// The receiver's, as the sender knows it.
    pub to: Option<Nonce>,
    /// Grows with each datagram of a session.
    pub sequence: u64,
    /// Up to which of the receiver's changes the sender has all.
    pub acknowledged: u64,
    /// The changes are those of the sender after this one,
    pub base: u64,
    /// up to this one. Those that were changed again are left out, as they come later.
    pub upto: u64,
    /// In their order.
    pub changes: Vec<Change>,
}

/// What has become of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is like this.
    Noted(Flow),
    /// It is over.
    Gone(FlowKey),
}

/// What is no datagram of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Something else, or cut short.
    #[error("is no datagram of ours")]
    Malformed,
    /// Of a key that this node does not have.
    #[error("is signed by a key that this node does not have")]
    UnknownKey,
    /// Not made by who has the key.
    #[error("is not rightly signed")]
    BadSignature,
}

/// Collects changes until a datagram is full.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    count: u16,
}

impl Batch {
    /// How many changes are in it.
    pub const fn len(&self) -> u16 {
        self.count
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a change; false if there is no room for it.
    pub fn push(&mut self, change: &Change) -> bool {
        let before = self.bytes.len();
        write(&mut self.bytes, change);
        if self.bytes.len() > ROOM {
            self.bytes.truncate(before);
            return false;
        }
        self.count += 1;
        true
    }
}

impl Message {
    /// The datagram with these changes instead of its own, signed by the ring's first key.
    pub fn sealed_with(&self, batch: &Batch, keys: &KeyRing) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + batch.bytes.len() + SIGNATURE);
        bytes.extend(MAGIC);
        bytes.extend([0; 4]);
        let to = self.to.map_or(0, Nonce::get);
        for number in [self.from.get(), to, self.sequence, self.acknowledged, self.base, self.upto] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend(batch.count.to_be_bytes());
        bytes.extend(&batch.bytes);
        bytes[KEY_ID].copy_from_slice(&keys.signing_id());
        let signature = keys.digest(LABEL, &bytes);
        bytes.extend(signature);
        bytes
    }

    /// The datagram, with as many of its changes as there is room for.
    pub fn sealed(&self, keys: &KeyRing) -> Vec<u8> {
        let mut batch = Batch::default();
        let _ = self.changes.iter().all(|change| batch.push(change));
        self.sealed_with(&batch, keys)
    }

    /// Reads a datagram, if somebody with one of the keys has made it.
    ///
    /// # Errors
    /// It is none, or somebody else's.
    pub fn open(datagram: &[u8], keys: &KeyRing) -> Result<Self, Refused> {
        if datagram.len() > LARGEST || !datagram.starts_with(&MAGIC) {
            return Err(Refused::Malformed);
        }
        let (signed, signature) = datagram.split_last_chunk::<SIGNATURE>().ok_or(Refused::Malformed)?;
        let id = signed.get(KEY_ID).ok_or(Refused::Malformed)?;
        match keys.is_digest(id, LABEL, signed, signature) {
            None => Err(Refused::UnknownKey),
            Some(false) => Err(Refused::BadSignature),
            Some(true) => {
                let mut reader = Reader(signed.get(KEY_ID.end..).unwrap_or_default());
                message(&mut reader).filter(|_| reader.0.is_empty()).ok_or(Refused::Malformed)
            }
        }
    }
}

fn write(bytes: &mut Vec<u8>, change: &Change) {
    let (key, state) = match change {
        Change::Gone(key) => (key, flags::GONE),
        Change::Noted(flow) => {
            let translated = if flow.translation.is_some() { flags::TRANSLATED } else { 0 };
            let backend = if flow.backend.is_ipv6() { flags::BACKEND_V6 } else { 0 };
            (&flow.key, flow.state as u8 | translated | backend)
        }
    };
    let family = if key.vip.is_ipv6() { flags::V6 } else { 0 };
    bytes.extend([state | family, key.protocol]);
    bytes.extend(key.client_port.to_be_bytes());
    bytes.extend(key.vip_port.to_be_bytes());
    address(bytes, key.client);
    address(bytes, key.vip);
    if let Change::Noted(flow) = change {
        let idle = u32::try_from(flow.idle.as_millis()).unwrap_or(u32::MAX);
        bytes.extend(idle.to_be_bytes());
        address(bytes, flow.backend);
        if let Some(Translation { own, own_port, backend_port }) = flow.translation {
            address(bytes, own);
            bytes.extend(own_port.to_be_bytes());
            bytes.extend(backend_port.to_be_bytes());
        }
    }
}

fn address(bytes: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => bytes.extend(address.octets()),
        IpAddr::V6(address) => bytes.extend(address.octets()),
    }
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_be_bytes)
    }

    fn port(&mut self) -> Option<u16> {
        self.bytes().map(u16::from_be_bytes)
    }

    fn address(&mut self, v6: bool) -> Option<IpAddr> {
        Some(if v6 {
            Ipv6Addr::from(self.bytes::<16>()?).into()
        } else {
            Ipv4Addr::from(self.bytes::<4>()?).into()
        })
    }
}

fn message(reader: &mut Reader<'_>) -> Option<Message> {
    let from = Nonce::new(reader.number()?)?;
    let to = Nonce::new(reader.number()?);
    let (sequence, acknowledged) = (reader.number()?, reader.number()?);
    let (base, upto) = (reader.number()?, reader.number()?);
    let count = reader.port()?;
    let changes: Option<Vec<Change>> = (0..count).map(|_| change(reader)).collect();
    (base <= upto).then_some(Message { from, to, sequence, acknowledged, base, upto, changes: changes? })
}

fn change(reader: &mut Reader<'_>) -> Option<Change> {
    let [bits, protocol] = reader.bytes()?;
    let v6 = bits & flags::V6 != 0;
    let (client_port, vip_port) = (reader.port()?, reader.port()?);
    let (client, vip) = (reader.address(v6)?, reader.address(v6)?);
    if bits & !flags::KNOWN != 0 || !has_ports(protocol) {
        return None;
    }
    let key = FlowKey { client, vip, client_port, vip_port, protocol };
    if bits & flags::GONE != 0 {
        return (bits & !flags::V6 == flags::GONE).then_some(Change::Gone(key));
    }
    let state = match bits & flags::STATE {
        0 => FlowState::Opening,
        1 => FlowState::Established,
        2 => FlowState::Closing,
        _ => return None,
    };
    let idle = Duration::from_millis(u32::from_be_bytes(reader.bytes()?).into());
    let backend = reader.address(bits & flags::BACKEND_V6 != 0)?;
    let translation = if bits & flags::TRANSLATED != 0 {
        // Full NAT does not change the family.
        let own = reader.address(v6).filter(|_| backend.is_ipv6() == v6)?;
        Some(Translation { own, own_port: reader.port()?, backend_port: reader.port()? })
    } else {
        None
    };
    Some(Change::Noted(Flow { key, backend, translation, state, idle }))
}
