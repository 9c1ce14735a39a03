//! The frame under the program: vip-common's traits over the packet pointers.

use core::arch::asm;
use core::mem;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail};
use aya_ebpf::programs::XdpContext;
use vip_common::packet::{Bytes, BytesMut, Headroom};

/// The directly readable part of the frame, which holds all headers.
pub(crate) struct Frame<'a> {
    ctx: &'a XdpContext,
}

impl<'a> Frame<'a> {
    #[inline(always)]
    pub(crate) const fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx }
    }

    /// The address of `length` readable and writable bytes.
    ///
    /// Both packet pointers are fetched anew each time, since growing the frame invalidates them.
    #[inline(always)]
    fn at(&self, offset: usize, length: usize) -> Option<usize> {
        let mut start = self.ctx.data();
        // The verifier knows only that very register to be safe that was compared. Left alone, LLVM computes the same
        // address again as `offset + data` and reads through that (aya-rs/aya#1562): so it must not see the sum.
        // SAFETY: an addition.
        unsafe { asm!("{0} += {1}", inout(reg) start, in(reg) offset, options(pure, nomem, nostack)) };
        (start + length <= self.ctx.data_end()).then_some(start)
    }

    #[inline(always)]
    fn move_start(&self, delta: i32) -> Option<()> {
        // SAFETY: the context is the one that the kernel gave to the program.
        (unsafe { bpf_xdp_adjust_head(self.ctx.as_ptr().cast(), delta) } == 0).then_some(())
    }
}

/// One load, whatever the alignment: the kernel allows it in packets (where the processor does), LLVM does not.
macro_rules! load {
    ($type:literal, $address:expr) => {{
        let value: u64;
        asm!(concat!("{0} = *(", $type, " *)({1} + 0)"), out(reg) value, in(reg) $address, options(pure, readonly, nostack));
        value
    }};
}

/// One store, whatever the alignment.
macro_rules! store {
    ($type:literal, $address:expr, $value:expr) => {
        asm!(concat!("*(", $type, " *)({0} + 0) = {1}"), in(reg) $address, in(reg) u64::from($value), options(nostack))
    };
}

impl Bytes for Frame<'_> {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        const { assert!(matches!(N, 1 | 2 | 4 | 8), "the widths of BPF's loads") };
        let start = self.at(offset, N)?;
        // SAFETY: `at` checked that the frame holds N bytes there. Numbers in memory order begin with the bytes that
        // were read, since all BPF targets of this program are little-endian.
        Some(unsafe {
            match N {
                1 => mem::transmute_copy(&(load!("u8", start) as u8)),
                2 => mem::transmute_copy(&(load!("u16", start) as u16)),
                4 => mem::transmute_copy(&(load!("u32", start) as u32)),
                _ => mem::transmute_copy(&load!("u64", start)),
            }
        })
    }
}

impl BytesMut for Frame<'_> {
    #[inline(always)]
    fn store<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        const { assert!(matches!(N, 1 | 2 | 4 | 8), "the widths of BPF's stores") };
        let start = self.at(offset, N)?;
        // SAFETY: `at` checked that the frame holds N bytes there, and nobody else has a reference to them.
        unsafe {
            match N {
                1 => store!("u8", start, mem::transmute_copy::<_, u8>(&bytes)),
                2 => store!("u16", start, mem::transmute_copy::<_, u16>(&bytes)),
                4 => store!("u32", start, mem::transmute_copy::<_, u32>(&bytes)),
                _ => store!("u64", start, mem::transmute_copy::<_, u64>(&bytes)),
            }
        }
        Some(())
    }

    #[inline(always)]
    fn resize(&mut self, length: usize) -> Option<()> {
        let mut current = self.ctx.data_end();
        // The verifier allows the difference of packet pointers and no other arithmetic on the end. Left alone, LLVM may
        // compute `length - end + start` instead: so it must not see the difference either.
        // SAFETY: a subtraction.
        unsafe {
            asm!("{0} -= {1}", inout(reg) current, in(reg) self.ctx.data(), options(pure, nomem, nostack));
        };
        let delta = length as i32 - current as i32;
        // SAFETY: the context is the one that the kernel gave to the program.
        (unsafe { bpf_xdp_adjust_tail(self.ctx.as_ptr().cast(), delta) } == 0).then_some(())
    }
}

impl Headroom for Frame<'_> {
    #[inline(always)]
    fn grow_front(&mut self, by: usize) -> Option<()> {
        self.move_start(-(by as i32))
    }

    #[inline(always)]
    fn cut_front(&mut self, by: usize) -> Option<()> {
        self.move_start(by as i32)
    }
}
