//! Steering: the programs that `viplane` goes on with for a VIP that has services. Each is a step of its own
//! (vip-common/src/steering/handoff.rs), loaded only by an agent that has services.
#![no_std]
#![no_main]
#![expect(clippy::needless_pass_by_value, reason = "aya calls programs with the context by value")]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod egress;
mod frame;
mod full_nat;
mod handoff;
mod nat_tables;
mod runtime;
mod steering_tables;
#[allow(dead_code, reason = "of what `viplane` looks up, `vip_local` needs a part")]
mod tables;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use vip_common::decision::{Action as Decided, Family, decide};
use vip_common::rewrite::{self, Verdict};
use vip_common::steering::apply::apply;
use vip_common::steering::fragments::fragment;
use vip_common::steering::handoff::{Handoff, Step, Task};
use vip_common::steering::packet::Packet;
use vip_common::steering::steer::{
    Action, Arrived, Exit, Next, Steered, Way, direct, icmp, icmp_error, sort, translate, tunnel,
};
use vip_common::steering::tunnel_end::{Taken, take_out};

use crate::frame::Frame;
use crate::handoff::{go_on, handoff};
use crate::steering_tables::{Ends, SteeringMaps};

/// One packet on its way through a program.
struct Steering<'a> {
    ctx: &'a XdpContext,
    scratch: *mut Handoff,
    arrived: Arrived,
    maps: SteeringMaps,
}

/// Writes each end of a step down at once.
struct Parking(*mut Handoff);

impl Exit for Parking {
    type Out = Task;

    #[inline(always)]
    fn leave(&self, next: Next) -> Task {
        // SAFETY: this CPU's own element, which nothing else uses while this packet is looked at.
        unsafe { (*self.0).leave(&next) }
    }
}

impl<'a> Steering<'a> {
    #[inline(always)]
    fn of(ctx: &'a XdpContext, family: Family) -> Option<Self> {
        let scratch = handoff()?;
        // SAFETY: as above.
        let (arrived, now) = unsafe { ((*scratch).arrived(family), (*scratch).now) };
        Some(Self { ctx, scratch, arrived, maps: SteeringMaps::at(now, ctx)? })
    }

    #[inline(always)]
    fn scratch(&self) -> &Handoff {
        // SAFETY: as above, and what is read of it is copied at once.
        unsafe { &*self.scratch }
    }

    /// A packet that was set aside, whose family is known when this is compiled.
    #[inline(always)]
    fn packet(&self) -> Option<Packet> {
        Some(Packet { family: self.arrived.family, ..self.scratch().packet()? })
    }

    #[inline(always)]
    fn count(&self) {
        let bytes = (self.ctx.data_end() - self.ctx.data()) as u64;
        self.maps.count(self.scratch().counted(), bytes.saturating_sub(self.arrived.network as u64));
    }

    /// Does what was decided, or goes on with the program that does it. Each by a constant: the kernel makes a jump of that.
    #[inline(always)]
    fn go(&self, frame: &Frame<'_>, task: Task) -> u32 {
        let task = match task {
            Task::Send => match self.scratch().way_of_packet() {
                Some(way) => direct(frame, &self.arrived, &way, &self.maps, &Parking(self.scratch)),
                None => return XDP_DROP,
            },
            task => task,
        };
        let four = matches!(self.arrived.family, Family::V4);
        match task {
            Task::Fragment => go_on(self.ctx, if four { Step::Fragment4 } else { Step::Fragment6 }),
            Task::Icmp => go_on(self.ctx, if four { Step::Icmp4 } else { Step::Icmp6 }),
            Task::Error => go_on(self.ctx, if four { Step::Error4 } else { Step::Error6 }),
            Task::Tunnel => go_on(self.ctx, Step::Tunnel),
            Task::Translate => go_on(self.ctx, Step::Translate),
            Task::Outward
            | Task::Fresh
            | Task::Begin
            | Task::Inward
            | Task::ErrorOutward
            | Task::ErrorInward
            | Task::Begun
            | Task::Again => self.on(task),
            Task::Pass | Task::Drop | Task::Direct | Task::Answer | Task::Send => {
                self.count();
                return self.finish(task);
            }
        }
        XDP_DROP
    }

    /// Goes on with full NAT, or without it.
    #[inline(always)]
    fn on(&self, task: Task) {
        let four = matches!(self.arrived.family, Family::V4);
        match task {
            Task::Outward => go_on(self.ctx, if four { Step::Outward4 } else { Step::Outward6 }),
            Task::Fresh => go_on(self.ctx, if four { Step::Fresh4 } else { Step::Fresh6 }),
            Task::Begin => go_on(self.ctx, if four { Step::Begin4 } else { Step::Begin6 }),
            Task::Inward => go_on(self.ctx, if four { Step::Inward4 } else { Step::Inward6 }),
            Task::ErrorOutward => {
                go_on(self.ctx, if four { Step::ErrorOutward4 } else { Step::ErrorOutward6 });
            }
            Task::ErrorInward => {
                go_on(self.ctx, if four { Step::ErrorInward4 } else { Step::ErrorInward6 });
            }
            Task::Begun => go_on(self.ctx, if four { Step::Begun4 } else { Step::Begun6 }),
            _ => go_on(self.ctx, if four { Step::Steer4 } else { Step::Steer6 }),
        }
    }

    #[inline(always)]
    fn finish(&self, task: Task) -> u32 {
        match task {
            Task::Pass => {
                if self.arrived.handed_over {
                    go_on(self.ctx, Step::Local);
                }
                XDP_PASS
            }
            Task::Direct => {
                let hop = self.scratch().hop();
                hop.write(&mut Frame::new(self.ctx)).map_or(XDP_DROP, |()| XDP_TX)
            }
            Task::Answer => {
                go_on(self.ctx, Step::Answer);
                XDP_DROP
            }
            _ => XDP_DROP,
        }
    }
}

/// Steers an IPv4 packet.
#[xdp(frags)]
fn vip_steer4(ctx: XdpContext) -> u32 {
    steer(&ctx, Family::V4)
}

/// Steers an IPv6 packet.
#[xdp(frags)]
fn vip_steer6(ctx: XdpContext) -> u32 {
    steer(&ctx, Family::V6)
}

#[inline(always)]
fn steer(ctx: &XdpContext, family: Family) -> u32 {
    let Some(steering) = Steering::of(ctx, family) else { return XDP_PASS };
    let frame = Frame::new(ctx);
    let task = sort(&frame, &steering.arrived, &steering.maps, &Parking(steering.scratch));
    steering.go(&frame, task)
}

/// Steers a part of an IPv4 datagram.
#[xdp(frags)]
fn vip_fragment4(ctx: XdpContext) -> u32 {
    steer_fragment(&ctx, Family::V4)
}

/// Steers a part of an IPv6 datagram.
#[xdp(frags)]
fn vip_fragment6(ctx: XdpContext) -> u32 {
    steer_fragment(&ctx, Family::V6)
}

#[inline(always)]
fn steer_fragment(ctx: &XdpContext, family: Family) -> u32 {
    let Some(steering) = Steering::of(ctx, family) else { return XDP_PASS };
    let Some(packet) = steering.packet() else { return XDP_PASS };
    let frame = Frame::new(ctx);
    let parking = Parking(steering.scratch);
    let task = fragment(&frame, &steering.arrived, &packet, &steering.maps, &parking);
    steering.go(&frame, task)
}

/// Reads ICMP.
#[xdp(frags)]
fn vip_icmp4(ctx: XdpContext) -> u32 {
    read_icmp(&ctx, Family::V4)
}

/// Reads ICMPv6.
#[xdp(frags)]
fn vip_icmp6(ctx: XdpContext) -> u32 {
    read_icmp(&ctx, Family::V6)
}

#[inline(always)]
fn read_icmp(ctx: &XdpContext, family: Family) -> u32 {
    let Some(steering) = Steering::of(ctx, family) else { return XDP_PASS };
    let Some(packet) = steering.packet() else { return XDP_PASS };
    let frame = Frame::new(ctx);
    let task = icmp(&frame, &steering.arrived, &packet, &Parking(steering.scratch));
    steering.go(&frame, task)
}

/// Steers an ICMP error.
#[xdp(frags)]
fn vip_error4(ctx: XdpContext) -> u32 {
    steer_error(&ctx, Family::V4)
}

/// Steers an ICMPv6 error.
#[xdp(frags)]
fn vip_error6(ctx: XdpContext) -> u32 {
    steer_error(&ctx, Family::V6)
}

#[inline(always)]
fn steer_error(ctx: &XdpContext, family: Family) -> u32 {
    let Some(steering) = Steering::of(ctx, family) else { return XDP_PASS };
    let (Some(packet), Some(quoted)) = (steering.packet(), steering.scratch().quoted()) else {
        return XDP_PASS;
    };
    let quoted = Packet { family, ..quoted };
    let frame = Frame::new(ctx);
    let parking = Parking(steering.scratch);
    let task = icmp_error(&frame, &steering.arrived, &packet, &quoted, &steering.maps, &parking);
    steering.go(&frame, task)
}

/// Writes each end of a mode down at once, and rewrites the frame where that is the end.
struct Rewriting<'a> {
    ctx: &'a XdpContext,
    parking: Parking,
}

/// What of a packet was rewritten goes there, or nowhere.
#[derive(Clone, Copy)]
enum Rewritten {
    No(Task),
    Yes(u32),
}

impl Exit for Rewriting<'_> {
    type Out = Rewritten;

    #[inline(always)]
    fn leave(&self, next: Next) -> Rewritten {
        let task = self.parking.leave(next);
        match &next {
            Next::Done(Steered {
                action: action @ (Action::Encapsulate { .. } | Action::Translate(..) | Action::Exchange(..)),
                ..
            }) => Rewritten::Yes(verdict(apply(&mut Frame::new(self.ctx), action))),
            _ => Rewritten::No(task),
        }
    }
}

/// Puts a packet into its tunnel.
#[xdp(frags)]
fn vip_tunnel(ctx: XdpContext) -> u32 {
    // Nothing but the packet's own family is asked for here.
    let Some(steering) = Steering::of(&ctx, Family::V4) else { return XDP_DROP };
    let Some(way) = steering.scratch().way() else { return XDP_DROP };
    let rewriting = Rewriting { ctx: &ctx, parking: Parking(steering.scratch) };
    let frame = Frame::new(&ctx);
    let rewritten = tunnel(&frame, &steering.arrived, &way, &steering.maps, &rewriting);
    rewritten_to(&steering, rewritten)
}

/// Makes a packet a local backend's.
#[xdp(frags)]
fn vip_translate(ctx: XdpContext) -> u32 {
    let Some(steering) = Steering::of(&ctx, Family::V4) else { return XDP_DROP };
    // Apart: where both meet, what only one of them quotes is in registers that the other never set.
    if steering.scratch().quotes() {
        steering.scratch().way_of_error().map_or(XDP_DROP, |way| translated(&steering, &way))
    } else {
        // And each family by itself: addresses of either would be on the stack byte by byte.
        let way = |family| steering.scratch().way_of_packet().map(|way| Way::of_family(way, family));
        if steering.scratch().is_ipv4() {
            way(Family::V4).map_or(XDP_DROP, |way| translated(&steering, &way))
        } else {
            way(Family::V6).map_or(XDP_DROP, |way| translated(&steering, &way))
        }
    }
}

#[inline(always)]
fn translated(steering: &Steering<'_>, way: &Way) -> u32 {
    let rewriting = Rewriting { ctx: steering.ctx, parking: Parking(steering.scratch) };
    let rewritten = translate(&Frame::new(steering.ctx), way, &steering.maps, &rewriting);
    rewritten_to(steering, rewritten)
}

#[inline(always)]
fn rewritten_to(steering: &Steering<'_>, rewritten: Rewritten) -> u32 {
    steering.count();
    match rewritten {
        Rewritten::Yes(verdict) => verdict,
        Rewritten::No(task) => steering.finish(task),
    }
}

/// Tells the client something.
#[xdp(frags)]
fn vip_answer(ctx: XdpContext) -> u32 {
    let Some(scratch) = handoff() else { return XDP_DROP };
    // SAFETY: this CPU's own element, which nothing else uses while this packet is looked at.
    let answer = unsafe { (*scratch).answer() };
    verdict(answer.and_then(|answer| apply(&mut Frame::new(&ctx), &answer)))
}

#[inline(always)]
const fn verdict(verdict: Option<Verdict>) -> u32 {
    match verdict {
        Some(Verdict::Pass) => XDP_PASS,
        Some(Verdict::Transmit) => XDP_TX,
        Some(Verdict::Drop) | None => XDP_DROP,
    }
}

/// Takes a packet to a VIP out of its tunnel.
#[xdp(frags)]
fn vip_decapsulate(ctx: XdpContext) -> u32 {
    match take_out(&mut Frame::new(&ctx), &Ends) {
        Taken::Not | Taken::Out => XDP_PASS,
        Taken::Refused => XDP_DROP,
    }
}

/// What goes up the stack while a former owner still serves connections: as `viplane` does with a VIP that has no services.
#[xdp(frags)]
fn vip_local(ctx: XdpContext) -> u32 {
    let mut frame = Frame::new(&ctx);
    let maps = tables::Maps::<false>::new(&ctx);
    let Some(decision) = decide(&frame, &maps) else { return XDP_PASS };
    if let Decided::PassNewFlow(flow) = &decision.action {
        maps.remember(&frame, flow);
    }
    maps.count(decision.link, decision.reason);
    verdict(rewrite::apply(&mut frame, &decision.action))
}
