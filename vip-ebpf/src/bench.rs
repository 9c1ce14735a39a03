//! The client's side of the ARP benchmark: one program asks, another counts the answers.
#![no_std]
#![no_main]
#![expect(clippy::needless_pass_by_value, reason = "aya calls programs with the context by value")]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod frame;
mod runtime;

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_TX};
use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use vip_common::packet::ethernet::{self, Mac};
use vip_common::packet::{Bytes as _, BytesMut as _, arp};

use crate::frame::Frame;

/// Answers seen; one entry.
#[btf_map]
static ANSWERS: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Where the ARP message begins.
const ARP: usize = ethernet::HEADER;

/// Sends the frame as a question. All that an answerer changes is written: live frames come back from the pool as the
/// last receiver left them.
#[xdp(frags)]
fn ask(ctx: XdpContext) -> u32 {
    write_question(&mut Frame::new(&ctx)).map_or(XDP_ABORTED, |()| XDP_TX)
}

/// Counts and drops answers, and drops everything else.
#[xdp(frags)]
fn count(ctx: XdpContext) -> u32 {
    let frame = Frame::new(&ctx);
    let is_answer = frame.load(12) == Some(ethernet::ARP.to_be_bytes())
        && frame.load(ARP + arp::OPERATION) == Some(arp::REPLY.to_be_bytes());
    if is_answer && let Some(answers) = ANSWERS.get_ptr_mut(0) {
        // SAFETY: this CPU's own element.
        unsafe { *answers += 1 };
    }
    XDP_DROP
}

/// 02:00:00:00:00:c1, 10.0.0.9, asks everyone for 10.0.0.50.
#[inline(always)]
fn write_question(frame: &mut Frame<'_>) -> Option<()> {
    let client = Mac::new([2, 0, 0, 0, 0, 0xc1]);
    Mac::BROADCAST.store(frame, ethernet::DESTINATION)?;
    client.store(frame, ethernet::SOURCE)?;
    frame.store(12, ethernet::ARP.to_be_bytes())?;
    frame.store(ARP, [0, 1, 8, 0, 6, 4, 0, 1])?;
    client.store(frame, ARP + arp::SENDER_MAC)?;
    frame.store(ARP + arp::SENDER, [10, 0, 0, 9])?;
    Mac::new([0; 6]).store(frame, ARP + arp::TARGET_MAC)?;
    frame.store(ARP + arp::TARGET, [10, 0, 0, 50])
}
