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
fn actual(world: &World, frame: &[u8]) -> Expected {
    let (verdict, frame, decision) = world.run(frame);
    let mut counted: Vec<_> = decision.iter().map(|decision| decision.reason).collect();
    counted.extend(decision.and_then(|decision| decision.claim).map(|claim| claim.reason()));
    Expected { verdict, frame, counted: counted.into_iter().map(Reason::name).collect() }
}

fn world() -> impl Strategy<Value = World> {
    let worlds: [fn() -> World; 6] = [
        World::owning,
        || World::owning().without_forwarding(),
        World::not_owning,
        World::taking_over,
        // At the very instant at which ownership, or the handover, ends.
        || World { deadline: 5, now: 5, ..World::taking_over() },
        || {
            let mut world = World::taking_over();
            world.handover.until = world.now;
            world
        },
    ];
    select(worlds.to_vec()).prop_map(|world| world())
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
        if verdict != Verdict::Transmit {
            prop_assert_eq!(after, frame);
        }
    }

    #[test]
    fn a_backup_never_transmits(frame in strategies::frame()) {
        let (verdict, ..) = World::not_owning().run(&frame);
        prop_assert_ne!(verdict, Verdict::Transmit);
    }

    #[test]
    fn what_is_transmitted_is_readable_and_goes_to_one_station_or_all_nodes(frame in strategies::frame()) {
        let (verdict, after, _) = World::owning().run(&frame);
        if verdict == Verdict::Transmit {
            prop_assert_eq!(&after[6..12], &frames::OWN);
            prop_assert!(after[0] & 1 == 0 || after[..6] == frames::ALL_NODES_MAC);
            prop_assert!(LaxSlicedPacket::from_ethernet(&after)?.stop_err.is_none());
        }
    }
}
