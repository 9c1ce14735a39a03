//! Looks at directories and processes.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::super::places::{Directory, FileSystem, Rivals};
use crate::dataplane::{DataplaneError, check_pin_dir};
use crate::net::instance_lock::{LOCK_FILE, holder};

/// Looks at a directory and writes a file there, or in the nearest one above that exists, in a directory made for that; both
/// are removed again.
pub(in super::super) fn directory(path: &Path) -> Directory {
    let existing = existing(path);
    let file_system = rustix::fs::statfs(&existing)
        .map_or_else(|error| FileSystem::Lasting(error.to_string()), |fs| FileSystem::of(fs.f_type.into()));
    let writable = try_directory(&existing, |trial| {
        let file = trial.join("file");
        let written = File::create_new(&file).and_then(|mut file| file.write_all(b"preflight\n"));
        written.and(fs::remove_file(file))
    });
    Directory { path: path.to_owned(), file_system, writable: writable.map_err(|error| error.to_string()) }
}

/// What the dataplane would refuse a pin directory for, and whether a directory can be made in it.
pub(in super::super) fn pin_dir(path: Option<&Path>) -> Result<(), DataplaneError> {
    let Some(path) = path else { return Ok(()) };
    check_pin_dir(path)?;
    let existing = existing(path);
    try_directory(&existing, |_| Ok(())).map_err(|source| DataplaneError::File {
        action: "make a directory in",
        path: existing,
        source,
    })
}

/// The directory itself, or the nearest one above that exists.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/")).to_owned()
}

fn try_directory(inside: &Path, work: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    // Without a dot: BPF file systems refuse it.
    let trial = inside.join(format!("viplane-preflight-{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&trial)?;
    let worked = work(&trial);
    let removed = fs::remove_dir(&trial);
    worked.and(removed)
}

/// Who else is there.
pub(in super::super) fn rivals(runtime_dir: &Path) -> Rivals {
    let agent = holder().map(|holder| holder.to_string());
    // The one of this network namespace has both locks.
    let stranger = if agent.is_none() { lock_holder(&runtime_dir.join(LOCK_FILE)) } else { None };
    Rivals { agent, stranger, keepalived: keepalived() }
}

/// Who has locked a file, if anybody has: looked at for a moment, by a lock that several may have.
fn lock_holder(path: &Path) -> Option<String> {
    let file = File::open(path).ok()?;
    let refused = rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).err()?;
    let pid = fs::read_to_string(path).unwrap_or_default();
    (refused == rustix::io::Errno::WOULDBLOCK).then(|| format!("pid {}", pid.trim()))
}

/// Processes of that name in this network namespace.
fn keepalived() -> Vec<u32> {
    let namespace = |process: &Path| fs::read_link(process.join("ns/net")).ok();
    let ours = namespace(Path::new("/proc/thread-self"));
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let mut pids: Vec<u32> = processes
        .filter_map(Result::ok)
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .filter(|(_, process)| {
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            name.trim_end() == "keepalived" && namespace(process) == ours
        })
        .map(|(pid, _)| pid)
        .collect();
    pids.sort_unstable();
    pids
}
