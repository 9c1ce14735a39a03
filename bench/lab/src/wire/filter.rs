//! The socket filter of a capture: what is no ARP, NS, NA, VRRP, TCP reset or frame of fast detection never reaches user space.

use socket2::SockFilter;

// Classic BPF (linux/filter.h), by the kernel's own names.
const LD_H_ABS: u16 = 0x28;
const LD_B_ABS: u16 = 0x30;
const LD_B_IND: u16 = 0x50;
const LDX_B_MSH: u16 = 0xb1;
const JEQ: u16 = 0x15;
const JSET: u16 = 0x45;
const RET: u16 = 0x06;
/// Offset at which a load gives the kind of a frame, PACKET_OUTGOING and the like: SKF_AD_OFF + SKF_AD_PKTTYPE.
const PACKET_TYPE: u32 = (-0x1000_i32 + 4) as u32;

const TCP_RESET: u32 = 0x04;
const WHOLE_FRAME: u32 = 0x4_0000;

// Lines of the program that are jumped to; jumps go forward only, so 0 is free to mean the next line.
const NEXT: usize = 0;
const IPV6: usize = 14;
const ICMPV6: usize = 20;
const DROP: usize = 24;
const KEEP: usize = 25;

/// The filter; `both_ways` lets through what the ports send out, too.
pub(crate) fn capture(both_ways: bool) -> Vec<SockFilter> {
    let unwanted = if both_ways { u32::MAX } else { libc::PACKET_OUTGOING.into() };
    let lines = [
        (LD_B_ABS, NEXT, NEXT, PACKET_TYPE),
        (JEQ, DROP, NEXT, unwanted),
        (LD_H_ABS, NEXT, NEXT, 12),
        (JEQ, KEEP, NEXT, 0x0806), // ARP
        (JEQ, KEEP, NEXT, 0x88b5), // heartbeats and their like
        (JEQ, KEEP, NEXT, 0x8100), // tagged inside the frame (rare: the kernel keeps one tag beside it)
        (JEQ, KEEP, NEXT, 0x88a8),
        (JEQ, NEXT, IPV6, 0x0800),
        (LD_B_ABS, NEXT, NEXT, 14 + 9),
        (JEQ, KEEP, NEXT, 112),
        (JEQ, NEXT, DROP, 6),
        (LDX_B_MSH, NEXT, NEXT, 14), // X = length of the IPv4 header
        (LD_B_IND, NEXT, NEXT, 14 + 13),
        (JSET, KEEP, DROP, TCP_RESET),
        // IPV6:
        (JEQ, NEXT, DROP, 0x86dd),
        (LD_B_ABS, NEXT, NEXT, 14 + 6),
        (JEQ, KEEP, NEXT, 112),
        (JEQ, NEXT, ICMPV6, 6),
        (LD_B_ABS, NEXT, NEXT, 14 + 40 + 13),
        (JSET, KEEP, DROP, TCP_RESET),
        // ICMPV6:
        (JEQ, NEXT, DROP, 58),
        (LD_B_ABS, NEXT, NEXT, 14 + 40),
        (JEQ, KEEP, NEXT, 135), // neighbour solicitation
        (JEQ, KEEP, DROP, 136), // neighbour advertisement
        // DROP:
        (RET, NEXT, NEXT, 0),
        // KEEP:
        (RET, NEXT, NEXT, WHOLE_FRAME),
    ];
    // The kernel counts jumps from the line that follows.
    let relative = |line: usize, target: usize| if target == NEXT { 0 } else { (target - line - 1) as u8 };
    let assemble = |(line, &(code, yes, no, operand))| {
        SockFilter::new(code, relative(line, yes), relative(line, no), operand)
    };
    lines.iter().enumerate().map(assemble).collect()
}
