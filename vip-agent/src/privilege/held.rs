//! Which capabilities stay, and how the others go.

use std::io;

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// What the agent keeps of what it was started with. Without CAP_BPF, for which CAP_SYS_ADMIN may stand, it keeps that.
pub const KEPT: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::BPF)
    .union(CapabilitySet::SYS_NICE)
    .union(CapabilitySet::IPC_LOCK)
    .union(CapabilitySet::DAC_READ_SEARCH);

/// What it keeps beside that where it runs commands: they may become another user, which is the better way to run them, and
/// are killed as a group nevertheless when their time is over.
pub const FOR_COMMANDS: CapabilitySet =
    CapabilitySet::SETUID.union(CapabilitySet::SETGID).union(CapabilitySet::KILL);

/// What a probe's command keeps of both. CAP_IPC_LOCK because a thread without it cannot even start a command in a
/// process whose memory is locked.
pub const COMMANDS: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::IPC_LOCK)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(FOR_COMMANDS);

/// What the watcher keeps: memory that it is yet to map must stay within what may be locked.
pub const WATCHER: CapabilitySet = CapabilitySet::IPC_LOCK;

/// Reduces the calling thread to [`KEPT`], with [`FOR_COMMANDS`] where there are any, and what it may execute as well.
pub(super) fn give_up(commands: bool) -> io::Result<()> {
    let held = capabilities(None)?.permitted;
    let stands_for_bpf = !held.contains(CapabilitySet::BPF) && held.contains(CapabilitySet::SYS_ADMIN);
    let mut kept = KEPT;
    kept.set(FOR_COMMANDS, commands);
    kept.set(CapabilitySet::SYS_ADMIN, stands_for_bpf);
    bound(kept)?;
    limit_to(kept)
}

/// Takes from the calling thread all capabilities but these. Ambient ones go with the inheritable ones.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn limit_to(kept: CapabilitySet) -> io::Result<()> {
    let held = capabilities(None)?;
    let sets = CapabilitySets {
        effective: held.effective & kept,
        permitted: held.permitted & kept,
        inheritable: held.inheritable & kept,
    };
    Ok(set_capabilities(None, sets)?)
}

/// Bounds what a program with file capabilities, or any program that root executes, can get.
fn bound(kept: CapabilitySet) -> io::Result<()> {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match capability_is_in_bounding_set(capability) {
            Ok(true) if !kept.contains(capability) => {}
            Ok(_) => continue,
            // The kernel knows no more of them.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
        match remove_capability_from_bounding_set(capability) {
            // Without CAP_SETPCAP: no_new_privs sees to it as well.
            Ok(()) | Err(Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
