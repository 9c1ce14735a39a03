//! Echo replies, resets and ICMP errors.

use etherparse::{Icmpv4Slice, Icmpv6Slice, NetSlice, SlicedPacket, TcpSlice, TransportSlice};
use proptest::prelude::*;
use vip_common::packet::ethernet::Mac as EthernetMac;
use vip_common::steering::answer::{Error, QUOTE, echo, error, reset};

use crate::packets::{
    CLIENT, ENDS4, ENDS6, Ends, Kind, OWN, Sent, icmp_error, is_sound, read, sent, with_room,
};

const US: EthernetMac = EthernetMac::new(OWN);

fn echoed(frame: &[u8]) -> Option<Vec<u8>> {
    let packet = read(frame)?;
    let (done, after) = with_room(frame, |frame| echo(frame, &packet, US));
    done.map(|()| after)
}

fn reset_by(frame: &[u8]) -> Option<Vec<u8>> {
    let packet = read(frame)?;
    let (done, after) = with_room(frame, |frame| reset(frame, &packet, US));
    done.map(|()| after)
}

fn refused(frame: &[u8], what: Error) -> Option<Vec<u8>> {
    let packet = read(frame)?;
    let (done, after) = with_room(frame, |frame| error(frame, &packet, what, US));
    done.map(|()| after)
}

/// The answer goes back, from us: tags as they were.
fn goes_back(answer: &[u8], sent: &Sent) {
    assert_eq!(answer[..6], CLIENT);
    assert_eq!(answer[6..12], OWN);
    assert_eq!(answer[12..12 + 4 * sent.tags.len()], sent.tags.concat());
    let packet = SlicedPacket::from_ethernet(answer).expect("readable");
    match (packet.net, sent.ends) {
        (Some(NetSlice::Ipv4(ip)), Ends::V4(client, vip)) => {
            assert_eq!((ip.header().source(), ip.header().destination()), (vip, client));
            assert_eq!(ip.header().ttl(), 64);
        }
        (Some(NetSlice::Ipv6(ip)), Ends::V6(client, vip)) => {
            assert_eq!((ip.header().source(), ip.header().destination()), (vip, client));
            assert_eq!(ip.header().hop_limit(), 64);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_echo_request_becomes_its_reply() {
    for ends in [ENDS4, ENDS6] {
        let sent = Sent { hops: 3, tags: vec![[0x81, 0, 0, 100]], ..Sent::new(ends, Kind::Echo) };
        let frame = sent.bytes();
        let reply = echoed(&frame).expect("it is one");
        goes_back(&reply, &sent);
        assert!(is_sound(&reply));
        let at = if matches!(ends, Ends::V4(..)) { 38 } else { 58 };
        assert_eq!(reply[at], if matches!(ends, Ends::V4(..)) { 0 } else { 129 });
        assert_eq!(reply[at + 4..], frame[at + 4..], "identifier, sequence number and data");
    }
}

#[test]
fn what_is_no_echo_request_of_one_host_is_not_echoed() {
    let mut group = Sent::new(ENDS4, Kind::Echo).bytes();
    group[..6].copy_from_slice(&[0xff; 6]);
    let mut fragment = Sent::new(ENDS4, Kind::Echo).bytes();
    fragment[20] = 0x20;
    let mut code = Sent::new(ENDS6, Kind::Echo).bytes();
    code[55] = 1;
    let from = |client| Sent::new(Ends::V4(client, [10, 0, 0, 50]), Kind::Echo).bytes();
    let frames = [
        Sent::tcp4().bytes(),
        Sent::tcp6().bytes(),
        icmp_error(&Sent::tcp4(), 8),
        group,
        fragment,
        code,
        echoed(&Sent::new(ENDS4, Kind::Echo).bytes()).expect("it is one"),
        from([0; 4]),
        from([127, 0, 0, 1]),
        from([224, 0, 0, 1]),
        from([255; 4]),
        Sent::new(Ends::V6([0; 16], [0xfd; 16]), Kind::Echo).bytes(),
        Sent::new(Ends::V6([0xff; 16], [0xfd; 16]), Kind::Echo).bytes(),
    ];
    for frame in frames {
        assert_eq!(echoed(&frame), None, "{frame:02x?}");
    }
}

fn segment(answer: &[u8]) -> TcpSlice<'_> {
    match SlicedPacket::from_ethernet(answer).expect("readable").transport {
        Some(TransportSlice::Tcp(tcp)) => tcp,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_segment_that_acknowledges_is_reset_at_what_it_acknowledges() {
    for sent in [Sent::tcp4(), Sent::tcp6()] {
        let answer = reset_by(&sent.bytes()).expect("it can be reset");
        goes_back(&answer, &sent);
        assert!(is_sound(&answer));
        let tcp = segment(&answer);
        assert_eq!((tcp.source_port(), tcp.destination_port()), (80, 40_000));
        assert_eq!((tcp.rst(), tcp.ack(), tcp.syn(), tcp.sequence_number()), (true, false, false, 7_000));
        assert_eq!(tcp.data_offset(), 5);
    }
}

#[test]
fn a_segment_that_does_not_is_reset_with_an_acknowledgment_of_all_of_it() {
    for (flags, length) in [(0x02, 12), (0x01, 12), (0x03, 13), (0x00, 11)] {
        let sent = Sent { flags, ..Sent::tcp4() };
        let answer = reset_by(&sent.bytes()).expect("it can be reset");
        assert!(is_sound(&answer));
        let tcp = segment(&answer);
        assert_eq!((tcp.rst(), tcp.ack(), tcp.sequence_number()), (true, true, 0));
        assert_eq!(tcp.acknowledgment_number(), 1_000 + length, "flags {flags:x}");
    }
}

#[test]
fn what_must_not_be_reset_is_not() {
    let mut group = Sent::tcp4().bytes();
    group[..6].copy_from_slice(&[0xff; 6]);
    let mut fragment = Sent::tcp4().bytes();
    fragment[20] = 0x20;
    let mut header = Sent::tcp4().bytes();
    header[34 + 12] = 0xf0;
    let reset = Sent { flags: 0x14, ..Sent::tcp4() }.bytes();
    let udp = Sent::new(ENDS4, Kind::Udp).bytes();
    for frame in [group, fragment, header, reset, udp, Sent::new(ENDS6, Kind::Echo).bytes()] {
        assert_eq!(reset_by(&frame), None, "{frame:02x?}");
    }
}

#[test]
fn errors_have_the_types_of_their_family() {
    for (what, four, six) in [
        (Error::PortUnreachable, [3, 3, 0, 0, 0, 0], [1, 4, 0, 0, 0, 0]),
        (Error::Prohibited, [3, 13, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0]),
        (Error::TimeExceeded, [11, 0, 0, 0, 0, 0], [3, 0, 0, 0, 0, 0]),
        (Error::TooBig(1480), [3, 4, 0, 0, 5, 0xc8], [2, 0, 0, 0, 5, 0xc8]),
    ] {
        for (ends, expected) in [(ENDS4, four), (ENDS6, six)] {
            let sent = Sent::new(ends, Kind::Udp);
            let answer = refused(&sent.bytes(), what).expect("it can have an error");
            goes_back(&answer, &sent);
            assert!(is_sound(&answer));
            let (start, quoted) = message(&answer);
            assert_eq!(start, expected, "{what:?}");
            let whole = sent.packet();
            assert_eq!(quoted, whole[..whole.len() & !3]);
        }
    }
}

/// Type, code and rest of an ICMP error; what it quotes.
fn message(answer: &[u8]) -> ([u8; 6], Vec<u8>) {
    let packet = SlicedPacket::from_ethernet(answer).expect("readable");
    let bytes = match packet.transport {
        Some(TransportSlice::Icmpv4(icmp)) => Icmpv4Slice::slice(&icmp).to_vec(),
        Some(TransportSlice::Icmpv6(icmp)) => Icmpv6Slice::slice(&icmp).to_vec(),
        other => panic!("{other:?}"),
    };
    let [kind, code, _, _, a, b, c, d, ref quoted @ ..] = bytes[..] else { panic!("too short") };
    ([kind, code, a, b, c, d], quoted.to_vec())
}

#[test]
fn a_long_packet_is_quoted_by_its_beginning() {
    for ends in [ENDS4, ENDS6] {
        let sent =
            Sent { payload: vec![7; 1400], tags: vec![[0x81, 0, 0, 100]], ..Sent::new(ends, Kind::Tcp) };
        let answer = refused(&sent.bytes(), Error::TooBig(1400)).expect("it can have an error");
        goes_back(&answer, &sent);
        assert!(is_sound(&answer));
        assert_eq!(message(&answer).1, sent.packet()[..QUOTE]);
    }
}

#[test]
fn the_shortest_packets_are_quoted_too() {
    for ends in [ENDS4, ENDS6] {
        let sent = Sent { payload: Vec::new(), ..Sent::new(ends, Kind::Udp) };
        let mut frame = sent.bytes();
        frame.resize(64, 0xee);
        let answer = refused(&frame, Error::PortUnreachable).expect("it can have an error");
        assert!(is_sound(&answer));
        assert_eq!(message(&answer).1, sent.packet(), "and no padding");
    }
}

#[test]
fn nothing_is_said_about_what_must_have_no_error() {
    let mut group = Sent::tcp4().bytes();
    group[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0, 1]);
    let mut later = Sent::tcp4().bytes();
    later[21] = 1;
    let mut short = Sent::new(ENDS4, Kind::Udp).bytes();
    short[17] = 27;
    let frames = [
        group,
        later,
        short,
        icmp_error(&Sent::tcp4(), 8),
        icmp_error(&Sent::tcp6(), 8),
        Sent::new(Ends::V4([255; 4], [10, 0, 0, 50]), Kind::Udp).bytes(),
        Sent::new(Ends::V6([0; 16], [0xfd; 16]), Kind::Udp).bytes(),
    ];
    for frame in frames {
        assert_eq!(refused(&frame, Error::PortUnreachable), None, "{frame:02x?}");
    }
}

proptest! {
    #[test]
    fn every_answer_is_sound_and_goes_back(sent in sent(), payload in 0..1500_usize, mtu in any::<u16>()) {
        let sent = Sent { payload: vec![0x5a; payload], ..sent };
        let frame = sent.bytes();
        for what in [Error::PortUnreachable, Error::TooBig(mtu)] {
            let answer = refused(&frame, what).expect("all of these may have an error");
            goes_back(&answer, &sent);
            prop_assert!(is_sound(&answer));
            let quoted = message(&answer).1;
            prop_assert!(quoted.len() >= 28 && sent.packet().starts_with(&quoted));
        }
        let answer = reset_by(&frame);
        prop_assert_eq!(answer.is_some(), sent.kind == Kind::Tcp && sent.flags & 4 == 0);
        if let Some(answer) = answer {
            goes_back(&answer, &sent);
            prop_assert!(is_sound(&answer));
        }
        let answer = echoed(&frame);
        prop_assert_eq!(answer.is_some(), sent.kind == Kind::Echo);
        if let Some(answer) = answer {
            goes_back(&answer, &sent);
            prop_assert!(is_sound(&answer));
        }
    }

    #[test]
    fn a_damaged_echo_comes_back_damaged(at in any::<prop::sample::Index>(), flip in 1..=255_u8, six in any::<bool>()) {
        let sent = Sent::new(if six { ENDS6 } else { ENDS4 }, Kind::Echo);
        let mut frame = sent.bytes();
        let from = if six { 56 } else { 36 };
        let at = from + at.index(frame.len() - from);
        frame[at] ^= flip;
        prop_assume!(!is_sound(&frame));
        prop_assert!(!is_sound(&echoed(&frame).expect("an echo request all the same")));
    }

    #[test]
    fn no_bytes_whatever_make_an_answer_panic(frame in prop::collection::vec(any::<u8>(), 14..200), six in any::<bool>()) {
        let mut frame = frame;
        frame[12..14].copy_from_slice(if six { &[0x86, 0xdd] } else { &[0x08, 0] });
        if let Some(first) = frame.get_mut(14) {
            *first = if six { 0x60 } else { 0x45 };
        }
        echoed(&frame);
        reset_by(&frame);
        refused(&frame, Error::TimeExceeded);
    }
}
