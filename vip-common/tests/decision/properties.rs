//! What holds for every frame.

use etherparse::{ArpOperation, Icmpv6Type, LaxSlicedPacket, NetSlice, SlicedPacket, TransportSlice};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use vip_common::reason::Reason;
use vip_common::rewrite::Verdict;

use crate::common::frames::{self, Arp, Nd};
use crate::common::strategies;
use crate::common::world::World;
use crate::reference::{Expected, expected};

/// What the decision and the rewriting make of a frame.
pub(crate) fn actual(world: &World, frame: &[u8]) -> Expected {
    let (verdict, frame, counted) = world.run(frame);
    Expected { verdict, frame, counted: counted.into_iter().map(Reason::name).collect() }
}

/// All states of the maps that matter.
pub(crate) fn worlds() -> impl Iterator<Item = World> {
    WORLDS.iter().map(|world| world())
}

const WORLDS: [fn() -> World; 14] = [
    World::owning,
    || World::owning().without_forwarding(),
    World::not_owning,
    World::taking_over,
    || World::owning().with_virtual_macs(),
    || World::not_owning().with_virtual_macs(),
    || World::taking_over().with_virtual_macs(),
    || World::not_owning().with_virtual_macs().in_transit(),
    // The advert of a takeover is out, and the word not stored yet.
    || World { deadline: 0, ..World::taking_over() }.in_transit(),
    || World { deadline: 0, ..World::taking_over() }.with_virtual_macs().in_transit(),
    || World::taking_over().without_accepting(),
    || World::not_owning().without_accepting().with_virtual_macs(),
    // At the very instant at which ownership, or the handover, ends.
    || World { deadline: 5, now: 5, ..World::taking_over() },
    || {
        let mut world = World::taking_over();
        world.handover.until = world.now;
        world
    },
];

fn world() -> impl Strategy<Value = World> {
    select(WORLDS.to_vec()).prop_map(|world| world())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn the_decision_is_the_models(world in world(), frame in strategies::frame()) {
        prop_assert_eq!(actual(&world, &frame), expected(&world, &frame));
    }

    #[test]
    fn it_is_the_models_while_flows_come_and_go(frames in vec(strategies::tcp(), 1..20)) {
        let world = World::taking_over();
        for frame in frames {
            let expected = expected(&world, &frame);
            prop_assert_eq!(actual(&world, &frame), expected);
        }
    }

    #[test]
    fn no_bytes_whatever_make_it_panic(world in world(), frame in vec(any::<u8>(), 0..200)) {
        world.run(&frame);
    }

    #[test]
    fn a_reply_is_what_an_independent_reader_expects(asker in any::<[u8; 4]>()) {
        let question = Arp { sender: asker, ..Arp::question() }.bytes();
        prop_assume!(asker != frames::VIP4);
        let (_, reply, _) = World::owning().run(&question);
        let packet = SlicedPacket::from_ethernet(&reply)?;
        let Some(NetSlice::Arp(arp)) = packet.net else { panic!("no ARP in {reply:?}") };
        prop_assert_eq!(arp.operation(), ArpOperation::REPLY);
        prop_assert_eq!(arp.sender_hw_addr(), frames::OWN);
        prop_assert_eq!(arp.sender_protocol_addr(), frames::VIP4);
        prop_assert_eq!(arp.target_hw_addr(), frames::CLIENT);
        prop_assert_eq!(arp.target_protocol_addr(), asker);
    }

    #[test]
    fn an_advertisement_has_the_checksum_that_an_independent_reader_expects(
        asker in any::<[u8; 15]>(), mac in any::<[u8; 6]>()
    ) {
        let mut source = frames::CLIENT6;
        source[1..].copy_from_slice(&asker);
        let mac = [mac[0] & 0xfe, mac[1], mac[2], mac[3], mac[4], mac[5]];
        prop_assume!(mac != [0; 6] && mac != frames::OWN && source != frames::VIP6);
        let question = Nd { source, options: frames::link_layer(1, mac), ..Nd::question() }.bytes();
        let (verdict, advertisement, _) = World::owning().run(&question);
        prop_assert_eq!(verdict, Verdict::Transmit);
        let packet = SlicedPacket::from_ethernet(&advertisement)?;
        let Some(NetSlice::Ipv6(ip)) = packet.net else { panic!("no IPv6") };
        let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else { panic!("no ICMPv6") };
        prop_assert_eq!(ip.header().destination(), source);
        prop_assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
        prop_assert!(matches!(icmp.icmp_type(), Icmpv6Type::NeighborAdvertisement(header)
            if header.router && header.solicited && header.r#override));
    }

    #[test]
    fn what_is_passed_or_dropped_is_not_touched(world in world(), frame in strategies::frame()) {
        let (verdict, after, _) = world.run(&frame);
        let to_a_virtual_mac = [frames::VIRTUAL4, frames::VIRTUAL6].iter().any(|mac| frame.starts_with(mac));
        if verdict != Verdict::Transmit && to_a_virtual_mac && after != frame {
            prop_assert_eq!(&after[..6], &frames::OWN);
            prop_assert_eq!(&after[6..], &frame[6..]);
        } else if verdict != Verdict::Transmit {
            prop_assert_eq!(after, frame);
        }
    }

    #[test]
    fn what_is_sent_to_a_virtual_mac_is_only_the_owners(frame in strategies::frame(), six in any::<bool>()) {
        let mut frame = frame;
        frame[..6].copy_from_slice(if six { &frames::VIRTUAL6 } else { &frames::VIRTUAL4 });
        let (verdict, after, counted) = World::not_owning().with_virtual_macs().run(&frame);
        // What passes keeps its destination, which the kernel knows for none of its own.
        prop_assert_ne!(verdict, Verdict::Transmit);
        prop_assert_eq!(after, frame.clone());
        prop_assert!(verdict == Verdict::Drop || counted.is_empty());
        let (verdict, after, _) = World::owning().with_virtual_macs().run(&frame);
        prop_assert!(verdict != Verdict::Pass || after[..6] == frames::OWN || after == frame);
    }

    #[test]
    fn what_is_not_accepted_is_answered_for_all_the_same(frame in prop_oneof![strategies::arp(), strategies::nd()]) {
        let (owning, refusing) = (World::owning(), World::owning().without_accepting());
        let (verdict, after, _) = owning.run(&frame);
        if verdict == Verdict::Transmit {
            prop_assert_eq!(refusing.run(&frame).1, after);
        }
    }

    #[test]
    fn a_backup_never_transmits(frame in strategies::frame()) {
        let (verdict, ..) = World::not_owning().run(&frame);
        prop_assert_ne!(verdict, Verdict::Transmit);
    }

    #[test]
    fn what_is_transmitted_is_readable_and_goes_to_one_station_or_all_nodes(
        frame in strategies::frame(), virtual_macs in any::<bool>()
    ) {
        let world = if virtual_macs { World::owning().with_virtual_macs() } else { World::owning() };
        let (verdict, after, _) = world.run(&frame);
        if verdict == Verdict::Transmit {
            let from: frames::Mac = after[6..12].try_into()?;
            let answering = if virtual_macs { vec![frames::VIRTUAL4, frames::VIRTUAL6] } else { vec![frames::OWN] };
            prop_assert!(answering.contains(&from), "{from:x?}");
            prop_assert!(after[0] & 1 == 0 || after[..6] == frames::ALL_NODES_MAC);
            prop_assert!(LaxSlicedPacket::from_ethernet(&after)?.stop_err.is_none());
        }
    }
}
