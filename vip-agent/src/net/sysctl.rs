//! Sysctls of interfaces: arp_ignore and arp_announce set where they must be, put back where they still are ours.
//!
//! Files below /proc/sys/net show the network namespace of the thread that opens them.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::journal::{Journal, JournalError};

/// Where sysctls are, wherever an agent can run; whether they can be written there is another matter.
const ROOT: &str = "/proc/sys";

/// Names another place: in a container that is not privileged /proc/sys is read-only, and nothing can be mounted over it.
/// What a runtime can do is mount the host's /proc/sys/net elsewhere, writable.
const ROOT_VARIABLE: &str = "VIPLANE_PROC_SYS";

fn root() -> PathBuf {
    std::env::var_os(ROOT_VARIABLE).filter(|path| !path.is_empty()).map_or_else(|| ROOT.into(), PathBuf::from)
}

/// Why a sysctl was not read or set.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    /// /proc/sys is mounted read-only, or we may not write there. No reason to stop: arp_ignore only covers the time
    /// without an XDP program, arp_announce the former owner's last connections.
    #[error(
        "cannot set {sysctl}={wanted}: {source} (mount /proc/sys writable or run `sysctl -w {sysctl}={wanted}` on the host)"
    )]
    ReadOnly {
        /// The sysctl as `sysctl` names it.
        sysctl: Sysctl,
        /// The value it should have.
        wanted: i32,
        /// The system's answer.
        source: io::Error,
    },
    /// No such interface.
    #[error("cannot {action} {sysctl}: there is no interface {}", sysctl.interface)]
    NoInterface {
        /// "read" or "set".
        action: &'static str,
        /// The sysctl as `sysctl` names it.
        sysctl: Sysctl,
    },
    /// Anything else.
    #[error("cannot {action} {sysctl}: {source}")]
    Io {
        /// "read" or "set".
        action: &'static str,
        /// The sysctl as `sysctl` names it.
        sysctl: Sysctl,
        /// The system's answer.
        source: io::Error,
    },
    /// The previous value is not on disk, so it was not changed.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// The settings that we look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    /// net.ipv4.conf.IF.arp_ignore: which ARP requests the kernel answers.
    ArpIgnore,
    /// net.ipv4.conf.IF.arp_announce: which address the kernel's own ARP requests name as their sender.
    ArpAnnounce,
    /// net.ipv4.conf.IF.forwarding: whether what comes in by it is forwarded.
    Ipv4Forwarding,
    /// net.ipv6.conf.IF.forwarding: whether the interface is a router's.
    Ipv6Forwarding,
    /// net.ipv6.conf.IF.disable_ipv6: whether the interface does without IPv6.
    DisableIpv6,
    /// net.ipv4.conf.IF.rp_filter: which sources are believed (RFC 3704).
    RpFilter,
}

/// One setting of one interface ("all" and "default" included).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sysctl {
    interface: String,
    setting: Setting,
}

impl std::fmt::Display for Sysctl {
    /// As `sysctl -w` takes it: dots of the interface's name become slashes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (family, name) = self.parts();
        write!(f, "net.{family}.conf.{}.{name}", self.interface.replace('.', "/"))
    }
}

impl Sysctl {
    /// Names a setting of an interface.
    pub fn new(interface: impl Into<String>, setting: Setting) -> Self {
        Self { interface: interface.into(), setting }
    }

    /// Its value.
    ///
    /// # Errors
    /// No such interface, or the file does not hold a number.
    pub fn read(&self) -> Result<i32, SysctlError> {
        let text = self.path().and_then(fs::read_to_string).map_err(|source| self.error("read", source))?;
        text.trim()
            .parse()
            .map_err(|_| self.error("read", io::Error::other(format!("{text:?} is no number"))))
    }

    /// The value in force: the higher one of the interface's own and that of `all`, which is how the kernel reads arp_ignore,
    /// arp_announce and rp_filter.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn in_force(&self) -> Result<i32, SysctlError> {
        Ok(self.read()?.max(Self::new("all", self.setting).read()?))
    }

    /// Asks whether it could be set, without setting it.
    ///
    /// # Errors
    /// It could not, for /proc/sys is mounted read-only or this process may not.
    pub fn check_writable(&self) -> Result<(), SysctlError> {
        let check = |path| Ok(rustix::fs::access(&path, rustix::fs::Access::WRITE_OK)?);
        self.path().and_then(check).map_err(|source| self.error("set", source))
    }

    fn write(&self, value: i32) -> Result<(), SysctlError> {
        self.path().and_then(|path| fs::write(path, value.to_string())).map_err(|source| {
            match source.kind() {
                io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                    SysctlError::ReadOnly { sysctl: self.clone(), wanted: value, source }
                }
                _ => self.error("set", source),
            }
        })
    }

    fn parts(&self) -> (&'static str, &'static str) {
        match self.setting {
            Setting::ArpIgnore => ("ipv4", "arp_ignore"),
            Setting::ArpAnnounce => ("ipv4", "arp_announce"),
            Setting::Ipv4Forwarding => ("ipv4", "forwarding"),
            Setting::Ipv6Forwarding => ("ipv6", "forwarding"),
            Setting::DisableIpv6 => ("ipv6", "disable_ipv6"),
            Setting::RpFilter => ("ipv4", "rp_filter"),
        }
    }

    /// A name is one component of the path, whatever stands in a configuration or a journal.
    fn path(&self) -> io::Result<PathBuf> {
        if matches!(self.interface.as_str(), "" | "." | "..") || self.interface.contains('/') {
            return Err(io::ErrorKind::NotFound.into());
        }
        let (family, name) = self.parts();
        let mut path = root();
        path.extend(["net", family, "conf", &self.interface, name]);
        Ok(path)
    }

    fn error(&self, action: &'static str, source: io::Error) -> SysctlError {
        let sysctl = self.clone();
        match source.kind() {
            io::ErrorKind::NotFound => SysctlError::NoInterface { action, sysctl },
            _ => SysctlError::Io { action, sysctl, source },
        }
    }
}

/// A sysctl that we set: what it was, and what we made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedSysctl {
    /// Which one.
    pub sysctl: Sysctl,
    /// The administrator's value.
    pub previous: i32,
    /// Ours.
    pub ours: i32,
}

impl SavedSysctl {
    /// Puts the previous value back, unless somebody has changed ours since or the interface is gone.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn restore(&self) -> Result<(), SysctlError> {
        match self.sysctl.read() {
            Ok(value) if value == self.ours => self.sysctl.write(self.previous),
            Ok(_) | Err(SysctlError::NoInterface { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// arp_ignore: no answers for addresses of scope host, which is what VIPs on lo have; all others are answered for as
/// before (linux/Documentation/networking/ip-sysctl.rst).
const SILENT_FOR_HOST_SCOPE: i32 = 3;
/// arp_announce: the node's own questions name the interface's own address as their sender, never a VIP on lo (there).
const OWN_ADDRESS_AS_SENDER: i32 = 2;

/// What became of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It has our value now and will be restored.
    Set,
    /// It had been set by us before.
    AlreadyOurs,
    /// An administrator's value is in force, which serves as well or is meant otherwise.
    Administrators(i32),
}

/// Keeps the kernel from answering ARP for VIPs on lo while no XDP program does it: sets arp_ignore to 3 on
/// `interface` if the value in force (the higher one of the interface and of `all`) is 0.
///
/// # Errors
/// [`SysctlError::ReadOnly`] is worth a warning; the others mean that the interface or the journal is not in order.
pub fn silence_arp(interface: &str, journal: &Journal) -> Result<Held, SysctlError> {
    hold(
        &Sysctl::new(interface, Setting::ArpIgnore),
        SILENT_FOR_HOST_SCOPE,
        |in_force| in_force == 0,
        journal,
    )
}

/// Keeps the kernel from claiming VIPs on lo by its own ARP questions: sets arp_announce to 2 on `interface` if the value
/// in force is lower.
///
/// A former owner serves its open connections from the VIP. Looking for a client's MAC it would ask "tell the VIP", and
/// whoever hears that sends the VIP's traffic here again, past the new owner. (IPv6 has no such trap: a solicitation's
/// source is an address of the interface itself.)
///
/// # Errors
/// As [`silence_arp`].
pub fn ask_as_oneself(interface: &str, journal: &Journal) -> Result<Held, SysctlError> {
    let lower = |in_force| in_force < OWN_ADDRESS_AS_SENDER;
    hold(&Sysctl::new(interface, Setting::ArpAnnounce), OWN_ADDRESS_AS_SENDER, lower, journal)
}

fn hold(
    sysctl: &Sysctl,
    wanted: i32,
    replaceable: impl Fn(i32) -> bool,
    journal: &Journal,
) -> Result<Held, SysctlError> {
    let own = sysctl.read()?;
    let ours = |saved: &SavedSysctl| saved.sysctl == *sysctl && saved.ours == own;
    if journal.entries().sysctls.iter().any(ours) {
        return Ok(Held::AlreadyOurs);
    }
    let in_force = sysctl.in_force()?;
    if !replaceable(in_force) {
        return Ok(Held::Administrators(in_force));
    }
    let saved = SavedSysctl { sysctl: sysctl.clone(), previous: own, ours: wanted };
    journal.record_sysctl(saved.clone())?;
    if let Err(error) = sysctl.write(wanted) {
        journal.forget_sysctl(&saved)?;
        return Err(error);
    }
    Ok(Held::Set)
}

/// Puts back what [`silence_arp`] and [`ask_as_oneself`] set on `interface`, if it is still as we set it.
///
/// # Errors
/// The sysctl cannot be written, or the journal cannot; what is not restored stays in the journal.
pub fn restore_arp(interface: &str, journal: &Journal) -> Result<(), SysctlError> {
    for saved in journal.entries().sysctls.iter().filter(|saved| saved.sysctl.interface == interface) {
        saved.restore()?;
        journal.forget_sysctl(saved)?;
    }
    Ok(())
}

/// Whether `interface` forwards IPv6, so that neighbour advertisements for VIPs on it carry the R flag (RFC 4861, 4.4).
/// An interface without IPv6 does not.
///
/// # Errors
/// The file cannot be read.
pub fn forwards_ipv6(interface: &str) -> Result<bool, SysctlError> {
    match Sysctl::new(interface, Setting::Ipv6Forwarding).read() {
        Ok(value) => Ok(value != 0),
        Err(SysctlError::NoInterface { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
