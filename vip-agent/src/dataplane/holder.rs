//! Whose XDP program occupies an interface: its name, who keeps it there, and how to get rid of it.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use super::links::XdpMode;
use super::{PROGRAM, sys};

/// A program that is not this agent's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occupant {
    /// Interface that it runs on.
    pub interface: String,
    /// The program's id.
    pub id: u32,
    /// Its name, as far as the kernel knows one (15 characters); `None`: this process may not ask (a running agent has
    /// given up CAP_SYS_ADMIN), and what follows is unknown as well.
    pub name: Option<String>,
    /// How it is attached.
    pub mode: XdpMode,
    /// When it was loaded.
    pub loaded: Option<SystemTime>,
    /// The user who loaded it.
    pub uid: Option<u32>,
    /// The id of the link that attaches it; `None` if it was attached without one (`ip link set ... xdp`).
    pub link: Option<u32>,
    /// Processes that hold the program or the link: process id and command.
    pub processes: Vec<(u32, String)>,
}

impl Occupant {
    /// Finds out all that can be found out about a program on an interface.
    pub(super) fn find(interface: &str, ifindex: u32, id: u32, mode: XdpMode) -> Self {
        let info = aya::programs::loaded_programs().filter_map(Result::ok).find(|info| info.id() == id);
        let link = sys::xdp_links().into_iter().find(|link| link.program == id && link.ifindex == ifindex);
        Self {
            interface: interface.to_owned(),
            id,
            name: info.as_ref().map(|info| info.name_as_str().unwrap_or_default().to_owned()),
            mode,
            loaded: info.as_ref().and_then(aya::programs::ProgramInfo::loaded_at),
            uid: info.as_ref().and_then(aya::programs::ProgramInfo::created_by_uid),
            link: link.map(|link| link.id),
            processes: holders(Path::new("/proc"), id),
        }
    }

    /// Whether it is a viplane program, of another agent or left by a dead one.
    pub fn is_viplane(&self) -> bool {
        self.name.as_deref() == Some(PROGRAM)
    }
}

impl fmt::Display for Occupant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, mode, .. } = self;
        let Some(name) = &self.name else {
            return write!(
                f,
                "an XDP program (id {id}, {mode} mode) that is not ours; `vip-agent preflight`, as root, says whose it is"
            );
        };
        write!(f, "XDP program `{name}` (id {id}, {mode} mode")?;
        if let Some(loaded) = self.loaded {
            write!(f, ", loaded {}", humantime::format_rfc3339_seconds(loaded))?;
        }
        if let Some(uid) = self.uid {
            write!(f, " by uid {uid}")?;
        }
        f.write_str("), ")?;
        if self.processes.is_empty() {
            f.write_str(if self.link.is_some() { "kept by a pinned link" } else { "held by no process" })?;
        } else {
            f.write_str("held by ")?;
            for (nth, (pid, command)) in self.processes.iter().enumerate() {
                write!(f, "{}pid {pid} ({command})", if nth == 0 { "" } else { ", " })?;
            }
        }
        if self.is_viplane() {
            return match self.processes.first() {
                Some((pid, _)) => write!(f, ": another viplane agent: stop pid {pid}, or choose another interface"),
                None => f.write_str(
                    ": a dead viplane agent left it, pinned under another pin_dir: run `vip-agent cleanup` with that one",
                ),
            };
        }
        match self.link {
            Some(link) => write!(f, ": stop its owner or `bpftool link detach id {link}`")?,
            None => write!(f, ": `ip link set dev {} {} off`", self.interface, self.mode.ip_link_word())?,
        }
        f.write_str(", or choose another interface")
    }
}

/// Processes with a descriptor of the program, or of a link to it: `fdinfo` names the program in both.
fn holders(proc: &Path, program: u32) -> Vec<(u32, String)> {
    let Ok(entries) = fs::read_dir(proc) else { return Vec::new() };
    let mut holders: Vec<_> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(|pid: u32| (pid, entry.path())))
        .filter(|(_, process)| holds(process, program))
        .map(|(pid, process)| {
            let command = fs::read_to_string(process.join("comm")).unwrap_or_default();
            (pid, command.trim_end().to_owned())
        })
        .collect();
    holders.sort_unstable();
    holders
}

fn holds(process: &Path, program: u32) -> bool {
    let wanted = program.to_string();
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return false };
    descriptors
        .filter_map(Result::ok)
        .filter(|fd| {
            fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().starts_with("anon_inode:bpf"))
        })
        .filter_map(|fd| fs::read_to_string(process.join("fdinfo").join(fd.file_name())).ok())
        .any(|info| {
            info.lines().filter_map(|line| line.strip_prefix("prog_id:")).any(|id| id.trim() == wanted)
        })
}
