//! Full NAT in the kernel: both legs byte for byte as another library builds them, by its own routes; and who gets none of it.

use anyhow::{Context as _, Result};
use vip_common::rewrite::Verdict;
use vip_common::steering::full_nat::ports::Ports;
use vip_common::steering::full_nat::tables::{NatKey, NatReturn};
use vip_common::steering::reason::Outcome;
use vip_common::steering::steer::FullNat;
use vip_common::steering::tables::{FlowState, Gate, MAX_SERVICES};

use crate::edge::{EDGE, enter, forward, ip};
use crate::kernel::{Kernel, Run};
use crate::legs::{
    ACK, RST, SYN, answer, assert_alike, error_on, inner, returned, segment, sent_on, translated,
};
use crate::model::Input;
use crate::packets::{ENDS4, ENDS6, Ends, Kind, Mac, OWN, Sent, icmp_error, is_sound};
use crate::world::{GATEWAY, Member, Plan, World};

/// Of one service with one backend, on another node.
struct Edge {
    kernel: Kernel,
    member: Member,
}

fn world(ends: Ends) -> World {
    World::of(&[Plan { backends: vec![Member::new(1)], ..Plan::full_nat(ends) }])
}

impl Edge {
    fn of(world: &World) -> Result<Self> {
        enter()?;
        Ok(Self { kernel: Kernel::on(EDGE, world)?, member: Member::new(1) })
    }

    fn run(&self, sent: &Sent) -> Result<Run> {
        self.kernel.run(&sent.bytes())
    }

    /// A connection that both ends have spoken on.
    fn establish(&self, sent: &Sent) -> Result<()> {
        for (flags, back) in [(SYN, false), (SYN | ACK, true), (ACK, false)] {
            let to_backend = Sent { flags, ..sent.clone() };
            let sent = if back { answer(sent, self.member, sent.ports.0, flags) } else { to_backend };
            assert_eq!(self.run(&sent)?.verdict, Verdict::Transmit);
        }
        Ok(())
    }

    /// How many entries there are of either kind.
    fn entries(&self) -> Result<(usize, usize)> {
        Ok((self.kernel.nat_flows()?.len(), self.kernel.nat_returns()?.len()))
    }

    fn only_return(&self) -> Result<([u8; 40], NatReturn)> {
        self.kernel.nat_returns()?.into_iter().next().context("no way back")
    }

    /// Makes the clock of the way back's entry older, by seconds.
    fn age_return(&self, seconds: u64) -> Result<()> {
        let (key, back) = self.only_return()?;
        self.kernel.put_nat_return(key, NatReturn { seen: back.seen - seconds * 1_000_000_000, ..back })
    }
}

#[track_caller]
fn assert_sent(run: &Run, to: Mac, expected: &Sent, outcome: Outcome) {
    let frame = sent_on(to, expected);
    assert_eq!(run.frame, frame, "{run:02x?}");
    assert_eq!((run.verdict, &run.counted), (Verdict::Transmit, &vec![(0, outcome as usize)]));
    assert!(is_sound(&run.frame));
}

#[track_caller]
fn assert_dropped(run: &Run, outcome: Outcome) {
    assert_eq!((run.verdict, &run.counted), (Verdict::Drop, &vec![(0, outcome as usize)]), "{run:02x?}");
    assert!(run.backends.is_empty());
}

#[test]
fn both_legs_are_what_would_have_been_built_for_them() -> Result<()> {
    for ends in [ENDS4, ENDS6] {
        let edge = Edge::of(&world(ends))?;
        for (number, kind) in [(0, Kind::Tcp), (1, Kind::Udp)] {
            for (tagged, tags) in [(0, vec![]), (1, vec![[0x81, 0, 0x60, 100]])] {
                let port = 25_000 + 2 * number + tagged;
                let sent = Sent { ports: (port, 8001), flags: SYN, tags, ..Sent::new(ends, kind) };
                let there = edge.run(&sent)?;
                let expected = translated(&sent, edge.member, port);
                assert_sent(&there, edge.member.mac(), &expected, Outcome::NewFlow);
                assert_eq!(there.backends, [1]);
                let back = edge.run(&answer(&sent, edge.member, port, SYN | ACK))?;
                assert_sent(&back, GATEWAY, &returned(&sent, SYN | ACK), Outcome::Returned);
                let again = edge.run(&Sent { flags: ACK, ..sent.clone() })?;
                let expected = Sent { flags: ACK, ..expected };
                assert_sent(&again, edge.member.mac(), &expected, Outcome::Steered);
            }
        }
        assert_eq!(edge.entries()?, (4, 4));
    }
    Ok(())
}

#[test]
fn what_belongs_to_no_flow_passes_as_it_came() -> Result<()> {
    let edge = Edge::of(&world(ENDS4))?;
    edge.run(&segment(SYN))?;
    let passed = |frame: Vec<u8>| Run {
        verdict: Verdict::Pass,
        frame,
        counted: vec![(MAX_SERVICES, Outcome::Passed as usize)],
        backends: Vec::new(),
    };
    let member = edge.member;
    let right = answer(&segment(SYN), member, 25_000, ACK);
    let strays = [
        Sent { ports: (9001, 25_001), ..right.clone() },
        Sent { ports: (9002, 25_000), ..right.clone() },
        Sent { ends: inner(ENDS4, Member::new(2)).reversed(), ..right.clone() },
        Sent { kind: Kind::Udp, ..right.clone() },
        // No port of full NAT.
        Sent { ports: (9001, 19_999), ..right.clone() },
    ];
    for stray in strays {
        assert_eq!(edge.run(&stray)?, passed(stray.bytes()), "{stray:?}");
    }
    assert_sent(&edge.run(&right)?, GATEWAY, &returned(&segment(ACK), ACK), Outcome::Returned);
    Ok(())
}

#[test]
fn without_the_flag_of_the_vip_nothing_goes_to_other_nodes() -> Result<()> {
    let edge = Edge::of(&World { full_nat: FullNat::Nothing, ..world(ENDS4) })?;
    assert_dropped(&edge.run(&segment(SYN))?, Outcome::Closed);
    assert_eq!(edge.entries()?, (0, 0));
    Ok(())
}

#[test]
fn a_port_by_chance_is_one_of_those_that_are_allowed_and_two_flows_never_share_one() -> Result<()> {
    let mut world = world(ENDS4);
    world.nat.ports = Ports::new(20_000..=20_039, &[20_010..=20_019]);
    let edge = Edge::of(&world)?;
    for number in 0..20 {
        let sent = Sent { ports: (40_000 + number, 8001), ..segment(SYN) };
        let run = edge.run(&sent)?;
        let port = u16::from_be_bytes([run.frame[34], run.frame[35]]);
        assert_sent(&run, edge.member.mac(), &translated(&sent, edge.member, port), Outcome::NewFlow);
        assert!(world.nat.ports.contains(port), "{port}");
        let back = edge.run(&answer(&sent, edge.member, port, SYN | ACK))?;
        assert_sent(&back, GATEWAY, &returned(&sent, SYN | ACK), Outcome::Returned);
    }
    assert_eq!(edge.entries()?, (20, 20));
    Ok(())
}

#[test]
fn when_all_ports_are_in_use_new_flows_are_dropped_and_counted_and_the_others_live() -> Result<()> {
    let mut world = world(ENDS6);
    world.nat.ports = Ports::new(20_000..=20_009, &[]);
    let edge = Edge::of(&world)?;
    let sent = |number: u16| Sent { ends: ENDS6, ports: (20_000 + number, 8001), ..segment(SYN) };
    for number in 0..10 {
        edge.establish(&sent(number))?;
    }
    assert_dropped(&edge.run(&sent(10))?, Outcome::NoPort);
    assert_eq!(edge.entries()?, (10, 10));
    for number in 0..10 {
        let run = edge.run(&Sent { flags: ACK, ..sent(number) })?;
        assert_eq!(run.counted, [(0, Outcome::Steered as usize)]);
    }
    // Another port of the backend has all of them once more.
    assert_eq!(edge.run(&Sent { ports: (20_000, 8002), ..sent(0) })?.verdict, Verdict::Transmit);
    Ok(())
}

#[test]
fn without_ports_or_admission_nothing_begins_and_nothing_is_left_behind() -> Result<()> {
    let mut without = world(ENDS4);
    without.nat.ports = Ports::NONE;
    let edge = Edge::of(&without)?;
    assert_dropped(&edge.run(&segment(SYN))?, Outcome::NoPort);
    let edge = Edge::of(&world(ENDS4))?;
    assert_dropped(&edge.run(&segment(RST))?, Outcome::Unmapped);
    edge.kernel.set_gate("NEW_FLOWS", Gate { since: u64::MAX / 2, count: u64::MAX / 2 })?;
    assert_dropped(&edge.run(&segment(SYN))?, Outcome::Unmapped);
    assert_eq!(edge.entries()?, (0, 0));
    Ok(())
}

#[test]
fn the_life_of_a_connection_is_noted_in_both_entries() -> Result<()> {
    let edge = Edge::of(&world(ENDS4))?;
    let states = || -> Result<_> {
        let flow = edge.kernel.nat_flows()?.into_values().next().context("no flow")?;
        Ok((FlowState::of(flow.state), FlowState::of(edge.only_return()?.1.state)))
    };
    edge.run(&segment(SYN))?;
    assert_eq!(states()?, (FlowState::Opening, FlowState::Opening));
    edge.run(&answer(&segment(SYN), edge.member, 25_000, SYN | ACK))?;
    assert_eq!(states()?, (FlowState::Opening, FlowState::Established));
    edge.run(&segment(ACK))?;
    assert_eq!(states()?, (FlowState::Established, FlowState::Established));
    edge.run(&answer(&segment(ACK), edge.member, 25_000, ACK | 1))?;
    edge.run(&segment(ACK | 1))?;
    assert_eq!(states()?, (FlowState::Closing, FlowState::Closing));
    edge.run(&segment(SYN))?;
    assert_eq!(states()?, (FlowState::Opening, FlowState::Opening));
    Ok(())
}

#[test]
fn a_port_that_another_flow_has_taken_meanwhile_is_given_up_for_another() -> Result<()> {
    let edge = Edge::of(&world(ENDS4))?;
    edge.establish(&segment(ACK))?;
    let (key, mut back) = edge.only_return()?;
    back.client.client_port = 7_u16.to_be_bytes();
    edge.kernel.put_nat_return(key, back)?;
    let run = edge.run(&segment(SYN))?;
    let port = u16::from_be_bytes([run.frame[34], run.frame[35]]);
    assert_ne!(port, 25_000);
    assert_sent(&run, edge.member.mac(), &translated(&segment(SYN), edge.member, port), Outcome::NewFlow);
    let back = edge.run(&answer(&segment(SYN), edge.member, port, ACK))?;
    assert_sent(&back, GATEWAY, &returned(&segment(SYN), ACK), Outcome::Returned);
    Ok(())
}

#[test]
fn errors_go_to_the_end_that_sent_what_they_quote_and_others_up_the_stack() -> Result<()> {
    for ends in [ENDS4, ENDS6] {
        for quote in [8, 28] {
            let edge = Edge::of(&world(ends))?;
            let (sent, member) = (Sent { ends, ..segment(SYN) }, edge.member);
            let from_service = Sent { hops: 64, ..returned(&sent, ACK) };
            let to_backend = Sent { hops: 64, ..translated(&sent, member, 25_000) };
            for about in [&from_service, &to_backend] {
                let frame = icmp_error(about, quote);
                let run = edge.kernel.run(&frame)?;
                assert_eq!((run.verdict, run.frame), (Verdict::Pass, frame), "of no flow");
            }
            assert_eq!(edge.entries()?, (0, 0));
            edge.run(&sent)?;
            let told = edge.kernel.run(&icmp_error(&from_service, quote))?;
            let quoted = answer(&sent, member, 25_000, ACK);
            assert_alike(&told.frame, &error_on(member.mac(), inner(ends, member), &quoted, quote), ends);
            assert_eq!((told.verdict, told.backends), (Verdict::Transmit, vec![1]));
            assert_eq!(told.counted, [(0, Outcome::ErrorSteered as usize)]);
            let told = edge.kernel.run(&icmp_error(&to_backend, quote))?;
            assert_alike(&told.frame, &error_on(GATEWAY, ends.reversed(), &sent, quote), ends);
            assert_eq!((told.verdict, told.backends), (Verdict::Transmit, vec![]));
            assert_eq!(told.counted, [(0, Outcome::ErrorSteered as usize)]);
        }
    }
    Ok(())
}

#[test]
fn all_fragments_go_the_way_of_the_first_in_either_direction() -> Result<()> {
    let edge = Edge::of(&world(ENDS4))?;
    let member = edge.member;
    let sent = Sent { ports: (25_000, 8001), ..Sent::new(ENDS4, Kind::Udp) };
    let back = answer(&sent, member, 25_000, 0);
    let table = [
        (sent.clone(), member.mac(), translated(&sent, member, 25_000), Outcome::NewFlow),
        (back, GATEWAY, returned(&sent, 0), Outcome::Returned),
    ];
    for (sent, to, expected, outcome) in table {
        let unknown = edge.kernel.run(&Input::Later(sent.clone(), 9).bytes())?;
        assert_eq!(
            (unknown.verdict, unknown.counted[0].1),
            (Verdict::Drop, Outcome::FragmentUnknown as usize)
        );
        let run = edge.kernel.run(&Input::First(sent.clone(), 7).bytes())?;
        let first = Input::First(expected.clone(), 7).bytes();
        assert_eq!((run.verdict, run.counted[0].1), (Verdict::Transmit, outcome as usize));
        assert_eq!(run.frame, [&to[..], &OWN, &first[12..]].concat());
        // Behind the IP header a later one has neither ports nor a checksum: it stays.
        let later = Input::Later(sent.clone(), 7).bytes();
        let header = Input::Later(expected, 7).bytes();
        let run = edge.kernel.run(&later)?;
        assert_eq!((run.verdict, run.counted[0].1), (Verdict::Transmit, Outcome::FragmentSteered as usize));
        assert_eq!(run.frame, [&to[..], &OWN, &header[12..34], &later[34..]].concat());
    }
    Ok(())
}

#[test]
fn what_does_not_fit_or_has_no_hop_left_is_told_in_either_direction() -> Result<()> {
    let mut plan = Plan { backends: vec![Member::new(1)], ..Plan::full_nat(ENDS6) };
    plan.backends[0].mtu = 1400;
    let edge = Edge::of(&World::of(&[plan]))?;
    ip("link set edge mtu 1300")?;
    let sent = |length: usize| Sent { ends: ENDS6, payload: vec![1; length - 60], ..segment(ACK) };
    let told = |run: Run, outcome: Outcome| {
        assert_eq!((run.verdict, &run.counted), (Verdict::Transmit, &vec![(0, outcome as usize)]));
        assert!(is_sound(&run.frame));
        [run.frame[14 + 46], run.frame[14 + 47]]
    };
    assert_eq!(edge.run(&sent(1400))?.counted, [(0, Outcome::NewFlow as usize)]);
    assert_eq!(told(edge.run(&sent(1401))?, Outcome::TooBig), 1400_u16.to_be_bytes());
    let back = |length| edge.run(&answer(&sent(length), edge.member, 25_000, ACK));
    assert_eq!(back(1300)?.counted, [(0, Outcome::Returned as usize)]);
    assert_eq!(told(back(1301)?, Outcome::TooBig), 1300_u16.to_be_bytes());
    told(edge.run(&Sent { hops: 1, ..sent(100) })?, Outcome::Expired);
    told(edge.run(&Sent { hops: 1, ..answer(&sent(100), edge.member, 25_000, ACK) })?, Outcome::Expired);
    Ok(())
}

#[test]
fn the_way_to_the_client_is_the_kernels_and_asked_for_once_a_second() -> Result<()> {
    let edge = Edge::of(&world(ENDS4))?;
    edge.establish(&segment(ACK))?;
    let back = || edge.run(&answer(&segment(ACK), edge.member, 25_000, ACK));
    ip("neighbour replace 10.0.0.254 lladdr 02:00:00:00:00:77 dev edge nud permanent")?;
    assert_eq!(back()?.frame[..6], GATEWAY);
    edge.age_return(1)?;
    assert_eq!(back()?.frame[..6], [2, 0, 0, 0, 0, 0x77]);
    // A next hop that has to be asked again is still there; without a route there is no way.
    ip("neighbour del 10.0.0.254 dev edge")?;
    edge.age_return(1)?;
    assert_eq!(back()?.frame[..6], [2, 0, 0, 0, 0, 0x77]);
    ip("route del default")?;
    edge.age_return(1)?;
    assert_dropped(&back()?, Outcome::NoWayBack);
    Ok(())
}

#[test]
fn a_host_that_does_not_forward_has_no_way_and_gives_no_port_away() -> Result<()> {
    for ends in [ENDS4, ENDS6] {
        let edge = Edge::of(&world(ends))?;
        forward(false)?;
        assert_dropped(&edge.run(&Sent { ends, ..segment(SYN) })?, Outcome::NoWayBack);
        assert_eq!(edge.entries()?, (0, 0));
        forward(true)?;
        assert_eq!(edge.run(&Sent { ends, ..segment(SYN) })?.verdict, Verdict::Transmit);
    }
    Ok(())
}

#[test]
fn a_next_hop_that_is_unknown_to_the_kernel_costs_the_answers_until_it_is_known() -> Result<()> {
    let edge = Edge::of(&world(ENDS4))?;
    ip("neighbour del 10.0.0.254 dev edge")?;
    assert_eq!(edge.run(&segment(SYN))?.verdict, Verdict::Transmit);
    let back = || edge.run(&answer(&segment(SYN), edge.member, 25_000, SYN | ACK));
    assert_dropped(&back()?, Outcome::NoWayBack);
    ip("neighbour add 10.0.0.254 lladdr 02:00:00:00:00:99 dev edge nud permanent")?;
    assert_sent(&back()?, GATEWAY, &returned(&segment(SYN), SYN | ACK), Outcome::Returned);
    Ok(())
}

#[test]
fn what_came_damaged_goes_on_damaged_in_either_direction() -> Result<()> {
    let edge = Edge::of(&world(ENDS4))?;
    edge.run(&segment(SYN))?;
    for mut frame in [segment(ACK).bytes(), answer(&segment(ACK), edge.member, 25_000, ACK).bytes()] {
        assert!(is_sound(&edge.kernel.run(&frame)?.frame));
        *frame.last_mut().context("bytes")? ^= 0x40;
        let run = edge.kernel.run(&frame)?;
        assert_eq!(run.verdict, Verdict::Transmit);
        assert!(!is_sound(&run.frame));
    }
    Ok(())
}

#[test]
fn an_entry_that_the_kernel_needed_the_memory_of_is_put_back() -> Result<()> {
    let edge = Edge::of(&world(ENDS4))?;
    edge.establish(&segment(ACK))?;
    let key: NatKey = bytemuck::pod_read_unaligned(&edge.only_return()?.0);
    edge.kernel.remove_nat_flow(edge.kernel.nat_flows()?.into_keys().next().context("a flow")?)?;
    assert_eq!(edge.entries()?, (0, 1));
    edge.age_return(1)?;
    assert_eq!(
        edge.run(&answer(&segment(ACK), edge.member, 25_000, ACK))?.counted,
        [(0, Outcome::Returned as usize)]
    );
    let flow = edge.kernel.nat_flows()?.into_values().next().context("not put back")?;
    assert_eq!(flow.way, key);
    let run = edge.run(&segment(ACK))?;
    let expected = translated(&segment(ACK), edge.member, 25_000);
    assert_sent(&run, edge.member.mac(), &expected, Outcome::Steered);
    Ok(())
}
