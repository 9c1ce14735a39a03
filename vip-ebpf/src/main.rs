//! The XDP program: glue between the kernel and vip-common, where all reading, deciding and rewriting lives.
#![no_std]
#![no_main]
#![expect(clippy::needless_pass_by_value, reason = "aya calls programs with the context by value")]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod frame;
mod handoff;
mod runtime;
mod tables;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::warn;
use vip_common::decision::{Action, Arrival, Family, arrival, decide};
use vip_common::heartbeat::{Received, receive};
use vip_common::reason::Reason;
use vip_common::rewrite::{self, Verdict};
use vip_common::steering::handoff::Step;
use vip_common::steering::tunnel_end::may_be_ours;

use crate::frame::Frame;
use crate::handoff::go_on;
use crate::tables::Maps;

/// Answers ARP and neighbour discovery for owned VIPs, keeps the kernel from answering for others, and forwards what
/// belongs to a former owner.
///
/// `frags` (Linux 5.18): else a veth or NIC with an MTU above a page refuses the program. Headers are always in the
/// first, directly readable part.
#[xdp(frags)]
#[inline(always)]
fn viplane(ctx: XdpContext) -> u32 {
    let mut frame = Frame::new(&ctx);
    let maps = Maps::<true>::new(&ctx);
    match arrival(&frame, &maps) {
        Arrival::Ordinary => {}
        Arrival::Ours { link, interface } => {
            maps.count(link, Reason::VirtualMacTaken);
            if rewrite::deliver(&mut frame, interface).is_none() {
                return XDP_DROP;
            }
        }
        Arrival::Anothers { link } => {
            maps.count(link, Reason::VirtualMacNotOwned);
            return XDP_DROP;
        }
    }
    let Some(decision) = decide(&frame, &maps) else {
        return match receive(&mut frame, &maps) {
            None => {
                if may_be_ours(&frame) {
                    go_on(&ctx, Step::Decapsulate);
                }
                XDP_PASS
            }
            Some(Received { link, reason }) => {
                maps.count(link, reason);
                if reason == Reason::HeartbeatAnswered { XDP_TX } else { XDP_DROP }
            }
        };
    };
    if let Action::Steer(family) = decision.action {
        maps.count(decision.link, decision.reason);
        // What no program is there for goes up the stack.
        match family {
            Family::V4 => go_on(&ctx, Step::Steer4),
            Family::V6 => go_on(&ctx, Step::Steer6),
        }
        return XDP_PASS;
    }
    if let Some(claim) = &decision.claim {
        maps.report(&frame, decision.link, claim);
    }
    if let Action::PassNewFlow(flow) = &decision.action {
        maps.remember(&frame, flow);
    }
    let Some(verdict) = rewrite::apply(&mut frame, &decision.action) else {
        maps.count(decision.link, Reason::NdNoRoom);
        warn!(&ctx, "no room behind a neighbour solicitation for the link-layer option: not answered");
        return XDP_DROP;
    };
    maps.count(decision.link, decision.reason);
    match verdict {
        Verdict::Pass => XDP_PASS,
        Verdict::Drop => XDP_DROP,
        Verdict::Transmit => XDP_TX,
    }
}

/// Only passes: the measure of what the other program costs, and what a veth's peer needs for XDP_TX to arrive.
#[xdp(frags)]
fn pass(_: XdpContext) -> u32 {
    XDP_PASS
}
