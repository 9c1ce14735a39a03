//! Judges the host: kernel, privileges, real-time rights, clocks. Pure.

use std::path::Path;
use std::time::Duration;

use super::report::{Check, Finding};
use crate::dataplane::Feature;

const HOST: &str = "host";

/// What the host is like.
#[derive(Clone, Debug)]
pub(super) struct Host {
    /// As `uname -r` says.
    pub(super) release: String,
    /// Whether the capabilities are there without which no agent starts.
    pub(super) privileges: Result<(), String>,
    /// The features, and whether the kernel has them; empty without the privilege to ask.
    pub(super) features: Vec<(Feature, bool)>,
    /// What became of the program.
    pub(super) program: Trial,
    /// net.core.bpf_jit_enable, where it can be seen (not in network namespaces other than the first).
    pub(super) jit: Option<i32>,
    /// Whether /proc/self/exe names this program.
    pub(super) own_program: Result<(), String>,
    /// Whether a thread could take real-time priority.
    pub(super) real_time: Result<(), String>,
    /// kernel.sched_rt_runtime_us
    pub(super) real_time_budget: Option<i64>,
    /// Whether memory could be locked.
    pub(super) memory: Result<(), String>,
    /// The current clock source, where /sys shows it.
    pub(super) clock_source: Option<String>,
    /// Of CLOCK_MONOTONIC.
    pub(super) clock_resolution: Duration,
}

/// The agent's program, tried.
#[derive(Clone, Debug)]
pub(super) enum Trial {
    /// Without privilege.
    NotTried,
    /// Loaded and attached where nobody else is.
    Attached {
        /// Instructions that the verifier went through, if the kernel tells.
        instructions: Option<u32>,
    },
    /// Loaded; there was no network namespace to attach it in.
    Loaded {
        /// As above.
        instructions: Option<u32>,
        /// Why.
        why: String,
    },
    /// The kernel does not take it.
    Refused(String),
}

/// Clock sources that a read does not leave the CPU's own registers for, or shared memory.
const FAST_CLOCKS: [&str; 6] =
    ["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "riscv_clocksource", "timebase"];

/// Coarser than this there are no high-resolution timers.
const FINE: Duration = Duration::from_micros(1);

/// The release that has all features (docs/prerequisites.md).
const WANTED: (u32, u32) = (5, 18);

pub(super) fn judge(host: &Host) -> Vec<Finding> {
    let mut findings = vec![kernel(host), capabilities(host)];
    findings.extend(host.features.iter().map(|(feature, present)| self::feature(host, *feature, *present)));
    findings.extend([
        program(&host.program),
        jit(host.jit),
        processes(&host.own_program),
        real_time(host),
        locked_memory(&host.memory),
        clock(host),
    ]);
    findings
}

fn kernel(host: &Host) -> Finding {
    let release = &host.release;
    match version(release) {
        None => Finding::unknown(Check::Kernel, HOST, format_args!("{release:?} is no release")),
        Some(running) if running >= WANTED => Finding::ok(Check::Kernel, HOST, release),
        Some(_) if host.features.iter().all(|(_, present)| *present) && !host.features.is_empty() => {
            Finding::ok(
                Check::Kernel,
                HOST,
                format!("{release}: older than 5.18, but it has all that is needed"),
            )
        }
        Some(_) => Finding::error(
            Check::Kernel,
            HOST,
            format!("{release}: 5.18 or newer is needed, or a distribution's kernel with its features"),
            "run a newer kernel: Debian 12 and Ubuntu 24.04 have one",
        ),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn capabilities(host: &Host) -> Finding {
    match &host.privileges {
        Ok(()) => Finding::ok(Check::Capabilities, HOST, "BPF, netlink and raw sockets are allowed"),
        Err(missing) => Finding::error(
            Check::Capabilities,
            HOST,
            missing,
            "run as root, or grant the capabilities of docs/prerequisites.md; without them nothing of BPF is looked at here",
        ),
    }
}

fn feature(host: &Host, feature: Feature, present: bool) -> Finding {
    if present {
        return Finding::ok(Check::KernelFeature, HOST, feature.to_string());
    }
    let found = format!("{} has no {feature}, which came with Linux {}", host.release, feature.since());
    Finding::error(Check::KernelFeature, HOST, found, "run a newer kernel, or one with CONFIG_BPF_SYSCALL")
}

fn program(trial: &Trial) -> Finding {
    let size = |instructions: &Option<u32>| {
        instructions.map_or_else(String::new, |count| format!(", {count} instructions verified"))
    };
    match trial {
        Trial::NotTried => Finding::unknown(Check::Program, HOST, "capabilities are missing"),
        Trial::Attached { instructions } => {
            Finding::ok(Check::Program, HOST, format!("loaded and attached by a link{}", size(instructions)))
        }
        Trial::Loaded { instructions, why } => {
            Finding::ok(Check::Program, HOST, format!("loaded{}; not attached: {why}", size(instructions)))
        }
        Trial::Refused(why) => {
            Finding::error(Check::Program, HOST, why, "the agent will not start before this is solved")
        }
    }
}

fn jit(enabled: Option<i32>) -> Finding {
    match enabled {
        Some(0) => Finding::warning(
            Check::Jit,
            HOST,
            "net.core.bpf_jit_enable is 0: the kernel interprets the program, several times slower",
            "`sysctl -w net.core.bpf_jit_enable=1`",
        ),
        Some(value) => Finding::ok(Check::Jit, HOST, format!("net.core.bpf_jit_enable is {value}")),
        None => Finding::ok(
            Check::Jit,
            HOST,
            "this network namespace does not show net.core.bpf_jit_enable: the host decides",
        ),
    }
}

fn processes(own_program: &Result<(), String>) -> Finding {
    match own_program {
        Ok(()) => Finding::ok(Check::Processes, HOST, "/proc/self/exe can be started"),
        Err(why) => Finding::warning(
            Check::Processes,
            HOST,
            format!("{why}: no watcher tells the peers should the agent die, and they wait out Active_Down"),
            "mount /proc, and let the sandbox start /proc/self/exe",
        ),
    }
}

/// Whether the program that follows a cluster is there.
pub(super) fn kubernetes(program: &Path, startable: Result<(), String>) -> Finding {
    let program = program.display();
    match startable {
        Ok(()) => Finding::ok(Check::Kubernetes, HOST, format!("{program} can be started")),
        Err(why) => Finding::error(
            Check::Kubernetes,
            HOST,
            format!("{program}: {why}: no cluster is followed, and what was last known of it is served"),
            "install all of the package: the program lies beside vip-agent",
        ),
    }
}

fn real_time(host: &Host) -> Finding {
    let budget = match host.real_time_budget {
        Some(0) => "kernel.sched_rt_runtime_us is 0, which forbids it to all",
        _ => "under load adverts may be late",
    };
    match &host.real_time {
        Ok(()) => Finding::ok(Check::RealTime, HOST, "SCHED_FIFO is allowed"),
        Err(why) => {
            let (found, remedy) = why.split_once(": ").unwrap_or((why, "give the agent CAP_SYS_NICE"));
            Finding::warning(
                Check::RealTime,
                HOST,
                format!("SCHED_FIFO is refused: {found}; {budget}"),
                remedy,
            )
        }
    }
}

fn locked_memory(memory: &Result<(), String>) -> Finding {
    match memory {
        Ok(()) => Finding::ok(Check::LockedMemory, HOST, "memory can be locked"),
        Err(why) => Finding::warning(Check::LockedMemory, HOST, why, "give the agent CAP_IPC_LOCK"),
    }
}

fn clock(host: &Host) -> Finding {
    if host.clock_resolution > FINE {
        return Finding::error(
            Check::Clock,
            HOST,
            format!(
                "timers have a resolution of {:?}: adverts and takeovers come that late",
                host.clock_resolution
            ),
            "run a kernel with CONFIG_HIGH_RES_TIMERS, without `highres=off`",
        );
    }
    match host.clock_source.as_deref() {
        None => Finding::ok(Check::Clock, HOST, "timers are fine; /sys does not show the clock source"),
        Some(source) if FAST_CLOCKS.contains(&source) => {
            Finding::ok(Check::Clock, HOST, format!("{source}, high-resolution timers"))
        }
        Some(source) => Finding::warning(
            Check::Clock,
            HOST,
            format!("{source}: each look at the clock costs about a microsecond, several for each frame"),
            "find out why the kernel does not take tsc (`dmesg | grep -i clocksource`), or the hypervisor's own clock",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::{Report, Verdict};
    use super::*;

    fn good() -> Host {
        Host {
            release: "6.1.0-18-amd64".to_owned(),
            privileges: Ok(()),
            features: Feature::ALL.map(|feature| (feature, true)).to_vec(),
            program: Trial::Attached { instructions: Some(2000) },
            jit: Some(1),
            own_program: Ok(()),
            real_time: Ok(()),
            real_time_budget: Some(950_000),
            memory: Ok(()),
            clock_source: Some("tsc".to_owned()),
            clock_resolution: Duration::from_nanos(1),
        }
    }

    /// The findings that are not ok.
    fn complaints(host: &Host) -> Vec<Finding> {
        judge(host).into_iter().filter(|finding| finding.verdict != Verdict::Ok).collect()
    }

    fn only(host: &Host) -> Finding {
        let mut found = complaints(host);
        assert_eq!(found.len(), 1, "{found:#?}");
        found.remove(0)
    }

    #[test]
    fn an_agent_that_cannot_start_vip_kube_follows_no_cluster() {
        let program = Path::new("/usr/bin/vip-kube");
        assert_eq!(kubernetes(program, Ok(())).verdict, Verdict::Ok);
        let finding = kubernetes(program, Err("No such file or directory".to_owned()));
        assert!(finding.found.contains("/usr/bin/vip-kube: No such file"), "{finding:?}");
        assert!(matches!(finding.verdict, Verdict::Error { .. }), "{finding:?}");
    }

    #[test]
    fn a_good_host_is_ok() {
        assert_eq!(complaints(&good()), []);
    }

    #[test]
    fn an_old_kernel_is_judged_by_what_it_can_not_by_its_number() {
        let patched = Host { release: "5.14.0-427.el9.x86_64".to_owned(), ..good() };
        assert_eq!(complaints(&patched), []);
        let mut old = Host { release: "5.10.0-28-amd64".to_owned(), ..good() };
        old.features.last_mut().unwrap().1 = false;
        let found = complaints(&old);
        let checks: Vec<Check> = found.iter().map(|finding| finding.check).collect();
        assert_eq!(checks, [Check::Kernel, Check::KernelFeature]);
        assert!(found[1].found.contains("XDP on frames in fragments, which came with Linux 5.18"));
    }

    #[test]
    fn without_capabilities_the_program_is_not_called_bad() {
        let host = Host {
            privileges: Err("missing CAP_BPF".to_owned()),
            features: Vec::new(),
            program: Trial::NotTried,
            ..good()
        };
        let found = complaints(&host);
        assert_eq!(found[0].check, Check::Capabilities);
        assert!(matches!(found[1], Finding { check: Check::Program, verdict: Verdict::Warning { .. }, .. }));
        assert_eq!(Report { findings: found }.exit_code(), 2);
    }

    #[test]
    fn a_program_that_is_refused_is_an_error_with_the_verifiers_words() {
        let host = Host { program: Trial::Refused("the verifier: R1 invalid".to_owned()), ..good() };
        let found = only(&host);
        assert!(matches!(found.verdict, Verdict::Error { .. }) && found.found.contains("R1 invalid"));
    }

    #[test]
    fn a_lack_of_real_time_rights_says_what_forbids_them() {
        let refused = Err("Operation not permitted: give the agent CAP_SYS_NICE".to_owned());
        let found = only(&Host { real_time: refused.clone(), ..good() });
        assert_eq!(found.verdict, Verdict::Warning { remedy: "give the agent CAP_SYS_NICE".to_owned() });
        let found = only(&Host { real_time: refused, real_time_budget: Some(0), ..good() });
        assert!(found.found.contains("sched_rt_runtime_us is 0"), "{found:?}");
    }

    #[test]
    fn slow_clocks_and_coarse_timers_are_told_apart() {
        let slow = only(&Host { clock_source: Some("hpet".to_owned()), ..good() });
        assert!(matches!(slow.verdict, Verdict::Warning { .. }), "{slow:?}");
        let coarse = only(&Host { clock_resolution: Duration::from_millis(4), ..good() });
        assert!(matches!(coarse.verdict, Verdict::Error { .. }), "{coarse:?}");
        assert_eq!(complaints(&Host { clock_source: None, ..good() }), []);
    }

    #[test]
    fn an_interpreter_is_slow_and_a_hidden_setting_no_fault() {
        assert_eq!(only(&Host { jit: Some(0), ..good() }).check, Check::Jit);
        assert_eq!(complaints(&Host { jit: None, ..good() }), []);
    }

    #[test]
    fn without_proc_there_is_no_watcher() {
        let host = Host { own_program: Err("/proc/self/exe: No such file".to_owned()), ..good() };
        assert!(only(&host).found.contains("no watcher"));
    }
}
