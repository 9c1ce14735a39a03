//! What a flow of full NAT looks like on either side of this node, built from what was sent and not from its bytes.

use crate::packets::{Ends, Mac, OWN, Sent, icmp_error, is_sound};
use crate::world::Member;

pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const FIN: u8 = 0x11;
pub(crate) const RST: u8 = 0x04;

/// A frame as this node sends it on.
pub(crate) fn sent_on(to: Mac, sent: &Sent) -> Vec<u8> {
    [&to[..], &OWN, &sent.bytes()[12..]].concat()
}

/// The two ends as they are between this node and a backend, this node first.
pub(crate) fn inner(ends: Ends, member: Member) -> Ends {
    let backend = member.address(ends.family());
    match ends {
        Ends::V4(_, vip) => Ends::V4(vip, [backend[0], backend[1], backend[2], backend[3]]),
        Ends::V6(_, vip) => Ends::V6(vip, backend),
    }
}

/// A client's packet behind full NAT.
pub(crate) fn translated(sent: &Sent, member: Member, port: u16) -> Sent {
    Sent {
        ends: inner(sent.ends, member),
        ports: (port, sent.ports.1 + 1000),
        hops: sent.hops - 1,
        ..sent.clone()
    }
}

/// What a backend answers to that.
pub(crate) fn answer(sent: &Sent, member: Member, port: u16, flags: u8) -> Sent {
    Sent {
        ends: inner(sent.ends, member).reversed(),
        ports: (sent.ports.1 + 1000, port),
        flags,
        ..sent.clone()
    }
}

/// And what the client gets of it.
pub(crate) fn returned(sent: &Sent, flags: u8) -> Sent {
    let ports = (sent.ports.1, sent.ports.0);
    Sent { ends: sent.ends.reversed(), ports, hops: sent.hops - 1, flags, ..sent.clone() }
}

/// A client's segment to port 8001, from a port that full NAT may use as well.
pub(crate) fn segment(flags: u8) -> Sent {
    Sent { ports: (25_000, 8001), flags, ..Sent::tcp4() }
}

/// An error by a router, as this node sends it on: both addresses of the message are translated.
pub(crate) fn error_on(to: Mac, ends: Ends, about: &Sent, quote: usize) -> Vec<u8> {
    let mut frame = icmp_error(about, quote);
    let network = 14;
    match ends {
        Ends::V4(from, receiver) => {
            frame[network + 8] -= 1;
            frame[network + 12..network + 16].copy_from_slice(&from);
            frame[network + 16..network + 20].copy_from_slice(&receiver);
            crate::packets::fix_ipv4(&mut frame[network..]);
        }
        Ends::V6(from, receiver) => {
            frame[network + 7] -= 1;
            frame[network + 8..network + 24].copy_from_slice(&from);
            frame[network + 24..network + 40].copy_from_slice(&receiver);
        }
    }
    [&to[..], &OWN, &frame[12..]].concat()
}

/// ICMPv6 covers the addresses, so the message is only compared where the checksum is not.
pub(crate) fn assert_alike(after: &[u8], expected: &[u8], ends: Ends) {
    assert!(is_sound(after), "{after:x?}");
    let checksum = match ends {
        Ends::V4(..) => 14 + 22,
        Ends::V6(..) => 14 + 42,
    };
    assert_eq!(after[..checksum], expected[..checksum]);
    assert_eq!(after[checksum + 2..], expected[checksum + 2..]);
}
