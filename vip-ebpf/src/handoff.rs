//! How one program goes on with another: the programs, and what they hand on, in maps that both objects have.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::btf_maps::{PerCpuArray, ProgramArray};
use aya_ebpf::helpers::bpf_tail_call;
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::XdpContext;
use vip_common::steering::handoff::{Handoff, Step};

#[btf_map]
static STEERING: ProgramArray<{ Step::COUNT as usize }> = ProgramArray::new();
#[btf_map]
static SCRATCH: PerCpuArray<Handoff, 1> = PerCpuArray::new();

/// What this CPU hands on.
#[inline(always)]
pub(crate) fn handoff() -> Option<*mut Handoff> {
    SCRATCH.get_ptr_mut(0)
}

/// Goes on with another program, and comes back only if there is none.
#[inline(always)]
pub(crate) fn go_on(ctx: &XdpContext, step: Step) {
    // SAFETY: context and map are the kernel's. The constant index makes it a jump, which needs neither a retpoline nor a
    // return.
    unsafe { bpf_tail_call(ctx.as_ptr(), (&raw const STEERING).cast_mut().cast(), step as u32) };
}
