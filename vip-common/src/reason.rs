//! Why a frame about a VIP, or of fast detection, was treated as it was: the index of the counters and the label of the metric.

/// What happened to a frame about a VIP. Frames about no VIP of ours have no counter: counting would cost them time.
///
/// The number is the index into `COUNTERS`; it never changes its meaning within one [`crate::maps::LAYOUT_VERSION`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// An ARP question for an owned VIP: answered.
    ArpAnswered = 0,
    /// An ARP question for a VIP that another node owns: dropped, so that the kernel stays silent.
    ArpNotOwned = 1,
    /// A malformed or spoofed ARP question: dropped.
    ArpInvalid = 2,
    /// An ARP question for an owned VIP, sent to another station's MAC: passed.
    ArpNotForUs = 3,
    /// An ARP message whose sender is a VIP: passed, so that our own neighbour cache learns.
    ArpAnnouncement = 4,
    /// Another station claimed an owned VIP by ARP. Counted besides what happened to the frame.
    ArpForeignOwner = 5,
    /// A neighbour solicitation for an owned VIP: answered.
    NdAnswered = 6,
    /// A neighbour solicitation for a VIP that another node owns: dropped.
    NdNotOwned = 7,
    /// A neighbour solicitation that fails the checks of RFC 4861, 7.1.1, or is spoofed: dropped.
    NdInvalid = 8,
    /// A neighbour solicitation for an owned VIP, sent to another station's MAC: passed.
    NdNotForUs = 9,
    /// A neighbour advertisement of a VIP: passed.
    NdAnnouncement = 10,
    /// Another station claimed an owned VIP by a neighbour advertisement. Counted besides.
    NdForeignOwner = 11,
    /// A neighbour solicitation that could not be answered: the driver gives no room behind the frame for the option.
    NdNoRoom = 12,
    /// Traffic to an owned VIP: passed up the stack.
    TrafficOwned = 13,
    /// Traffic to a VIP that another node owns: passed.
    TrafficNotOwned = 14,
    /// A segment of a connection that the former owner still serves: sent there.
    HandoverForwarded = 15,
    /// Traffic to an owned VIP that is not accepted (`accept: false`): dropped.
    TrafficNotAccepted = 16,
    /// A frame to a virtual MAC: taken by its owner. Counted besides what happened to it then.
    VirtualMacTaken = 17,
    /// A frame to a virtual MAC that another node owns: dropped.
    VirtualMacNotOwned = 18,
    /// A heartbeat or an answer of a peer: noted and dropped.
    HeartbeatStamped = 19,
    /// A peer's question whether this host lives: answered.
    HeartbeatAnswered = 20,
    /// A heartbeat, question or answer of somebody with another key, or damaged: dropped.
    HeartbeatForged = 21,
    /// One that is not later than the last of its kind, or our own: dropped.
    HeartbeatStale = 22,
    /// One of a node that this one does not follow, or an answer to somebody else: dropped.
    HeartbeatUnknown = 23,
    /// Traffic to an owned VIP with services: steered. What became of it then has counters of its own.
    TrafficSteered = 24,
}

impl Reason {
    /// Every reason, in the order of the counters.
    pub const ALL: [Self; 25] = [
        Self::ArpAnswered,
        Self::ArpNotOwned,
        Self::ArpInvalid,
        Self::ArpNotForUs,
        Self::ArpAnnouncement,
        Self::ArpForeignOwner,
        Self::NdAnswered,
        Self::NdNotOwned,
        Self::NdInvalid,
        Self::NdNotForUs,
        Self::NdAnnouncement,
        Self::NdForeignOwner,
        Self::NdNoRoom,
        Self::TrafficOwned,
        Self::TrafficNotOwned,
        Self::HandoverForwarded,
        Self::TrafficNotAccepted,
        Self::VirtualMacTaken,
        Self::VirtualMacNotOwned,
        Self::HeartbeatStamped,
        Self::HeartbeatAnswered,
        Self::HeartbeatForged,
        Self::HeartbeatStale,
        Self::HeartbeatUnknown,
        Self::TrafficSteered,
    ];

    /// Counters per interface.
    pub const COUNT: u32 = Self::ALL.len() as u32;

    /// The label of the metric.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ArpAnswered => "arp_answered",
            Self::ArpNotOwned => "arp_not_owned",
            Self::ArpInvalid => "arp_invalid",
            Self::ArpNotForUs => "arp_not_for_us",
            Self::ArpAnnouncement => "arp_announcement",
            Self::ArpForeignOwner => "arp_foreign_owner",
            Self::NdAnswered => "nd_answered",
            Self::NdNotOwned => "nd_not_owned",
            Self::NdInvalid => "nd_invalid",
            Self::NdNotForUs => "nd_not_for_us",
            Self::NdAnnouncement => "nd_announcement",
            Self::NdForeignOwner => "nd_foreign_owner",
            Self::NdNoRoom => "nd_no_room",
            Self::TrafficOwned => "traffic_owned",
            Self::TrafficNotOwned => "traffic_not_owned",
            Self::HandoverForwarded => "handover_forwarded",
            Self::TrafficNotAccepted => "traffic_not_accepted",
            Self::VirtualMacTaken => "virtual_mac_taken",
            Self::VirtualMacNotOwned => "virtual_mac_not_owned",
            Self::HeartbeatStamped => "heartbeat_stamped",
            Self::HeartbeatAnswered => "heartbeat_answered",
            Self::HeartbeatForged => "heartbeat_forged",
            Self::HeartbeatStale => "heartbeat_stale",
            Self::HeartbeatUnknown => "heartbeat_unknown",
            Self::TrafficSteered => "traffic_steered",
        }
    }

    /// Index into `COUNTERS` of this reason on the interface of slot `link` ([`crate::maps::Vip::link`]).
    #[inline(always)]
    pub const fn counter(self, link: u16) -> u32 {
        link as u32 * Self::COUNT + self as u32
    }
}

const _: () = {
    let mut index = 0;
    while index < Reason::ALL.len() {
        assert!(Reason::ALL[index] as usize == index);
        index += 1;
    }
};
