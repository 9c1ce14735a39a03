//! How an instance is, as the driver tells it.

use std::net::IpAddr;

use arrayvec::ArrayVec;

use crate::types::{MacAddr, MonotonicTime, Priority};
use crate::vrrp::detect::Covered;
use crate::vrrp::discard::{Discard, DiscardCounts};
use crate::vrrp::machine::{Carried, State};
use crate::vrrp::socket::SendError;
use crate::vrrp::trailer::Marks;

/// Other routers that are remembered per instance.
pub(super) const PEERS: usize = 16;

/// Another router's advertisement that does not fit ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The sender.
    pub source: IpAddr,
    /// Its MAC.
    pub source_mac: MacAddr,
    /// What is wrong with it.
    pub why: Discard,
}

/// Another router as it was last heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotPeer {
    /// Its address.
    pub address: IpAddr,
    /// 0-255.
    pub priority: u8,
    /// When it was last heard.
    pub heard: MonotonicTime,
}

/// How an instance is.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// State of the machine.
    pub state: State,
    /// Until when this node answers; in the past = it does not.
    pub lease_until: MonotonicTime,
    /// The owner, if it is another.
    pub active_router: Option<IpAddr>,
    /// Other routers heard of late.
    pub peers: ArrayVec<SnapshotPeer, PEERS>,
    /// Advertisements sent and received.
    pub adverts: AdvertCounts,
    /// Why the last advertisement that we tried to send did not leave.
    pub refusal: Option<SendError>,
    /// The runtime has been silent for too long.
    pub runtime_silent: bool,
    /// What it advertises, or would.
    pub priority: Priority,
    /// It owns although it is unwell, because nobody else does.
    pub last_resort: bool,
    /// It drains, and goes on answering until an heir is heard.
    pub hands_over: bool,
    /// How the owner is watched by fast detection, if it is.
    pub covered: Option<Covered>,
    /// What was heard last of each sender that signs.
    pub marks: Marks,
    /// What another process needs to go on in its place; `None` while it hands over.
    pub carried: Option<Carried>,
}

impl Snapshot {
    /// Whether this node answers for the VIPs.
    pub fn answers(&self) -> bool {
        MonotonicTime::now() < self.lease_until
    }
}

/// Advertisements counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdvertCounts {
    /// Accepted for sending.
    pub sent: u64,
    /// Refused locally.
    pub refused: u64,
    /// Received and accepted.
    pub received: u64,
    /// Received and discarded, by reason.
    pub discarded: DiscardCounts,
    /// Received and accepted, although something about them is worth an alarm, by reason.
    pub remarked: DiscardCounts,
}

impl AdvertCounts {
    /// Counts all that was counted elsewhere.
    pub fn add_all(&mut self, others: &Self) {
        let Self { sent, refused, received, discarded, remarked } = others;
        self.sent += sent;
        self.refused += refused;
        self.received += received;
        self.discarded.add_all(discarded);
        self.remarked.add_all(remarked);
    }
}
