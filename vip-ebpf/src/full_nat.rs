//! The programs of full NAT: those that packets come to whose service has backends on other nodes, and answers of such.

use aya_ebpf::bindings::xdp_action::XDP_DROP;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use vip_common::decision::Family;
use vip_common::steering::full_nat::step::{
    begin, begun, error_inward, error_outward, fresh, inward, outward,
};
use vip_common::steering::full_nat::tables::NatWork;
use vip_common::steering::handoff::Task;
use vip_common::steering::packet::Packet;
use vip_common::steering::steer::Way;

use crate::frame::Frame;
use crate::nat_tables::work;
use crate::{Parking, Rewriting, Rewritten, Steering, rewritten_to};

/// One packet that was set aside for full NAT.
struct Asked<'a> {
    steering: Steering<'a>,
    packet: Packet,
    work: *mut NatWork,
    rewriting: Rewriting<'a>,
}

impl<'a> Asked<'a> {
    #[inline(always)]
    fn of(ctx: &'a XdpContext, family: Family) -> Option<Self> {
        let steering = Steering::of(ctx, family)?;
        let packet = steering.packet()?;
        let rewriting = Rewriting { ctx, parking: Parking(steering.scratch) };
        Some(Self { steering, packet, work: work()?, rewriting })
    }

    /// What the packet quotes.
    #[inline(always)]
    fn quoted(&self) -> Option<Packet> {
        Some(Packet { family: self.packet.family, ..self.steering.scratch().quoted()? })
    }

    /// Where it goes.
    #[inline(always)]
    fn way(&self) -> Option<Way> {
        Some(Way { packet: self.packet, ..self.steering.scratch().way_of_packet()? })
    }

    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "called once for each packet")]
    fn work(&self) -> &mut NatWork {
        // SAFETY: this CPU's own element, which nothing else uses while this packet is looked at.
        unsafe { &mut *self.work }
    }

    #[inline(always)]
    fn finish(&self, rewritten: Rewritten) -> u32 {
        if let Rewritten::No(task @ (Task::Again | Task::Fresh | Task::Begin | Task::Begun)) = rewritten {
            self.steering.on(task);
            return XDP_DROP;
        }
        rewritten_to(&self.steering, rewritten)
    }
}

/// To a backend on another node, IPv4.
#[xdp(frags)]
fn vip_outward4(ctx: XdpContext) -> u32 {
    go_outward(&ctx, Family::V4)
}

/// To a backend on another node, IPv6.
#[xdp(frags)]
fn vip_outward6(ctx: XdpContext) -> u32 {
    go_outward(&ctx, Family::V6)
}

#[inline(always)]
fn go_outward(ctx: &XdpContext, family: Family) -> u32 {
    let Some(asked) = Asked::of(ctx, family) else { return XDP_DROP };
    let Steering { arrived, maps, .. } = &asked.steering;
    let port = asked.steering.scratch().service_port();
    let frame = Frame::new(ctx);
    let rewritten = outward(&frame, arrived, &asked.packet, port, maps, asked.work(), &asked.rewriting);
    asked.finish(rewritten)
}

/// Chooses a backend on another node, IPv4.
#[xdp(frags)]
fn vip_fresh4(ctx: XdpContext) -> u32 {
    choose_backend(&ctx, Family::V4)
}

/// Chooses a backend on another node, IPv6.
#[xdp(frags)]
fn vip_fresh6(ctx: XdpContext) -> u32 {
    choose_backend(&ctx, Family::V6)
}

#[inline(always)]
fn choose_backend(ctx: &XdpContext, family: Family) -> u32 {
    let Some(asked) = Asked::of(ctx, family) else { return XDP_DROP };
    let Steering { arrived, maps, .. } = &asked.steering;
    let port = asked.steering.scratch().service_port();
    let (frame, parking) = (Frame::new(ctx), &asked.rewriting.parking);
    let task = fresh(&frame, arrived, &asked.packet, port, maps, asked.work(), parking);
    asked.finish(Rewritten::No(task))
}

/// A new flow to a backend on another node, IPv4.
#[xdp(frags)]
fn vip_begin4(ctx: XdpContext) -> u32 {
    begin_flow(&ctx, Family::V4)
}

/// A new flow to a backend on another node, IPv6.
#[xdp(frags)]
fn vip_begin6(ctx: XdpContext) -> u32 {
    begin_flow(&ctx, Family::V6)
}

#[inline(always)]
fn begin_flow(ctx: &XdpContext, family: Family) -> u32 {
    let Some(asked) = Asked::of(ctx, family) else { return XDP_DROP };
    let Steering { arrived, maps, .. } = &asked.steering;
    let Some(way) = asked.way() else { return XDP_DROP };
    let (frame, parking) = (Frame::new(ctx), &asked.rewriting.parking);
    let task = begin(&frame, arrived, &way, maps, asked.work(), parking);
    asked.finish(Rewritten::No(task))
}

/// The first packet of a flow, IPv4.
#[xdp(frags)]
fn vip_begun4(ctx: XdpContext) -> u32 {
    go_on_with_first(&ctx, Family::V4)
}

/// The first packet of a flow, IPv6.
#[xdp(frags)]
fn vip_begun6(ctx: XdpContext) -> u32 {
    go_on_with_first(&ctx, Family::V6)
}

#[inline(always)]
fn go_on_with_first(ctx: &XdpContext, family: Family) -> u32 {
    let Some(asked) = Asked::of(ctx, family) else { return XDP_DROP };
    let Steering { arrived, maps, .. } = &asked.steering;
    let Some(way) = asked.way() else { return XDP_DROP };
    let rewritten = begun(&Frame::new(ctx), arrived, &way, maps, asked.work(), &asked.rewriting);
    asked.finish(rewritten)
}

/// From a backend on another node, IPv4.
#[xdp(frags)]
fn vip_inward4(ctx: XdpContext) -> u32 {
    go_inward(&ctx, Family::V4)
}

/// From a backend on another node, IPv6.
#[xdp(frags)]
fn vip_inward6(ctx: XdpContext) -> u32 {
    go_inward(&ctx, Family::V6)
}

#[inline(always)]
fn go_inward(ctx: &XdpContext, family: Family) -> u32 {
    let Some(asked) = Asked::of(ctx, family) else { return XDP_DROP };
    let Steering { arrived, maps, .. } = &asked.steering;
    let frame = Frame::new(ctx);
    let rewritten = inward(&frame, arrived, &asked.packet, maps, asked.work(), &asked.rewriting);
    asked.finish(rewritten)
}

/// An ICMP error to a backend on another node.
#[xdp(frags)]
fn vip_error_out4(ctx: XdpContext) -> u32 {
    tell_backend(&ctx, Family::V4)
}

/// An ICMPv6 error to a backend on another node.
#[xdp(frags)]
fn vip_error_out6(ctx: XdpContext) -> u32 {
    tell_backend(&ctx, Family::V6)
}

#[inline(always)]
fn tell_backend(ctx: &XdpContext, family: Family) -> u32 {
    let Some(asked) = Asked::of(ctx, family) else { return XDP_DROP };
    let Some(quoted) = asked.quoted() else { return XDP_DROP };
    let Steering { arrived, maps, .. } = &asked.steering;
    let port = asked.steering.scratch().service_port();
    let packets = (&asked.packet, &quoted);
    let frame = Frame::new(ctx);
    let rewritten = error_outward(&frame, arrived, packets, port, maps, asked.work(), &asked.rewriting);
    asked.finish(rewritten)
}

/// An ICMP error about what went to a backend on another node, to its client.
#[xdp(frags)]
fn vip_error_in4(ctx: XdpContext) -> u32 {
    tell_client(&ctx, Family::V4)
}

/// An ICMPv6 error about what went to a backend on another node, to its client.
#[xdp(frags)]
fn vip_error_in6(ctx: XdpContext) -> u32 {
    tell_client(&ctx, Family::V6)
}

#[inline(always)]
fn tell_client(ctx: &XdpContext, family: Family) -> u32 {
    let Some(asked) = Asked::of(ctx, family) else { return XDP_DROP };
    let Some(quoted) = asked.quoted() else { return XDP_DROP };
    let Steering { arrived, maps, .. } = &asked.steering;
    let packets = (&asked.packet, &quoted);
    let frame = Frame::new(ctx);
    let rewritten = error_inward(&frame, arrived, packets, maps, asked.work(), &asked.rewriting);
    asked.finish(rewritten)
}
