//! Judges where the agent keeps things, and who else is there. Pure.

use std::path::{Path, PathBuf};

use super::report::{Check, Finding};
use crate::dataplane::DataplaneError;

/// A directory of the agent, or the one above it in which it would be made.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    /// As configured.
    pub(super) path: PathBuf,
    /// The file system of it, or of the nearest directory above that exists.
    pub(super) file_system: FileSystem,
    /// Whether something could be made there, and removed.
    pub(super) writable: Result<(), String>,
}

/// What a file system means for what is kept there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FileSystem {
    /// In memory: gone with the next boot.
    Memory(&'static str),
    /// On another machine: may hang.
    Network(&'static str),
    /// On a disk, as far as can be told.
    Lasting(String),
}

impl FileSystem {
    /// By `f_type` of statfs(2), of linux/magic.h.
    pub(super) fn of(magic: i128) -> Self {
        match magic {
            0x0102_1994 => Self::Memory("tmpfs"),
            0x8584_58f6 => Self::Memory("ramfs"),
            0x6969 => Self::Network("NFS"),
            0xff53_4d42 => Self::Network("CIFS"),
            0xfe53_4d42 => Self::Network("SMB2"),
            0x00c3_6400 => Self::Network("Ceph"),
            0xef53 => Self::Lasting("ext4".to_owned()),
            0x5846_5342 => Self::Lasting("xfs".to_owned()),
            0x9123_683e => Self::Lasting("btrfs".to_owned()),
            0x2fc1_2fc1 => Self::Lasting("zfs".to_owned()),
            0x794c_7630 => Self::Lasting("overlayfs".to_owned()),
            other => Self::Lasting(format!("file system {other:#x}")),
        }
    }
}

/// Other processes of our kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Rivals {
    /// Who is the agent of this network namespace.
    pub(super) agent: Option<String>,
    /// Who of another network namespace has runtime_dir.
    pub(super) stranger: Option<String>,
    /// Process ids of keepalived in this network namespace.
    pub(super) keepalived: Vec<u32>,
}

pub(super) fn runtime_dir(directory: &Directory) -> Finding {
    written(Check::RuntimeDir, directory, "runtime_dir")
}

pub(super) fn state_dir(directory: &Directory) -> Finding {
    let subject = directory.path.display().to_string();
    match (&directory.writable, &directory.file_system) {
        (Ok(()), FileSystem::Memory(kind)) => Finding::warning(
            Check::StateDir,
            subject,
            format!(
                "on {kind}: the last good configuration and what signed adverts need do not outlive a reboot"
            ),
            "set `state_dir` to a directory on a disk",
        ),
        (Ok(()), FileSystem::Network(kind)) => Finding::warning(
            Check::StateDir,
            subject,
            format!("on {kind}: the agent would wait for another machine at its start"),
            "set `state_dir` to a directory on a local disk",
        ),
        _ => written(Check::StateDir, directory, "state_dir"),
    }
}

fn written(check: Check, directory: &Directory, key: &str) -> Finding {
    let subject = directory.path.display().to_string();
    let kind = match &directory.file_system {
        FileSystem::Memory(kind) | FileSystem::Network(kind) => kind,
        FileSystem::Lasting(kind) => kind.as_str(),
    };
    match &directory.writable {
        Ok(()) => Finding::ok(check, subject, format!("can be written ({kind})")),
        Err(why) => Finding::error(
            check,
            subject,
            format!("cannot be written: {why} ({kind})"),
            format!("make it writable for the agent, or set `{key}` to another directory"),
        ),
    }
}

/// `checked`: what the dataplane thinks of it; `agent_runs`: it may have it locked, rightly.
pub(super) fn pin_dir(path: Option<&Path>, checked: Result<(), DataplaneError>, agent_runs: bool) -> Finding {
    let Some(path) = path else {
        return Finding::ok(
            Check::PinDir,
            "host",
            "none: the program ends with the agent, and VIPs go unanswered while it starts again",
        );
    };
    let subject = path.display().to_string();
    match checked {
        Ok(()) => Finding::ok(Check::PinDir, subject, "on a BPF file system, can be written"),
        Err(DataplaneError::PinDirInUse { .. }) if agent_runs => {
            Finding::ok(Check::PinDir, subject, "in use by the agent that runs here")
        }
        Err(why) => {
            let remedy = match why {
                DataplaneError::NotBpffs { .. } => "mount one there, or set `pin_dir: null`",
                DataplaneError::PinDirInUse { .. } => "set `pin_dir` to another directory",
                DataplaneError::CorruptPin { .. } => "`vip-agent cleanup`",
                _ => "make it writable for the agent, or set `pin_dir` to another directory",
            };
            Finding::error(Check::PinDir, subject, why.to_string(), remedy)
        }
    }
}

pub(super) fn rivals(rivals: &Rivals) -> Vec<Finding> {
    vec![agent(rivals), keepalived(&rivals.keepalived)]
}

fn agent(Rivals { agent, stranger, .. }: &Rivals) -> Finding {
    if let Some(holder) = stranger {
        return Finding::error(
            Check::Agent,
            "host",
            format!("vip-agent ({holder}) of another network namespace uses the same runtime_dir"),
            "give one of them a runtime_dir, a state_dir and a pin_dir of its own",
        );
    }
    match agent {
        None => Finding::ok(Check::Agent, "host", "no agent runs here"),
        Some(holder) => Finding::warning(
            Check::Agent,
            "host",
            format!("vip-agent ({holder}) runs here already: a second one would not start"),
            "`vip-agent reload` gives it another configuration; else stop it first",
        ),
    }
}

fn keepalived(pids: &[u32]) -> Finding {
    if pids.is_empty() {
        return Finding::ok(Check::Keepalived, "host", "keepalived does not run here");
    }
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    Finding::warning(
        Check::Keepalived,
        "host",
        format!("keepalived (pid {}) runs in this network namespace", pids.join(", ")),
        "give it no virtual router ID and no VIP of ours, or stop it: `systemctl disable --now keepalived`",
    )
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;

    fn directory(magic: i128) -> Directory {
        Directory { path: "/there".into(), file_system: FileSystem::of(magic), writable: Ok(()) }
    }

    fn unwritable() -> Directory {
        Directory { writable: Err("Read-only file system".to_owned()), ..directory(0xef53) }
    }

    fn word(finding: &Finding) -> &'static str {
        finding.verdict.word()
    }

    #[test]
    fn memory_is_good_enough_for_the_socket_but_not_for_the_state() {
        const TMPFS: i128 = 0x0102_1994;
        assert_eq!(word(&runtime_dir(&directory(TMPFS))), "ok");
        assert_eq!(word(&state_dir(&directory(TMPFS))), "warning");
        assert_eq!(word(&state_dir(&directory(0x6969))), "warning");
        assert_eq!(word(&state_dir(&directory(0xef53))), "ok");
    }

    #[test]
    fn what_cannot_be_written_is_an_error_that_names_the_key() {
        for (finding, key) in
            [(runtime_dir(&unwritable()), "runtime_dir"), (state_dir(&unwritable()), "state_dir")]
        {
            let Verdict::Error { remedy } = &finding.verdict else { panic!("{finding:?}") };
            assert!(remedy.contains(key) && finding.found.contains("Read-only file system"));
        }
    }

    #[test]
    fn the_lock_of_the_agent_that_runs_here_is_no_fault() {
        let path = Some(Path::new("/sys/fs/bpf/viplane"));
        let locked = || Err(DataplaneError::PinDirInUse { path: "/sys/fs/bpf/viplane".into() });
        let elsewhere = Err(DataplaneError::NotBpffs { path: "/run".into() });
        assert_eq!(word(&pin_dir(path, elsewhere, true)), "error");
        assert_eq!(word(&pin_dir(path, locked(), true)), "ok");
        assert_eq!(word(&pin_dir(path, locked(), false)), "error");
        assert_eq!(word(&pin_dir(None, Ok(()), false)), "ok");
    }

    #[test]
    fn an_agent_that_runs_is_worth_a_warning_and_one_elsewhere_in_our_directory_an_error() {
        let pid = || Some("pid 7".to_owned());
        assert_eq!(word(&agent(&Rivals::default())), "ok");
        assert_eq!(word(&agent(&Rivals { agent: pid(), ..Rivals::default() })), "warning");
        assert_eq!(word(&agent(&Rivals { stranger: pid(), ..Rivals::default() })), "error");
    }

    #[test]
    fn keepalived_is_named_by_its_processes() {
        let found = keepalived(&[7, 9]);
        assert!(word(&found) == "warning" && found.found.contains("pid 7, 9"), "{found:?}");
        assert_eq!(word(&keepalived(&[])), "ok");
    }
}
