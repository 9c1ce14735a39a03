//! What we changed on the host and have not yet undone: what a killed agent leaves, the next one (or `cleanup`) finds here.
//!
//! Every change is written down and synced to disk before it is made, and crossed out after it is undone. So an entry
//! may name a change that never happened, but no change goes without an entry; undoing looks first whether there is
//! anything of ours to undo.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::addresses::{self, AddressError};
use super::sysctl::{SavedSysctl, SysctlError};
use super::{NetlinkError, Rtnetlink};

const FILE: &str = "journal.json";
const VERSION: u32 = 1;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Why the journal cannot be relied on. Without it nothing on the host may be changed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file does not say what we wrote. It is left as it is: it may be all that is known of what to undo.
    #[error(
        "{path} is corrupt ({reason}); it lists what an earlier agent changed on this host: check arp_ignore of the VIP \
         interfaces (sysctl), addresses on lo and pins in pin_dir by hand, then remove the file"
    )]
    Corrupt {
        /// The journal.
        path: PathBuf,
        /// What the reader met.
        reason: String,
    },
    /// A newer agent wrote it.
    #[error(
        "{path} was written by a newer vip-agent (version {found}, this one knows {VERSION}); run its `vip-agent cleanup`"
    )]
    Newer {
        /// The journal.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The file system refused.
    #[error(
        "cannot {action} {path}: {source} (state_dir must be a writable directory on a disk that survives restarts)"
    )]
    Io {
        /// "read", "write"...
        action: &'static str,
        /// What it was about.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// All that is to be undone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entries {
    /// Sysctls with the value they had.
    pub sysctls: Vec<SavedSysctl>,
    /// Addresses that may be on lo.
    pub addresses: BTreeSet<IpAddr>,
    /// Directories on bpffs that may hold pins.
    pub pin_dirs: BTreeSet<PathBuf>,
}

impl Entries {
    /// Whether nothing is to be undone.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether this sysctl's former value is written down, whichever it was.
    fn knows(&self, saved: &SavedSysctl) -> bool {
        self.sysctls.iter().any(|known| known.sysctl == saved.sysctl)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    version: u32,
    /// Sysctls, addresses and pins do not outlive the system.
    boot_id: String,
    /// Cookie of the network namespace (Linux 5.14): sysctls and addresses of another one are out of reach.
    network_namespace: Option<u64>,
    entries: Entries,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// The journal of one agent; [`super::instance_lock::InstanceLock`] must be held by who writes to it.
///
/// Its methods wait for the disk: call those that write from where a few milliseconds do no harm.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    boot_id: String,
    network_namespace: Option<u64>,
    entries: Mutex<Entries>,
}

impl Journal {
    /// Opens the journal in `state_dir`, which is made with the first entry. What was written before the last boot is dropped:
    /// it is gone by itself.
    ///
    /// # Errors
    /// The file is corrupt or newer than this program (it stays as it is), or cannot be read.
    pub fn open(state_dir: &Path) -> Result<Self, JournalError> {
        Self::open_as(state_dir, boot_id()?, network_namespace())
    }

    fn open_as(
        state_dir: &Path,
        boot_id: String,
        network_namespace: Option<u64>,
    ) -> Result<Self, JournalError> {
        let path = state_dir.join(FILE);
        let entries = match fs::read(&path) {
            Ok(bytes) => surviving(parse(&path, &bytes)?, &boot_id, network_namespace),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Entries::default(),
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        Ok(Self { path, boot_id, network_namespace, entries: Mutex::new(entries) })
    }

    /// What is to be undone.
    pub fn entries(&self) -> Entries {
        self.lock().clone()
    }

    /// Those of `addresses` that are not written down.
    pub fn unrecorded(&self, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let entries = self.lock();
        addresses.iter().copied().filter(|address| !entries.addresses.contains(address)).collect()
    }

    /// Whether nothing is to be undone.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Writes down the value that a sysctl has before we set it. A value written down earlier stays: that is the
    /// administrator's, what we read now may be ours.
    ///
    /// # Errors
    /// Not on disk; then the change must not be made.
    pub fn record_sysctl(&self, saved: SavedSysctl) -> Result<(), JournalError> {
        // Every instance of an interface asks for it, and a change begins with a copy of everything.
        if self.lock().knows(&saved) {
            return Ok(());
        }
        self.change(|entries| {
            if !entries.knows(&saved) {
                entries.sysctls.push(saved);
            }
        })
    }

    /// Crosses out a sysctl that has been restored.
    ///
    /// # Errors
    /// Not on disk.
    pub fn forget_sysctl(&self, saved: &SavedSysctl) -> Result<(), JournalError> {
        self.change(|entries| entries.sysctls.retain(|known| known != saved))
    }

    /// Writes down addresses before they are put on lo.
    ///
    /// # Errors
    /// Not on disk; then the change must not be made.
    pub fn record_addresses(&self, addresses: impl IntoIterator<Item = IpAddr>) -> Result<(), JournalError> {
        self.change(|entries| entries.addresses.extend(addresses))
    }

    /// Crosses out addresses that are off lo for good.
    ///
    /// # Errors
    /// Not on disk.
    pub fn forget_addresses(&self, gone: &BTreeSet<IpAddr>) -> Result<(), JournalError> {
        self.change(|entries| entries.addresses.retain(|address| !gone.contains(address)))
    }

    /// Writes down a directory before anything is pinned in it.
    ///
    /// # Errors
    /// Not on disk; then the change must not be made.
    pub fn record_pin_dir(&self, pin_dir: PathBuf) -> Result<(), JournalError> {
        self.change(|entries| {
            entries.pin_dirs.insert(pin_dir);
        })
    }

    /// Crosses out a directory whose pins are gone.
    ///
    /// # Errors
    /// Not on disk.
    pub fn forget_pin_dir(&self, pin_dir: &Path) -> Result<(), JournalError> {
        self.change(|entries| {
            entries.pin_dirs.remove(pin_dir);
        })
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Entries)) -> Result<(), JournalError> {
        let mut entries = self.lock();
        let mut changed = entries.clone();
        change(&mut changed);
        if changed != *entries {
            self.write(&changed)?;
            *entries = changed;
        }
        Ok(())
    }

    /// Replaces the file in one step, so that a crash at any moment leaves either the old or the new one whole.
    fn write(&self, entries: &Entries) -> Result<(), JournalError> {
        let page = Page {
            version: VERSION,
            boot_id: self.boot_id.clone(),
            network_namespace: self.network_namespace,
            entries: entries.clone(),
        };
        let written = (|| {
            if entries.is_empty() {
                match fs::remove_file(&self.path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            } else {
                self.path.parent().map_or(Ok(()), fs::create_dir_all)?;
                let next = self.path.with_extension("json.new");
                let mut file = File::create(&next)?;
                serde_json::to_writer_pretty(&mut file, &page)?;
                file.write_all(b"\n")?;
                file.sync_all()?;
                fs::rename(&next, &self.path)?;
            }
            self.path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
        })();
        written.map_err(io_error("write", &self.path))
    }

    /// Undoes everything that is written down: addresses before sysctls (lo's addresses without arp_ignore would be
    /// answered for by the kernel), pins last. What fails stays written down.
    ///
    /// `remove_pins` removes what the given directory of bpffs holds of ours; a directory that is not there is no error.
    pub async fn undo_all(
        &self,
        rtnetlink: &Rtnetlink,
        mut remove_pins: impl FnMut(&Path) -> io::Result<()>,
    ) -> Vec<UndoError> {
        let entries = self.entries();
        let mut failures = Vec::new();
        if !entries.addresses.is_empty() {
            match addresses::take_away(rtnetlink, &entries.addresses).await {
                Ok(()) => self.settle(&mut failures, self.forget_addresses(&entries.addresses)),
                Err(error) => failures.push(error.into()),
            }
        }
        for saved in &entries.sysctls {
            match saved.restore() {
                Ok(()) => self.settle(&mut failures, self.forget_sysctl(saved)),
                Err(error) => failures.push(error.into()),
            }
        }
        for pin_dir in &entries.pin_dirs {
            match remove_pins(pin_dir) {
                Ok(()) => self.settle(&mut failures, self.forget_pin_dir(pin_dir)),
                Err(source) => failures.push(UndoError::Pins { pin_dir: pin_dir.clone(), source }),
            }
        }
        failures
    }

    fn settle(&self, failures: &mut Vec<UndoError>, crossed_out: Result<(), JournalError>) {
        failures.extend(crossed_out.err().map(UndoError::from));
    }
}

/// What could not be undone; it stays written down.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    /// Addresses on lo; they go away by themselves within their lifetime.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A sysctl.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// Netlink itself.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Pins.
    #[error("cannot remove the pins in {pin_dir}: {source} (is bpffs mounted there?)")]
    Pins {
        /// The directory.
        pin_dir: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Undone, but still written down.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Page, JournalError> {
    let corrupt =
        |error: serde_json::Error| JournalError::Corrupt { path: path.to_owned(), reason: error.to_string() };
    let Version { version } = serde_json::from_slice(bytes).map_err(corrupt)?;
    if version > VERSION {
        return Err(JournalError::Newer { path: path.to_owned(), found: version });
    }
    serde_json::from_slice(bytes).map_err(corrupt)
}

fn surviving(page: Page, boot_id: &str, network_namespace: Option<u64>) -> Entries {
    let mut entries = page.entries;
    if page.boot_id != boot_id {
        info!("the journal is of before the last boot; nothing of it is left to undo");
        return Entries::default();
    }
    let elsewhere = page.network_namespace.is_some() && page.network_namespace != network_namespace;
    if elsewhere && !(entries.sysctls.is_empty() && entries.addresses.is_empty()) {
        warn!(
            "an earlier agent ran in another network namespace; its sysctls and addresses there are out of reach from here"
        );
        entries.sysctls.clear();
        entries.addresses.clear();
    }
    entries
}

fn boot_id() -> Result<String, JournalError> {
    let id = fs::read_to_string(BOOT_ID).map_err(io_error("read", Path::new(BOOT_ID)))?;
    Ok(id.trim().to_owned())
}

/// The number by which the kernel tells network namespaces apart for as long as it runs; `None` before Linux 5.14.
fn network_namespace() -> Option<u64> {
    let socket = UnixDatagram::unbound().ok()?;
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of_val(&cookie)).ok()?;
    // SAFETY: the kernel writes at most `length` bytes, which is the size of `cookie`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    (result == 0).then_some(cookie)
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    move |source| JournalError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
#[path = "journal/tests.rs"]
mod tests;
