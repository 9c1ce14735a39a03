//! Flows as one node tells them to another, and where they are kept.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use vip_common::steering::tables::FlowState;

/// What tells a flow from others: both ends as its client sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// Of the VIP's family.
    pub client: IpAddr,
    /// The VIP.
    pub vip: IpAddr,
    /// The client's port.
    pub client_port: u16,
    /// The VIP's port.
    pub vip_port: u16,
    /// TCP, UDP or SCTP, by its number in IP headers.
    pub protocol: u8,
}

/// A flow, in terms that mean the same on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Which one.
    pub key: FlowKey,
    /// Where it goes. Of the VIP's family, but for tunnels.
    pub backend: IpAddr,
    /// Full NAT: what it is to its backend.
    pub translation: Option<Translation>,
    /// How far it is.
    pub state: FlowState,
    /// For how long there was no packet.
    pub idle: Duration,
}

/// Both ends of a flow of full NAT as its backend sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The address that is the client to the backend: the VIP, or one that moves with it.
    pub own: IpAddr,
    /// The port there.
    pub own_port: u16,
    /// The backend's port.
    pub backend_port: u16,
}

impl Flow {
    /// Whether there is nothing to tell but that it lives.
    pub(super) fn is_alike(&self, other: &Self) -> bool {
        (self.backend, self.translation, self.state) == (other.backend, other.translation, other.state)
    }

    /// Whether it has been silent for as long as its protocol and state let it.
    pub fn is_over(&self) -> bool {
        self.idle >= Duration::from_nanos(self.state.timeout(self.key.protocol))
    }
}

/// What became of a peer's flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Noted {
    /// It is in the table.
    Yes,
    /// Its VIP is owned by this node, which knows better.
    Own,
    /// There is no such VIP, service or backend here, or it goes by another mode.
    Unknown,
    /// Its port belongs to another flow, or full NAT does not use it here.
    Taken,
    /// It was over before it came.
    Over,
    /// The table has no room, or the kernel refuses.
    Full,
}

impl Noted {
    /// Its name in status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Own => "own",
            Self::Unknown => "unknown",
            Self::Taken => "taken",
            Self::Over => "over",
            Self::Full => "full",
        }
    }
}

/// The program's tables of flows, as the agent reads and fills them. Used on one thread, which may wait for it.
pub trait FlowTable: Send {
    /// Shows all flows of VIPs that this node owns, each once.
    ///
    /// # Errors
    /// The kernel refuses. What was shown before is no whole then.
    fn read(&mut self, visit: &mut dyn FnMut(Flow)) -> io::Result<()>;

    /// Whether this node owns a VIP now.
    fn owns(&self, vip: IpAddr) -> bool;

    /// Puts a peer's flow into the table, or brings up to date what is there.
    fn note(&mut self, flow: &Flow) -> Noted;

    /// Takes a peer's flow out, unless this node owns its VIP.
    fn forget(&mut self, key: &FlowKey);
}
