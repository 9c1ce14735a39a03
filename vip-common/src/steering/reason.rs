//! Why steering did with a packet what it did: the index of a service's counters and the label of the metric.

/// What happened to a packet to an owned VIP. The number is the index into [`ServiceCounters::outcomes`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// It went the way of its flow.
    Steered = 0,
    /// It began a flow, as far as is known here, which was noted.
    NewFlow = 1,
    /// It went by the ring alone: there were too many new flows to note it.
    Unnoted = 2,
    /// An ICMP error: it went the way of the flow that it quotes.
    ErrorSteered = 3,
    /// A later fragment: it went the way of the first.
    FragmentSteered = 4,
    /// A later fragment whose first was not seen: dropped.
    FragmentUnknown = 5,
    /// It went up the stack: no service, mode `local`, or nothing that steering knows.
    Passed = 6,
    /// There is no backend, or no service: dropped.
    Closed = 7,
    /// There is no backend, or no service: the client was told.
    Rejected = 8,
    /// The client is in none of the service's source ranges: dropped.
    NotAllowed = 9,
    /// It does not fit into the tunnel: the client was told.
    TooBig = 10,
    /// Its last hop was here: the client was told.
    Expired = 11,
    /// The client should have been told something, but too many others were: dropped.
    Silent = 12,
    /// An echo request for a VIP that the stack does not have: answered.
    Echoed = 13,
    /// The backend is reached by another interface than the packet came by: dropped.
    OtherLink = 14,
    /// It came from the very backend that it would go to: dropped, or it would come back forever.
    Loop = 15,
    /// Full NAT: what a backend sent went to the client.
    Returned = 16,
    /// All ports that were tried are in use, or the table is full; for a local backend: the client uses this port for another VIP
    /// of the same backend: dropped.
    NoPort = 17,
    /// Full NAT: the kernel's routes do not lead to the client, or its next hop has yet to be resolved: dropped.
    NoWayBack = 18,
    /// Translation cannot do without an entry, and there was to be none: too many new flows, the reset of an unknown one, a
    /// protocol whose ports cannot be changed: dropped.
    Unmapped = 19,
}

impl Outcome {
    /// How many there are.
    pub const COUNT: usize = 20;

    /// `None` for a number that is none's of a packet on its way to a backend.
    #[inline(always)]
    pub(super) const fn of(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Steered,
            1 => Self::NewFlow,
            2 => Self::Unnoted,
            3 => Self::ErrorSteered,
            4 => Self::FragmentSteered,
            _ => return None,
        })
    }
}

/// Value of `SERVICE_COUNTERS`, one for each CPU. Packets to no service are counted in one of their own, the last.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct ServiceCounters {
    /// Bytes from the IP header on, of all packets.
    pub bytes: u64,
    /// Packets by [`Outcome`].
    pub outcomes: [u64; Outcome::COUNT],
}

/// Value of `BACKEND_COUNTERS`, one for each CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct BackendCounters {
    /// That went to it.
    pub packets: u64,
    /// From the IP header on.
    pub bytes: u64,
    /// [`Outcome::NewFlow`]
    pub new_flows: u64,
}

const _: () = {
    assert!(size_of::<ServiceCounters>() == 168);
    assert!(size_of::<BackendCounters>() == 24);
};
