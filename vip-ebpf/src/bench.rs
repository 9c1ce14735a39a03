//! The other side of the wire for benchmarks: for ARP one program asks and another counts the answers; for throughput one
//! generates flows of datagrams, and others stand where they come by or arrive.
#![no_std]
#![no_main]
#![expect(clippy::needless_pass_by_value, reason = "aya calls programs with the context by value")]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod frame;
mod runtime;

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::btf_maps::{Array, PerCpuArray};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use vip_common::packet::ethernet::{self, Mac};
use vip_common::packet::{Bytes as _, BytesMut as _, arp, ipv4};

use crate::frame::Frame;

/// Answers seen; one entry.
#[btf_map]
static ANSWERS: PerCpuArray<u64, 1> = PerCpuArray::new();

/// The first 48 bytes of each frame that is generated, as the words that BPF stores: Ethernet, IPv4 and UDP. The low half of
/// the client's address is 0 there, and the header's checksum says so.
#[btf_map]
static TEMPLATE: Array<[u64; 6], 1> = Array::new();
/// Flows are numbered from 0 to this: one less than a power of two, 65535 at most.
#[btf_map]
static LAST_FLOW: Array<u64, 1> = Array::new();
/// Frames generated; one entry.
#[btf_map]
static GENERATED: PerCpuArray<u64, 1> = PerCpuArray::new();
/// Frames that came to where they were to go; one entry.
#[btf_map]
static ARRIVED: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Of the node that the generated frames go to.
const NODE: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Of the backend that it sends them on to.
const BACKEND: [u8; 6] = [2, 0, 0, 0, 0, 0xbb];

/// Where the ARP message begins.
const ARP: usize = ethernet::HEADER;
/// Where the IPv4 header begins.
const IPV4: usize = ethernet::HEADER;

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

/// Sends the frame as the next flow's next datagram. All headers are written: live frames come back from the pool as the last
/// receiver left them.
#[xdp(frags)]
fn generate(ctx: XdpContext) -> u32 {
    write_datagram(&mut Frame::new(&ctx)).map_or(XDP_ABORTED, |()| XDP_TX)
}

/// Counts and drops the backend's frames, and drops everything else.
#[xdp(frags)]
fn sink(ctx: XdpContext) -> u32 {
    count_arrival(&Frame::new(&ctx), BACKEND);
    XDP_DROP
}

/// Stands where the node does: counts and drops what comes to it, so that the generator and the wire alone are measured.
#[xdp(frags)]
fn discard(ctx: XdpContext) -> u32 {
    count_arrival(&Frame::new(&ctx), NODE);
    XDP_DROP
}

/// Stands where the node does and leaves all to its kernel.
#[xdp(frags)]
fn pass_up(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

/// Stands where the node does: sends everything to the backend. Nothing that looks at a packet can be faster.
#[xdp(frags)]
fn reflect(ctx: XdpContext) -> u32 {
    let mut frame = Frame::new(&ctx);
    let written = Mac::new(BACKEND)
        .store(&mut frame, ethernet::DESTINATION)
        .and_then(|()| Mac::new(NODE).store(&mut frame, ethernet::SOURCE));
    written.map_or(XDP_DROP, |()| XDP_TX)
}

#[inline(always)]
fn write_datagram(frame: &mut Frame<'_>) -> Option<()> {
    let template = TEMPLATE.get(0)?;
    let number = GENERATED.get_ptr_mut(0)?;
    // SAFETY: this CPU's own element.
    let flow = unsafe {
        *number += 1;
        *number & *LAST_FLOW.get(0)?
    } as u16;
    let mut at = 0;
    for word in template {
        frame.store(at, word.to_ne_bytes())?;
        at += size_of::<u64>();
    }
    // RFC 1624, equation 3, with 0 as what was there before.
    let checksum = !u16::from_be_bytes(frame.load(IPV4 + ipv4::CHECKSUM)?);
    let (sum, carry) = checksum.overflowing_add(flow);
    frame.store(IPV4 + ipv4::CHECKSUM, (!(sum + u16::from(carry))).to_be_bytes())?;
    frame.store(IPV4 + ipv4::SOURCE + 2, flow.to_be_bytes())?;
    // Its port, too, and neither a well-known nor an odd one.
    frame.store(IPV4 + ipv4::HEADER, (0x8000 | flow >> 1).to_be_bytes())
}

#[inline(always)]
fn count_arrival(frame: &Frame<'_>, to: [u8; 6]) {
    let [a, b, c, d, e, f] = to;
    let is_there = frame.load(ethernet::DESTINATION) == Some([a, b, c, d])
        && frame.load(ethernet::DESTINATION + 4) == Some([e, f])
        && frame.load(12) == Some(ethernet::IPV4.to_be_bytes());
    if is_there && let Some(arrived) = ARRIVED.get_ptr_mut(0) {
        // SAFETY: this CPU's own element.
        unsafe { *arrived += 1 };
    }
}
