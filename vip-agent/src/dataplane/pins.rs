//! The pin directory: what lies where, how it is checked, replaced in one step, and cleaned up.
//!
//! ```text
//! PIN_DIR/layout-N/maps/NAME     the maps of the agent that commands the program
//! PIN_DIR/layout-N/program       the program
//! PIN_DIR/layout-N-new, -old     the next and the former set, for the moment of the exchange
//! PIN_DIR/links/INTERFACE        what keeps the program attached
//! PIN_DIR/egress/INTERFACE       what keeps that of services in mode `nat` attached
//! ```
//!
//! Only `links` and `egress` matter to traffic. BPF file systems refuse names with a dot, so interface names are escaped.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use aya::maps::MapInfo;
use aya::programs::ProgramInfo;
use rustix::fs::FlockOperation;
use vip_common::maps::LAYOUT_VERSION;

use super::sys::{self, LinkInfo, LinkKind, ObjectKind};
use super::world::MAPS;
use super::{DataplaneError, PROGRAM, checks, egress, steering};

const MAPS_DIR: &str = "maps";
const PROGRAM_FILE: &str = "program";
const LAYOUT: &str = "layout-";
const NEW: &str = "-new";
const OLD: &str = "-old";
/// A link pin on its way to its name; no interface's escaped name looks like it.
const STAGED_LINK: &str = "%new";

/// Where on an interface a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    /// XDP, the first to see what comes in.
    Ingress,
    /// TC, the last to see what goes out.
    Egress,
}

impl Hook {
    const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    const fn directory(self) -> &'static str {
        match self {
            Self::Ingress => "links",
            Self::Egress => "egress",
        }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::Ingress => PROGRAM,
            Self::Egress => egress::PROGRAM,
        }
    }

    const fn kind(self) -> LinkKind {
        match self {
            Self::Ingress => LinkKind::Xdp,
            Self::Egress => LinkKind::Tcx,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "XDP",
            Self::Egress => "TCX",
        }
    }
}

/// A pin directory, locked against other agents.
#[derive(Debug)]
pub(super) struct PinDir {
    path: PathBuf,
    /// An flock on the directory; gone with the process, however it ends.
    lock: Option<File>,
    /// The lock is an agent's that is about to hand it on.
    succeeds: bool,
}

/// A link found among the pins.
#[derive(Debug)]
pub(super) struct PinnedLink {
    pub(super) path: PathBuf,
    pub(super) fd: OwnedFd,
    pub(super) info: LinkInfo,
}

impl PinDir {
    /// Checks the directory without changing anything: file system, lock, and every pin in it. `succeeds`: an agent that has
    /// it locked is about to hand it on ([`Self::inherit`]).
    pub(super) fn check(path: &Path, succeeds: bool) -> Result<Self, DataplaneError> {
        checks::bpffs(path)?;
        let mut dir = Self { path: path.to_owned(), lock: None, succeeds };
        if path.exists() {
            if !succeeds {
                dir.lock()?;
            }
            dir.check_layout()?;
            for hook in Hook::ALL {
                dir.links(hook)?;
            }
        }
        Ok(dir)
    }

    /// The directory as it is, for those who only look: nothing is locked or changed.
    pub(super) fn look(path: &Path) -> Self {
        Self { path: path.to_owned(), lock: None, succeeds: false }
    }

    fn lock(&mut self) -> Result<(), DataplaneError> {
        if !self.path.is_dir() {
            return Err(self.corrupt(&self.path, "a directory", "something else".to_owned()));
        }
        let directory = File::open(&self.path).map_err(DataplaneError::file("open", &self.path))?;
        match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => self.lock = Some(directory),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(DataplaneError::PinDirInUse { path: self.path.clone() });
            }
            Err(error) => return Err(DataplaneError::file("lock", &self.path)(error.into())),
        }
        Ok(())
    }

    /// What keeps the lock, for a successor.
    pub(super) fn locked(&self) -> Option<BorrowedFd<'_>> {
        self.lock.as_ref().map(AsFd::as_fd)
    }

    /// The lock of the agent that was here before: the same, as it belongs to what is open.
    pub(super) fn inherit(&mut self, lock: OwnedFd) {
        self.lock = Some(File::from(lock));
        self.succeeds = false;
    }

    fn layout(&self, suffix: &str) -> PathBuf {
        self.path.join(format!("{LAYOUT}{LAYOUT_VERSION}{suffix}"))
    }

    fn links_dir(&self, hook: Hook) -> PathBuf {
        self.path.join(hook.directory())
    }

    /// Where the link of an interface is pinned.
    pub(super) fn link_path(&self, hook: Hook, interface: &str) -> PathBuf {
        self.links_dir(hook).join(escape(interface))
    }

    /// The flows of local backends of the set in charge, if that has them: of our own layout, and checked.
    pub(super) fn local_flows(&self) -> Result<Option<OwnedFd>, DataplaneError> {
        let path = self.layout("").join(MAPS_DIR).join(steering::LOCAL_FLOWS);
        if !path.exists() {
            return Ok(None);
        }
        sys::open_pin(&path).map(Some).map_err(DataplaneError::file("open the pinned map", &path))
    }

    fn corrupt(&self, path: &Path, expected: &str, found: String) -> DataplaneError {
        DataplaneError::CorruptPin { path: path.to_owned(), expected: expected.to_owned(), found }
    }

    /// Every pin of our own layout must be what its name says; another layout's are never opened.
    fn check_layout(&self) -> Result<(), DataplaneError> {
        let layout = self.layout("");
        let maps = layout.join(MAPS_DIR);
        for directory in [&layout, &maps] {
            if directory.exists() && !directory.is_dir() {
                return Err(self.corrupt(directory, "a directory", describe(directory)));
            }
        }
        for map in MAPS.iter().chain(&steering::MAPS) {
            let path = maps.join(map.name);
            if !path.exists() {
                continue;
            }
            let found = match kind_at(&path) {
                Some(ObjectKind::Map) => {
                    let info = MapInfo::from_pin(&path).map_err(io::Error::other);
                    let info = info.map_err(DataplaneError::file("read the pinned map", &path))?;
                    if map.is_like(&info) {
                        continue;
                    }
                    format!("a map of {}-byte keys and {}-byte values", info.key_size(), info.value_size())
                }
                _ => describe(&path),
            };
            return Err(self.corrupt(&path, &map.to_string(), found));
        }
        let program = layout.join(PROGRAM_FILE);
        if program.exists() {
            let found = match kind_at(&program) {
                Some(ObjectKind::Program) => {
                    let info = ProgramInfo::from_pin(&program).map_err(io::Error::other);
                    let info = info.map_err(DataplaneError::file("read the pinned program", &program))?;
                    let name = info.name_as_str().unwrap_or_default();
                    if name == PROGRAM {
                        return Ok(());
                    }
                    format!("the program `{name}`")
                }
                _ => describe(&program),
            };
            return Err(self.corrupt(&program, &format!("the program `{PROGRAM}`"), found));
        }
        Ok(())
    }

    /// All pinned links of a kind, each checked to be one of a viplane program.
    pub(super) fn links(&self, hook: Hook) -> Result<Vec<PinnedLink>, DataplaneError> {
        let directory = self.links_dir(hook);
        if !directory.exists() {
            return Ok(Vec::new());
        }
        if !directory.is_dir() {
            return Err(self.corrupt(&directory, "a directory", describe(&directory)));
        }
        entries(&directory)?.into_iter().map(|path| self.link_at(path, hook)).collect()
    }

    fn link_at(&self, path: PathBuf, hook: Hook) -> Result<PinnedLink, DataplaneError> {
        let expected = format!("the {} link of a `{}` program", hook.name(), hook.program());
        if kind_at(&path) != Some(ObjectKind::Link) {
            return Err(self.corrupt(&path, &expected, describe(&path)));
        }
        let fd = sys::open_pin(&path).map_err(DataplaneError::file("open the pinned link", &path))?;
        let info = sys::link_info(fd.as_fd()).map_err(DataplaneError::file("read the pinned link", &path))?;
        let Some(info) = info.filter(|info| info.kind == hook.kind()) else {
            return Err(self.corrupt(&path, &expected, "a link of another type".to_owned()));
        };
        match program_name(info.program) {
            Some(name) if name != hook.program() => {
                Err(self.corrupt(&path, &expected, format!("the link of the program `{name}`")))
            }
            _ => Ok(PinnedLink { path, fd, info }),
        }
    }

    /// Pins a new set beside the one in charge, ready for [`Self::commit`].
    pub(super) fn stage(
        &mut self,
        program: BorrowedFd<'_>,
        maps: &[(&'static str, BorrowedFd<'_>)],
    ) -> Result<(), DataplaneError> {
        make_dir(&self.path)?;
        if self.lock.is_none() && !self.succeeds {
            self.lock()?;
        }
        make_dir(&self.links_dir(Hook::Ingress))?;
        for leftover in [self.layout(NEW), self.layout(OLD)] {
            remove(&leftover)?;
        }
        let staged = self.layout(NEW);
        make_dir(&staged.join(MAPS_DIR))?;
        for (name, map) in maps {
            let path = staged.join(MAPS_DIR).join(name);
            sys::pin(*map, &path).map_err(DataplaneError::file("pin", path))?;
        }
        let path = staged.join(PROGRAM_FILE);
        sys::pin(program, &path).map_err(DataplaneError::file("pin", path))
    }

    /// The maps of steering that are in charge: all of them, or none.
    pub(super) fn steering_maps(&self) -> Result<Vec<(&'static str, OwnedFd)>, DataplaneError> {
        let directory = self.layout("").join(MAPS_DIR);
        if steering::MAPS.iter().any(|map| !directory.join(map.name).exists()) {
            return Ok(Vec::new());
        }
        let open = |map: &'static super::world::MapSpec| {
            let path = directory.join(map.name);
            Ok((map.name, sys::open_pin(&path).map_err(DataplaneError::file("open", path))?))
        };
        steering::MAPS.iter().map(open).collect()
    }

    /// Pins more maps beside those of the set that is staged, or in charge if it is `committed`.
    pub(super) fn add(
        &self,
        maps: &[(&'static str, BorrowedFd<'_>)],
        committed: bool,
    ) -> Result<(), DataplaneError> {
        let directory = self.layout(if committed { "" } else { NEW }).join(MAPS_DIR);
        for (name, map) in maps {
            let path = directory.join(name);
            sys::pin(*map, &path).map_err(DataplaneError::file("pin", path))?;
        }
        Ok(())
    }

    /// Puts the staged set in the place of the former one, and removes those of other versions.
    pub(super) fn commit(&self) -> Result<(), DataplaneError> {
        let (layout, old) = (self.layout(""), self.layout(OLD));
        if layout.exists() {
            rename(&layout, &old)?;
        }
        rename(&self.layout(NEW), &layout)?;
        remove(&old)?;
        for other in entries(&self.path)?.into_iter().filter(|path| is_layout(path) && *path != layout) {
            tracing::info!(path = %other.display(), "replaced the pinned maps of another version");
            remove(&other)?;
        }
        Ok(())
    }

    /// Pins a link under its interface's name, in the place of whatever link is pinned there.
    pub(super) fn pin_link(
        &self,
        link: BorrowedFd<'_>,
        hook: Hook,
        interface: &str,
    ) -> Result<PathBuf, DataplaneError> {
        let directory = self.links_dir(hook);
        make_dir(&directory)?;
        let (staged, path) = (directory.join(STAGED_LINK), self.link_path(hook, interface));
        remove(&staged)?;
        sys::pin(link, &staged).map_err(DataplaneError::file("pin", &staged))?;
        rename(&staged, &path)?;
        Ok(path)
    }

    /// Renames a link pin after its interface.
    pub(super) fn rename_link(
        &self,
        from: &Path,
        hook: Hook,
        interface: &str,
    ) -> Result<PathBuf, DataplaneError> {
        let path = self.link_path(hook, interface);
        if from != path {
            rename(from, &path)?;
        }
        Ok(path)
    }

    /// Removes what this agent pinned, and the directories if nothing else is in them.
    pub(super) fn remove(&self, committed: bool) -> Result<(), DataplaneError> {
        remove(&self.layout(NEW))?;
        if committed {
            remove(&self.layout(""))?;
        }
        self.remove_empty();
        Ok(())
    }

    fn remove_empty(&self) {
        let [links, egress] = Hook::ALL.map(|hook| self.links_dir(hook));
        for directory in [links, egress, self.path.clone()] {
            // Not empty, a mount point, or gone already: all fine.
            drop(fs::remove_dir(directory));
        }
    }
}

/// What [`cleanup`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CleanupReport {
    /// What it removed, links first.
    pub removed: Vec<PathBuf>,
    /// What lies in `pin_dir` under names that viplane does not use, and was left there.
    pub left: Vec<PathBuf>,
}

/// Removes what a dead agent pinned under `pin_dir`, corrupt pins and other versions' included, and detaches its
/// programs at once. Touches only names that viplane uses.
///
/// # Errors
/// A running agent uses `pin_dir`; it is on no BPF file system; a pin cannot be removed.
pub fn cleanup(pin_dir: &Path) -> Result<CleanupReport, DataplaneError> {
    let mut report = CleanupReport::default();
    if !pin_dir.exists() {
        return Ok(report);
    }
    checks::bpffs(pin_dir)?;
    let mut dir = PinDir { path: pin_dir.to_owned(), lock: None, succeeds: false };
    dir.lock()?;
    let links = Hook::ALL.map(|hook| dir.links_dir(hook));
    for (hook, links) in Hook::ALL.into_iter().zip(&links).filter(|(_, links)| links.is_dir()) {
        for path in entries(links)? {
            if let Ok(link) = dir.link_at(path.clone(), hook) {
                // Its interface may have gone: then there is nothing to detach from.
                drop(sys::detach_link(link.fd.as_fd()));
                egress::remove_filter(link.info.ifindex);
            }
            remove(&path)?;
            report.removed.push(path);
        }
    }
    for path in entries(pin_dir)? {
        if links.contains(&path) || is_layout(&path) {
            remove(&path)?;
            report.removed.push(path);
        } else {
            report.left.push(path);
        }
    }
    dir.remove_empty();
    Ok(report)
}

/// Whether a path's name is `layout-N`, `layout-N-new` or `layout-N-old`.
fn is_layout(path: &Path) -> bool {
    let Some(version) =
        path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(LAYOUT))
    else {
        return false;
    };
    let version = version.strip_suffix(NEW).or_else(|| version.strip_suffix(OLD)).unwrap_or(version);
    !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit())
}

fn escape(interface: &str) -> String {
    interface.replace('%', "%25").replace('.', "%2E")
}

/// The kind of object pinned at a path; `None` for a directory or what else cannot be opened.
fn kind_at(path: &Path) -> Option<ObjectKind> {
    sys::kind_of(sys::open_pin(path).ok()?.as_fd()).ok()
}

fn describe(path: &Path) -> String {
    if path.is_dir() {
        return "a directory".to_owned();
    }
    match kind_at(path) {
        Some(ObjectKind::Map) => "a map".to_owned(),
        Some(ObjectKind::Program) => "a program".to_owned(),
        Some(ObjectKind::Link) => "a link".to_owned(),
        Some(ObjectKind::Other) | None => "something that is no BPF object".to_owned(),
    }
}

fn program_name(id: u32) -> Option<String> {
    let info = aya::programs::loaded_programs().filter_map(Result::ok).find(|info| info.id() == id)?;
    info.name_as_str().map(str::to_owned)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, DataplaneError> {
    let list = || fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    let mut entries = list().map_err(DataplaneError::file("list", directory))?;
    entries.sort_unstable();
    Ok(entries)
}

fn make_dir(path: &Path) -> Result<(), DataplaneError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(DataplaneError::file("create", path))
}

fn rename(from: &Path, to: &Path) -> Result<(), DataplaneError> {
    fs::rename(from, to).map_err(DataplaneError::file("rename", from))
}

/// Removes a pin or a directory of pins; fine if there is none.
pub(super) fn remove(path: &Path) -> Result<(), DataplaneError> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(DataplaneError::file("remove", path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_ours() {
        for ours in ["layout-1", "layout-27", "layout-1-new", "layout-3-old"] {
            assert!(is_layout(&Path::new("/sys/fs/bpf/viplane").join(ours)), "{ours}");
        }
        for others in ["layout-", "layout-x", "layout-1-newer", "layouts", "tc", "layout--new"] {
            assert!(!is_layout(&Path::new("/sys/fs/bpf/viplane").join(others)), "{others}");
        }
    }

    #[test]
    fn interface_names_with_a_dot_do_not_collide_with_others() {
        let names = ["lan.5", "lan%2E5", "lan%5", "lan5", "%new"];
        let mut escaped: Vec<_> = names.iter().map(|name| escape(name)).collect();
        escaped.push(STAGED_LINK.to_owned());
        assert!(escaped.iter().all(|name| !name.contains('.')));
        escaped.sort_unstable();
        escaped.dedup();
        assert_eq!(escaped.len(), names.len() + 1);
    }
}
