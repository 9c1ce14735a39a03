//! What clients are told by the program itself: echo replies, resets, ICMP errors; and who is told nothing.

use anyhow::Result;
use vip_common::rewrite::Verdict;
use vip_common::steering::reason::Outcome;
use vip_common::steering::tables::{Closed, Gate};

use crate::kernel::Kernel;
use crate::packets::{CLIENT, ENDS4, ENDS6, Ends, Kind, OWN, Sent, is_sound};
use crate::world::{Plan, World};

/// An owner with `closed: reject`, and a service without backends that rejects.
fn rejecting() -> Result<Kernel> {
    let nobody = |ends| Plan { ends, backends: Vec::new(), closed: Closed::Reject, ..Plan::direct() };
    Kernel::with(&World { closed: Closed::Reject, ..World::of(&[nobody(ENDS4), nobody(ENDS6)]) })
}

fn has_swapped_ends(frame: &[u8], ends: Ends) -> bool {
    let (client, vip) = match ends {
        Ends::V4(client, vip) => (client.to_vec(), vip.to_vec()),
        Ends::V6(client, vip) => (client.to_vec(), vip.to_vec()),
    };
    let at = if client.len() == 4 { 26 } else { 22 };
    frame[..6] == CLIENT
        && frame[6..12] == OWN
        && frame[at..at + client.len()] == vip
        && frame[at + client.len()..at + 2 * client.len()] == client
}

#[test]
fn a_closed_port_resets_tcp_and_tells_udp_that_it_is_unreachable() -> Result<()> {
    let kernel = rejecting()?;
    for ends in [ENDS4, ENDS6] {
        for port in [7, 80] {
            for kind in [Kind::Tcp, Kind::Udp] {
                let sent = Sent { ports: (40_000, port), flags: 2, ..Sent::new(ends, kind) };
                let run = kernel.run(&sent.bytes())?;
                assert_eq!(run.verdict, Verdict::Transmit, "{sent:?}");
                assert_eq!(run.counted[0].1, Outcome::Rejected as usize);
                assert!(is_sound(&run.frame), "{:02x?}", run.frame);
                assert!(has_swapped_ends(&run.frame, ends), "{:02x?}", run.frame);
            }
        }
    }
    Ok(())
}

#[test]
fn nobody_resets_a_reset() -> Result<()> {
    let kernel = rejecting()?;
    for ends in [ENDS4, ENDS6] {
        let reset = Sent { ports: (40_000, 7), flags: 4, ..Sent::new(ends, Kind::Tcp) };
        assert_eq!(kernel.run(&reset.bytes())?.verdict, Verdict::Drop);
    }
    Ok(())
}

#[test]
fn beyond_their_gate_clients_are_told_nothing() -> Result<()> {
    let kernel = rejecting()?;
    kernel.set_gate("ANSWERS", Gate { since: u64::MAX / 2, count: u64::MAX / 2 })?;
    let sent = Sent { ports: (40_000, 7), flags: 2, ..Sent::tcp4() };
    let run = kernel.run_through_gates(&sent.bytes())?;
    assert_eq!((run.verdict, run.counted[0].1), (Verdict::Drop, Outcome::Silent as usize));
    Ok(())
}

#[test]
fn an_echo_request_is_answered_where_the_vip_is_no_local_address_only() -> Result<()> {
    let plans = [Plan::direct()];
    let answering = Kernel::with(&World::of(&plans))?;
    let passing = Kernel::with(&World { echo: false, ..World::of(&plans) })?;
    for ends in [ENDS4, ENDS6] {
        let request = Sent::new(ends, Kind::Echo).bytes();
        let run = answering.run(&request)?;
        assert_eq!((run.verdict, run.counted[0].1), (Verdict::Transmit, Outcome::Echoed as usize));
        assert!(is_sound(&run.frame) && has_swapped_ends(&run.frame, ends));
        let left = passing.run(&request)?;
        assert_eq!((left.verdict, left.frame), (Verdict::Pass, request));
    }
    Ok(())
}

#[test]
fn what_does_not_fit_into_the_tunnel_is_told_what_does() -> Result<()> {
    let mut plan = Plan::tunnel();
    plan.backends.iter_mut().for_each(|member| member.mtu = 1400);
    let kernel = Kernel::with(&World::of(&[plan]))?;
    let of_size = |payload: usize| Sent { payload: vec![7; payload], ..Sent::tcp6() };
    // IPv6 and TCP take 60 bytes, the tunnel 40.
    let fits = kernel.run(&of_size(1300).bytes())?;
    assert_eq!((fits.verdict, fits.counted[0].1), (Verdict::Transmit, Outcome::NewFlow as usize));
    let too_big = kernel.run(&of_size(1301).bytes())?;
    assert_eq!((too_big.verdict, too_big.counted[0].1), (Verdict::Transmit, Outcome::TooBig as usize));
    assert!(is_sound(&too_big.frame) && has_swapped_ends(&too_big.frame, ENDS6));
    // Packet too big (RFC 4443, 3.2), with the MTU that is left.
    assert_eq!(too_big.frame[54..56], [2, 0]);
    assert_eq!(too_big.frame[58..62], 1360_u32.to_be_bytes());
    Ok(())
}
