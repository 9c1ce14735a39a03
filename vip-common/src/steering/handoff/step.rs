//! The programs of steering by number and name, and the tasks that lead to them.

/// A program that another one goes on with: the index into `STEERING`. An empty place there means that the packet passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Step {
    /// [`sort`](super::super::steer::sort) of IPv4, and mode `dr`.
    Steer4 = 0,
    /// Of IPv6.
    Steer6 = 1,
    /// [`fragment`](super::super::fragments::fragment) of IPv4.
    Fragment4 = 2,
    /// Of IPv6.
    Fragment6 = 3,
    /// [`icmp`](super::super::steer::icmp) of IPv4.
    Icmp4 = 4,
    /// Of IPv6.
    Icmp6 = 5,
    /// [`icmp_error`](super::super::steer::icmp_error) of IPv4.
    Error4 = 6,
    /// Of IPv6.
    Error6 = 7,
    /// Mode `tunnel`.
    Tunnel = 8,
    /// Mode `nat`.
    Translate = 9,
    /// Tells the client something.
    Answer = 10,
    /// Does what an owner without services does: for what goes up the stack while a handover runs.
    Local = 11,
    /// Full NAT, [`outward`](super::super::full_nat::step::outward) of IPv4.
    Outward4 = 12,
    /// Of IPv6.
    Outward6 = 13,
    /// [`inward`](super::super::full_nat::step::inward) of IPv4.
    Inward4 = 14,
    /// Of IPv6.
    Inward6 = 15,
    /// [`error_outward`](super::super::full_nat::step::error_outward) of IPv4.
    ErrorOutward4 = 16,
    /// Of IPv6.
    ErrorOutward6 = 17,
    /// [`error_inward`](super::super::full_nat::step::error_inward) of IPv4.
    ErrorInward4 = 18,
    /// Of IPv6.
    ErrorInward6 = 19,
    /// [`begin`](super::super::full_nat::step::begin) of IPv4.
    Begin4 = 20,
    /// Of IPv6.
    Begin6 = 21,
    /// [`begun`](super::super::full_nat::step::begun) of IPv4.
    Begun4 = 22,
    /// Of IPv6.
    Begun6 = 23,
    /// [`fresh`](super::super::full_nat::step::fresh) of IPv4.
    Fresh4 = 24,
    /// Of IPv6.
    Fresh6 = 25,
    /// Takes what came through a tunnel out of it ([`take_out`](super::super::tunnel_end::take_out)).
    Decapsulate = 26,
}

impl Step {
    /// All, in the order of `STEERING`.
    pub const ALL: [Self; 27] = [
        Self::Steer4,
        Self::Steer6,
        Self::Fragment4,
        Self::Fragment6,
        Self::Icmp4,
        Self::Icmp6,
        Self::Error4,
        Self::Error6,
        Self::Tunnel,
        Self::Translate,
        Self::Answer,
        Self::Local,
        Self::Outward4,
        Self::Outward6,
        Self::Inward4,
        Self::Inward6,
        Self::ErrorOutward4,
        Self::ErrorOutward6,
        Self::ErrorInward4,
        Self::ErrorInward6,
        Self::Begin4,
        Self::Begin6,
        Self::Begun4,
        Self::Begun6,
        Self::Fresh4,
        Self::Fresh6,
        Self::Decapsulate,
    ];

    /// Places of `STEERING`.
    pub const COUNT: u32 = 32;

    /// The name of its program, at most 15 characters.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Steer4 => "vip_steer4",
            Self::Steer6 => "vip_steer6",
            Self::Fragment4 => "vip_fragment4",
            Self::Fragment6 => "vip_fragment6",
            Self::Icmp4 => "vip_icmp4",
            Self::Icmp6 => "vip_icmp6",
            Self::Error4 => "vip_error4",
            Self::Error6 => "vip_error6",
            Self::Tunnel => "vip_tunnel",
            Self::Translate => "vip_translate",
            Self::Answer => "vip_answer",
            Self::Local => "vip_local",
            Self::Outward4 => "vip_outward4",
            Self::Outward6 => "vip_outward6",
            Self::Inward4 => "vip_inward4",
            Self::Inward6 => "vip_inward6",
            Self::ErrorOutward4 => "vip_error_out4",
            Self::ErrorOutward6 => "vip_error_out6",
            Self::ErrorInward4 => "vip_error_in4",
            Self::ErrorInward6 => "vip_error_in6",
            Self::Begin4 => "vip_begin4",
            Self::Begin6 => "vip_begin6",
            Self::Begun4 => "vip_begun4",
            Self::Begun6 => "vip_begun6",
            Self::Fresh4 => "vip_fresh4",
            Self::Fresh6 => "vip_fresh6",
            Self::Decapsulate => "vip_decapsulate",
        }
    }
}

/// What is to be done with a packet, as a number: the details stand in the [`Handoff`](super::Handoff).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Task {
    /// Up the stack.
    Pass = 0,
    /// Nobody sees it.
    Drop = 1,
    /// To [`Handoff::hop`](super::Handoff::hop).
    Direct = 2,
    /// [`Step::Answer`]
    Answer = 3,
    /// [`Step::Fragment4`], [`Step::Fragment6`]
    Fragment = 4,
    /// [`Step::Icmp4`], [`Step::Icmp6`]
    Icmp = 5,
    /// [`Step::Error4`], [`Step::Error6`]
    Error = 6,
    /// [`Handoff::way`](super::Handoff::way), by mode `dr`.
    Send = 7,
    /// [`Step::Translate`]
    Translate = 8,
    /// [`Step::Tunnel`]
    Tunnel = 9,
    /// [`Step::Outward4`], [`Step::Outward6`]
    Outward = 10,
    /// [`Step::Inward4`], [`Step::Inward6`]
    Inward = 11,
    /// [`Step::ErrorOutward4`], [`Step::ErrorOutward6`]
    ErrorOutward = 12,
    /// [`Step::ErrorInward4`], [`Step::ErrorInward6`]
    ErrorInward = 13,
    /// [`Step::Steer4`], [`Step::Steer6`] once more, with less to ask of full NAT.
    Again = 14,
    /// [`Step::Begin4`], [`Step::Begin6`]
    Begin = 15,
    /// [`Step::Begun4`], [`Step::Begun6`]
    Begun = 16,
    /// [`Step::Fresh4`], [`Step::Fresh6`]
    Fresh = 17,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_are_in_the_order_of_their_places() {
        assert!((0..).zip(Step::ALL).all(|(place, step): (u32, Step)| step as u32 == place));
        assert!(Step::ALL.into_iter().all(|step| step.program().len() <= 15));
        assert!(Step::ALL.len() <= Step::COUNT as usize);
    }
}
