//! Putting the program on an interface: which mode, in place of what, and who else is there.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rtnetlink::packet_route::link::InfoKind;

use super::counters::LinkSlot;
use super::holder::Occupant;
use super::netdev::Netdev;
use super::pins::{self, Hook, PinDir, PinnedLink};
use super::{DataplaneError, sys};
use crate::types::XdpModeChoice;

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum XdpMode {
    /// The driver runs it.
    Driver,
    /// The network stack runs it ("generic").
    Skb,
    /// The NIC runs it. Never ours.
    Hardware,
}

impl XdpMode {
    fn flags(self) -> u32 {
        match self {
            Self::Driver => sys::XDP_FLAGS_DRV_MODE,
            Self::Skb | Self::Hardware => sys::XDP_FLAGS_SKB_MODE,
        }
    }

    /// The word of `ip link set` that means this mode.
    pub(super) const fn ip_link_word(self) -> &'static str {
        match self {
            Self::Driver => "xdpdrv",
            Self::Skb => "xdpgeneric",
            Self::Hardware => "xdpoffload",
        }
    }
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Driver => "driver",
            Self::Skb => "skb",
            Self::Hardware => "hardware",
        })
    }
}

/// How an interface was attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The mode.
    pub mode: XdpMode,
    /// Its counters' slot, for [`vip_common::maps::Vip::link`].
    pub slot: LinkSlot,
    /// Whether the program of an earlier agent was replaced in place, without a gap.
    pub swapped: bool,
}

/// An interface that runs our program.
#[derive(Debug)]
pub(super) struct AttachedLink {
    fd: OwnedFd,
    pin: Option<PathBuf>,
    pub(super) name: String,
    pub(super) attached: Attached,
}

impl AttachedLink {
    /// Where it is pinned.
    pub(super) fn pin(&self) -> Option<&Path> {
        self.pin.as_deref()
    }

    /// Runs this program in place of whatever runs by this link.
    pub(super) fn run(&self, program: BorrowedFd<'_>) -> Result<(), DataplaneError> {
        sys::update_link(self.fd.as_fd(), program)
            .map_err(|source| DataplaneError::Attach { interface: self.name.clone(), source })
    }

    /// Leaves the pin to the link that has taken its place.
    pub(super) fn forget_pin(&mut self) {
        self.pin = None;
    }

    /// Takes the program off at once, and removes the pin.
    pub(super) fn detach(self) -> Result<(), DataplaneError> {
        // Refused only if the interface has gone, and the program with it.
        drop(sys::detach_link(self.fd.as_fd()));
        self.pin.as_deref().map_or(Ok(()), pins::remove)
    }
}

/// An interface about to be attached.
#[derive(Debug)]
pub(super) struct Target<'a> {
    pub(super) ifindex: u32,
    pub(super) name: &'a str,
    pub(super) choice: XdpModeChoice,
}

/// What is to be done for an interface, found without changing anything.
#[derive(Debug)]
pub(super) struct Plan {
    is_veth: bool,
    /// The link that an earlier agent left on it, and its mode.
    former: Option<(PinnedLink, XdpMode)>,
}

impl Plan {
    /// The mode of the program that is there already.
    pub(super) fn former_mode(&self) -> Option<XdpMode> {
        self.former.as_ref().map(|(_, mode)| *mode)
    }
}

impl Target<'_> {
    /// Looks at the interface.
    pub(super) fn plan(&self, pins: Option<&PinDir>) -> Result<Plan, DataplaneError> {
        let netdev = Netdev::query(self.ifindex)
            .map_err(|source| DataplaneError::Netlink { ifindex: self.ifindex, source })?
            .ok_or_else(|| DataplaneError::NoSuchInterface {
                name: self.name.to_owned(),
                ifindex: self.ifindex,
            })?;
        let mut former = None;
        for link in pins.map_or(Ok(Vec::new()), |pins| pins.links(Hook::Ingress))? {
            // An equal index may be another network namespace's: only a program that runs here counts.
            let mode = netdev.mode_of(link.info.program).filter(|_| link.info.ifindex == self.ifindex);
            former = mode.map(|mode| (link, mode)).or(former);
        }
        let ours = former.as_ref().map(|(link, _)| link.info.program);
        if let Some((mode, id)) = netdev.programs.iter().find(|(_, id)| Some(*id) != ours) {
            return Err(self.occupied(*id, *mode));
        }
        Ok(Plan { is_veth: netdev.kind == Some(InfoKind::Veth), former })
    }

    fn occupied(&self, program: u32, mode: XdpMode) -> DataplaneError {
        DataplaneError::Occupied {
            interface: self.name.to_owned(),
            occupant: Box::new(Occupant::find(self.name, self.ifindex, program, mode)),
        }
    }

    /// Attaches, or swaps the program into the link that is there.
    pub(super) fn attach(
        &self,
        plan: Plan,
        program: BorrowedFd<'_>,
        pins: Option<&PinDir>,
        slot: LinkSlot,
    ) -> Result<AttachedLink, DataplaneError> {
        let name = self.name.to_owned();
        if let (Some((former, mode)), Some(pins)) = (plan.former, pins) {
            if self.keeps(mode, plan.is_veth) {
                sys::update_link(former.fd.as_fd(), program).map_err(|source| self.failed(source))?;
                let pin = Some(pins.rename_link(&former.path, Hook::Ingress, self.name)?);
                let attached = Attached { mode, slot, swapped: true };
                return Ok(AttachedLink { fd: former.fd, pin, name, attached });
            }
            // The kernel does not run both modes at once: the program is off for a moment.
            tracing::info!(interface = self.name, from = %mode, "changes XDP mode");
            drop(sys::detach_link(former.fd.as_fd()));
            pins::remove(&former.path)?;
        }
        let (fd, mode) = self.create(program, plan.is_veth)?;
        let pin = pins.map(|pins| pins.pin_link(fd.as_fd(), Hook::Ingress, self.name)).transpose()?;
        Ok(AttachedLink { fd, pin, name, attached: Attached { mode, slot, swapped: false } })
    }

    /// Whether a link in this mode can stay. Where `auto` has settled for generic, it stays so: trying anew would
    /// interrupt traffic at each restart.
    fn keeps(&self, mode: XdpMode, is_veth: bool) -> bool {
        match self.choice {
            XdpModeChoice::Auto => !is_veth || mode == XdpMode::Skb,
            XdpModeChoice::Driver => mode == XdpMode::Driver,
            XdpModeChoice::Skb => mode == XdpMode::Skb,
        }
    }

    fn create(&self, program: BorrowedFd<'_>, is_veth: bool) -> Result<(OwnedFd, XdpMode), DataplaneError> {
        let attach =
            |mode: XdpMode| sys::create_xdp_link(program, self.ifindex, mode.flags()).map(|fd| (fd, mode));
        let created = match self.choice {
            XdpModeChoice::Skb => attach(XdpMode::Skb),
            XdpModeChoice::Auto if is_veth => attach(XdpMode::Skb),
            XdpModeChoice::Driver => attach(XdpMode::Driver),
            XdpModeChoice::Auto => attach(XdpMode::Driver).or_else(|error| {
                if is_taken(&error) {
                    return Err(error);
                }
                if !is_unsupported(&error) {
                    tracing::warn!(interface = self.name, %error, "the driver refuses the XDP program, falling back to generic mode");
                }
                attach(XdpMode::Skb)
            }),
        };
        created.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> DataplaneError {
        if is_taken(&source) {
            // Someone came in between, or an upper device runs a program.
            let there = Netdev::query(self.ifindex)
                .ok()
                .flatten()
                .and_then(|netdev| netdev.programs.first().copied());
            if let Some((mode, id)) = there {
                return self.occupied(id, mode);
            }
        }
        let interface = self.name.to_owned();
        if is_unsupported(&source) && self.choice == XdpModeChoice::Driver {
            return DataplaneError::NoDriverMode { interface, source };
        }
        DataplaneError::Attach { interface, source }
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST))
}

fn is_unsupported(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EOPNOTSUPP)
}
