//! System calls by seccomp: what the agent and its check scripts are refused, and all that a watcher is allowed.
//!
//! The agent's filter refuses a list, and does not allow one: a filter outlives execve(2), so that whatever it refuses is
//! refused to the check scripts of operators as well, and what those need nobody can list. What is on it has no use in
//! either and has been the way into the kernel, or out of a container, before; container runtimes refuse their
//! containers nearly the same by default. A watcher starts nothing, and needs little: it has a list of what it may do.
//!
//! What is refused fails by EPERM, or by ENOSYS where libraries then do without; nothing is killed for it. A C library
//! that takes to a new system call must not end an agent at night.

use std::collections::BTreeMap;

use rustix::thread::{SecureComputingMode, secure_computing_mode};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The architecture has none, or it cannot be made.
    #[error("no seccomp filter for this processor: {0}")]
    Unmakable(#[from] BackendError),
    /// The kernel refuses it.
    #[error("the kernel takes no seccomp filter (CONFIG_SECCOMP_FILTER): {0}")]
    Refused(#[from] seccompiler::Error),
}

/// System calls by name and number.
type Calls = &'static [(&'static str, libc::c_long)];

macro_rules! calls {
    ($($(#[$only:meta])? $name:ident)*) => {
        &[$($(#[$only])? (stringify!($name), libc::$name)),*]
    };
}

/// Refused with EPERM to the agent and all that it starts.
const REFUSED: Calls = calls! {
    // Another kernel, or more of it.
    SYS_kexec_load SYS_kexec_file_load SYS_init_module SYS_finit_module SYS_delete_module SYS_reboot
    // File systems and namespaces.
    SYS_mount SYS_umount2 SYS_pivot_root SYS_chroot SYS_move_mount SYS_mount_setattr SYS_open_tree
    SYS_fsopen SYS_fsconfig SYS_fsmount SYS_fspick SYS_swapon SYS_swapoff SYS_quotactl SYS_quotactl_fd
    SYS_unshare SYS_setns SYS_open_by_handle_at SYS_fanotify_init
    // Other processes.
    SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_process_madvise SYS_pidfd_getfd SYS_kcmp
    // The machine's settings.
    SYS_sethostname SYS_setdomainname SYS_settimeofday SYS_clock_settime SYS_syslog SYS_acct SYS_vhangup
    #[cfg(target_arch = "x86_64")] SYS_ioperm
    #[cfg(target_arch = "x86_64")] SYS_iopl
    // What many holes were found in, and nothing here uses.
    SYS_add_key SYS_request_key SYS_keyctl SYS_userfaultfd SYS_perf_event_open SYS_lookup_dcookie SYS_nfsservctl
    #[cfg(target_arch = "x86_64")] SYS_uselib
    #[cfg(target_arch = "x86_64")] SYS_modify_ldt
};

/// Refused with ENOSYS: who finds them missing does without. clone3 because a filter cannot see its flags: the C library
/// calls clone then, whose flags it sees.
const MISSING: Calls = calls! { SYS_clone3 SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register };

/// clone(2) with one of these makes a namespace.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Commands of bpf(2) that work on maps and links, by `enum bpf_cmd`: MAP_CREATE to MAP_GET_NEXT_KEY, OBJ_PIN, OBJ_GET,
/// OBJ_GET_INFO_BY_FD, MAP_LOOKUP_AND_DELETE_ELEM, MAP_FREEZE, the batches, LINK_CREATE, LINK_UPDATE,
/// LINK_DETACH. Not among them: loading programs, and opening what others have loaded.
const BPF_COMMANDS: [u64; 17] = [0, 1, 2, 3, 4, 6, 7, 15, 21, 22, 24, 25, 26, 27, 28, 29, 34];

/// All that a watcher may do: wait, read what it is told, ask who has the lock, speak, log, allocate, end.
const WATCHING: Calls = calls! {
    #[cfg(target_arch = "x86_64")] SYS_poll
    SYS_ppoll SYS_read SYS_write SYS_recvmsg SYS_sendmsg SYS_sendto
    SYS_socket SYS_connect SYS_getsockopt SYS_fcntl SYS_close SYS_fstat SYS_statx SYS_newfstatat SYS_lseek
    SYS_futex SYS_set_robust_list SYS_get_robust_list SYS_rseq SYS_sched_yield SYS_nanosleep SYS_clock_nanosleep
    SYS_clock_gettime SYS_restart_syscall
    SYS_brk SYS_mmap SYS_mremap SYS_munmap SYS_mprotect SYS_madvise SYS_getrandom
    SYS_getpid SYS_gettid SYS_tgkill SYS_rt_sigreturn SYS_rt_sigprocmask SYS_rt_sigaction SYS_sigaltstack
    SYS_exit SYS_exit_group
};

/// Refuses [`REFUSED`] and [`MISSING`] to all threads from now on, and to what they start.
pub(super) fn refuse_the_dangerous() -> Result<(), FilterError> {
    let mut refused = always(REFUSED);
    refused.insert(libc::SYS_clone, NAMESPACES.into_iter().map(makes_namespace).collect::<Result<_, _>>()?);
    refused.insert(libc::SYS_bpf, vec![is_another_bpf_command()?]);
    apply_filter_all_threads(&refusing(refused, libc::EPERM)?)?;
    apply_filter_all_threads(&refusing(always(MISSING), libc::ENOSYS)?)?;
    #[cfg(target_arch = "x86_64")]
    apply_filter_all_threads(&NO_X32)?;
    Ok(())
}

/// Allows all threads nothing but [`WATCHING`] from now on, where there is a filter already.
pub(super) fn allow_only_watching() -> Result<(), FilterError> {
    if !secure_computing_mode().is_ok_and(|mode| mode == SecureComputingMode::Filter) {
        return Ok(());
    }
    let refuse = SeccompAction::Errno(errno(libc::EPERM));
    let filter = SeccompFilter::new(always(WATCHING), refuse, SeccompAction::Allow, architecture()?)?;
    Ok(apply_filter_all_threads(&BpfProgram::try_from(filter)?)?)
}

type Rules = BTreeMap<libc::c_long, Vec<SeccompRule>>;

/// Whatever their arguments are.
fn always(calls: Calls) -> Rules {
    calls.iter().map(|(_, number)| (*number, Vec::new())).collect()
}

fn refusing(calls: Rules, error: libc::c_int) -> Result<BpfProgram, BackendError> {
    let refuse = SeccompAction::Errno(errno(error));
    SeccompFilter::new(calls, SeccompAction::Allow, refuse, architecture()?)?.try_into()
}

fn architecture() -> Result<TargetArch, BackendError> {
    std::env::consts::ARCH.try_into()
}

fn errno(error: libc::c_int) -> u32 {
    error.unsigned_abs()
}

fn makes_namespace(flag: libc::c_int) -> Result<SeccompRule, BackendError> {
    let flag = u64::from(flag.cast_unsigned());
    let is_set = SeccompCmpOp::MaskedEq(flag);
    SeccompRule::new(vec![SeccompCondition::new(0, SeccompCmpArgLen::Qword, is_set, flag)?])
}

fn is_another_bpf_command() -> Result<SeccompRule, BackendError> {
    let is_not = |command| SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, command);
    SeccompRule::new(BPF_COMMANDS.into_iter().map(is_not).collect::<Result<_, _>>()?)
}

/// The kernel has every system call of x86-64 a second time, for programs with short pointers, by other numbers.
#[cfg(target_arch = "x86_64")]
const NO_X32: [seccompiler::sock_filter; 4] = {
    const X32: u32 = 0x4000_0000;
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const fn step(code: u16, jf: u8, k: u32) -> seccompiler::sock_filter {
        seccompiler::sock_filter { code, jt: 0, jf, k }
    }
    [
        step(LOAD, 0, 0),
        step(IF_AT_LEAST, 1, X32),
        step(RETURN, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs()),
        step(RETURN, 0, libc::SECCOMP_RET_ALLOW),
    ]
};

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn names(calls: Calls) -> impl Iterator<Item = &'static str> {
        calls.iter().filter_map(|(name, _)| name.strip_prefix("SYS_"))
    }

    #[test]
    fn the_documentation_names_every_call() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/security.md");
        let page = fs::read_to_string(page).unwrap();
        for name in [REFUSED, MISSING, WATCHING].into_iter().flat_map(names) {
            assert!(page.contains(&format!("`{name}`")), "docs/security.md does not name {name}");
        }
    }

    #[test]
    fn nothing_that_a_watcher_needs_is_refused_to_the_agent_whose_filter_it_inherits() {
        for name in names(WATCHING) {
            assert!(!names(REFUSED).chain(names(MISSING)).any(|refused| refused == name), "{name}");
        }
    }

    #[test]
    fn the_filters_compile() {
        let mut refused = always(REFUSED);
        refused.insert(libc::SYS_bpf, vec![is_another_bpf_command().unwrap()]);
        assert!(refusing(refused, libc::EPERM).unwrap().len() > REFUSED.len());
    }
}
