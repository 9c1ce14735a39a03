//! How one program goes on with another: the programs, and what they hand on, in maps that both objects have.

use core::arch::asm;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::btf_maps::{PerCpuArray, ProgramArray};
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
    macro_rules! jump_to {
        ($($step:ident)+) => {
            match step {
                $(Step::$step => jump::<{ Step::$step as u32 }>(ctx),)+
            }
        };
    }
    jump_to!(
        Steer4 Steer6 Fragment4 Fragment6 Icmp4 Icmp6 Error4 Error6 Tunnel Translate Answer Local Outward4 Outward6 Inward4 Inward6
        ErrorOutward4 ErrorOutward6 ErrorInward4 ErrorInward6 Begin4 Begin6 Begun4 Begun6 Fresh4 Fresh6 Decapsulate
    );
}

/// The kernel makes a jump of a tail call whose index it finds to be one number alone, and an indirect call of any other, which
/// many processors need a retpoline for. LLVM would make one call of all that a program has, with the index in a register: so it
/// must not see that they are alike.
#[inline(always)]
fn jump<const STEP: u32>(ctx: &XdpContext) {
    // SAFETY: the context is the kernel's, and so is the map. The call clobbers what calls do.
    unsafe {
        asm!(
            "r3 = {step}",
            "call 12", // bpf_tail_call
            step = const STEP,
            inout("r1") ctx.as_ptr() => _,
            inout("r2") &raw const STEERING => _,
            lateout("r0") _,
            out("r3") _,
            lateout("r4") _,
            lateout("r5") _,
        );
    }
}
