//! What comes through a tunnel: out of it where it is configured, and untouched where it is not.

use anyhow::{Context as _, Result};
use vip_common::decision::Family;
use vip_common::rewrite::Verdict;
use vip_common::steering::tunnel::{Tunnel, encapsulate};
use vip_common::steering::tunnel_end::TunnelEndKey;

use crate::kernel::Kernel;
use crate::packets::{ENDS4, ENDS6, Ends, Kind, Sent, fix_ipv4, hop, read, with_room};
use crate::world::World;

const END4: [u8; 4] = [10, 0, 0, 7];
const END6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
const OWNER4: [u8; 4] = [10, 0, 0, 1];
const OWNER6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// Its ends, owner first.
fn tunnel(family: Family) -> Tunnel {
    let ends = match family {
        Family::V4 => Ends::V4(OWNER4, END4),
        Family::V6 => Ends::V6(OWNER6, END6),
    };
    let (source, destination) = ends.wide();
    Tunnel { family, source, source_bits: 0, destination }
}

/// As an owner sends it.
fn through(tunnel: &Tunnel, sent: &Sent) -> Result<Vec<u8>> {
    let frame = sent.bytes();
    let packet = read(&frame).context("a packet")?;
    let (done, after) = with_room(&frame, |frame| encapsulate(frame, &packet, tunnel, 7, hop()));
    done.map(|()| after).context("room")
}

/// What comes out: with the addresses of the frame that carried it.
fn out_of(carried: &[u8], sent: &Sent) -> Vec<u8> {
    [&carried[..12], &sent.bytes()[12..]].concat()
}

/// A backend's node, of both VIPs, by both ends.
fn backend() -> Result<Kernel> {
    let kernel = Kernel::with(&World::of(&[]))?;
    for (family, vip) in [(Family::V4, ENDS4), (Family::V6, ENDS4), (Family::V6, ENDS6)] {
        kernel.end_tunnel(key(family, vip))?;
    }
    Ok(kernel)
}

fn key(family: Family, vip: Ends) -> TunnelEndKey {
    let number = |family| if family == Family::V4 { 4 } else { 6 };
    TunnelEndKey {
        end: tunnel(family).destination,
        vip: vip.wide().1,
        end_family: number(family),
        vip_family: number(vip.family()),
        reserved: [0; 2],
    }
}

fn passes_as_it_is(kernel: &Kernel, frame: &[u8]) -> Result<()> {
    let run = kernel.run(frame)?;
    assert_eq!((run.verdict, run.frame.as_slice()), (Verdict::Pass, frame));
    Ok(())
}

#[test]
fn what_goes_in_comes_out_byte_for_byte() -> Result<()> {
    let kernel = backend()?;
    for (family, ends) in [(Family::V4, ENDS4), (Family::V6, ENDS4), (Family::V6, ENDS6)] {
        for kind in [Kind::Tcp, Kind::Udp, Kind::Echo] {
            for tags in [vec![], vec![[0x81, 0, 0, 100]], vec![[0x88, 0xa8, 0, 100], [0x81, 0, 0, 200]]] {
                let sent = Sent { class: 0xb9, tags, ..Sent::new(ends, kind) };
                let frame = through(&tunnel(family), &sent)?;
                let run = kernel.run(&frame)?;
                assert_eq!((run.verdict, run.frame), (Verdict::Pass, out_of(&frame, &sent)), "{sent:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_fragment_within_comes_out_as_it_went_in() -> Result<()> {
    let sent = Sent::tcp4();
    let mut frame = through(&tunnel(Family::V4), &sent)?;
    frame[34 + 6..34 + 8].copy_from_slice(&[0x20, 3]);
    fix_ipv4(&mut frame[34..]);
    let run = backend()?.run(&frame)?;
    assert_eq!((run.verdict, &run.frame[14..]), (Verdict::Pass, &frame[34..]));
    Ok(())
}

#[test]
fn congestion_on_the_way_reaches_who_speaks_ecn_and_is_loss_to_others() -> Result<()> {
    let kernel = backend()?;
    let met = |class| -> Result<Vec<u8>> {
        let mut frame = through(&tunnel(Family::V4), &Sent { class, ..Sent::tcp4() })?;
        frame[15] |= 3;
        fix_ipv4(&mut frame[14..34]);
        Ok(frame)
    };
    let run = kernel.run(&met(2)?)?;
    assert_eq!(
        (run.verdict, &run.frame[14..]),
        (Verdict::Pass, &Sent { class: 3, ..Sent::tcp4() }.packet()[..])
    );
    assert_eq!(kernel.run(&met(0)?)?.verdict, Verdict::Drop);
    Ok(())
}

#[test]
fn nothing_comes_out_that_is_not_configured() -> Result<()> {
    let kernel = backend()?;
    let elsewhere = Tunnel { destination: Ends::V4(OWNER4, [10, 0, 0, 8]).wide().1, ..tunnel(Family::V4) };
    passes_as_it_is(&kernel, &through(&elsewhere, &Sent::tcp4())?)?;
    let other_vip = Sent::new(Ends::V4([192, 0, 2, 9], [10, 0, 0, 51]), Kind::Tcp);
    passes_as_it_is(&kernel, &through(&tunnel(Family::V4), &other_vip)?)?;
    passes_as_it_is(&Kernel::with(&World::of(&[]))?, &through(&tunnel(Family::V4), &Sent::tcp4())?)?;
    // The end for another family of VIPs.
    let only4 = Kernel::with(&World::of(&[]))?;
    only4.end_tunnel(key(Family::V6, ENDS4))?;
    passes_as_it_is(&only4, &through(&tunnel(Family::V6), &Sent::tcp6())?)
}

#[test]
fn a_fragment_of_a_tunnel_and_one_that_is_cut_off_are_the_kernels() -> Result<()> {
    let kernel = backend()?;
    let whole = through(&tunnel(Family::V4), &Sent::tcp4())?;
    let mut fragment = whole.clone();
    fragment[20] = 0x20;
    fix_ipv4(&mut fragment[14..34]);
    passes_as_it_is(&kernel, &fragment)?;
    passes_as_it_is(&kernel, &whole[..52])
}

#[test]
fn what_claims_more_than_it_brings_is_dropped() -> Result<()> {
    let mut frame = through(&tunnel(Family::V4), &Sent::tcp4())?;
    frame[36..38].copy_from_slice(&[0xff, 0xff]);
    fix_ipv4(&mut frame[34..]);
    assert_eq!(backend()?.run(&frame)?.verdict, Verdict::Drop);
    Ok(())
}
