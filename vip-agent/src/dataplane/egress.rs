//! The TC program by which answers of local backends leave an interface as the VIP's.
//!
//! A TCX link where the kernel has them (6.6), which is pinned and swapped like that of XDP; else a filter of a clsact qdisc, found
//! again by its handle. In front of other programs: one of those that ends the row would otherwise hide clients' answers from this
//! one. It itself never ends the row.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::pins::{self, Hook, PinDir};
use super::{Dataplane, DataplaneError, sys};

/// The program's name.
pub(super) const PROGRAM: &str = "vip_egress";

/// The filter's handle, which nobody has by accident.
const HANDLE: u32 = 0x7669_7065;
/// The first to be asked. Others may have the same, by other handles.
const PRIORITY: u32 = 1;
/// ETH_P_ALL
const ALL_PROTOCOLS: u16 = 3;

/// An interface that runs it.
#[derive(Debug)]
pub(super) enum Egress {
    /// By a link.
    Link { fd: OwnedFd, pin: Option<PathBuf> },
    /// By a filter.
    Filter { ifindex: u32 },
}

/// An interface that is to run it.
#[derive(Debug)]
pub(super) struct EgressTarget<'a> {
    pub(super) ifindex: u32,
    pub(super) name: &'a str,
    /// Whether what is pinned for this index is this very interface's, as its XDP link has shown.
    pub(super) known: bool,
    /// Whether there are to be no links, as before 6.6.
    pub(super) filter: bool,
}

impl EgressTarget<'_> {
    /// Runs the program there; in place of an earlier agent's without a gap.
    pub(super) fn attach(
        &self,
        program: BorrowedFd<'_>,
        pins: Option<&PinDir>,
    ) -> Result<Egress, DataplaneError> {
        if self.known
            && !self.filter
            && let Some(pins) = pins
            && let Some(former) =
                pins.links(Hook::Egress)?.into_iter().find(|link| link.info.ifindex == self.ifindex)
        {
            sys::update_link(former.fd.as_fd(), program).map_err(|source| self.failed(source))?;
            let pin = Some(pins.rename_link(&former.path, Hook::Egress, self.name)?);
            return Ok(Egress::Link { fd: former.fd, pin });
        }
        match if self.filter { Err(too_old()) } else { sys::create_tcx_egress_link(program, self.ifindex) } {
            Ok(fd) => {
                let pin = pins.map(|pins| pins.pin_link(fd.as_fd(), Hook::Egress, self.name)).transpose()?;
                Ok(Egress::Link { fd, pin })
            }
            // An unknown kind of attachment.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                set_filter(self.ifindex, program).map_err(|source| self.failed(source))?;
                Ok(Egress::Filter { ifindex: self.ifindex })
            }
            Err(source) => Err(self.failed(source)),
        }
    }

    fn failed(&self, source: io::Error) -> DataplaneError {
        DataplaneError::AttachEgress { interface: self.name.to_owned(), source }
    }
}

fn too_old() -> io::Error {
    io::Error::from_raw_os_error(libc::EINVAL)
}

impl Egress {
    /// Where it is pinned.
    pub(super) fn pin(&self) -> Option<&Path> {
        match self {
            Self::Link { pin, .. } => pin.as_deref(),
            Self::Filter { .. } => None,
        }
    }

    /// Runs this program in place of whatever runs there.
    pub(super) fn run(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        match self {
            Self::Link { fd, .. } => sys::update_link(fd.as_fd(), program),
            Self::Filter { ifindex } => set_filter(*ifindex, program),
        }
    }

    /// Leaves the pin to the link that has taken its place.
    pub(super) fn forget_pin(&mut self) {
        if let Self::Link { pin, .. } = self {
            *pin = None;
        }
    }

    /// Takes the program off at once, and removes the pin.
    pub(super) fn detach(self) -> Result<(), DataplaneError> {
        match self {
            Self::Link { fd, pin } => {
                // Refused only if the interface has gone, and the program with it.
                drop(sys::detach_link(fd.as_fd()));
                pin.as_deref().map_or(Ok(()), pins::remove)
            }
            Self::Filter { ifindex } => {
                remove_filter(ifindex);
                Ok(())
            }
        }
    }
}

impl Dataplane {
    /// Runs the TC program on the way out of an attached interface, if there are services.
    pub(super) fn attach_egress(&mut self, ifindex: u32) -> Result<(), DataplaneError> {
        let (Some(steering), Some(link)) = (&self.steering, self.links.get(&ifindex)) else { return Ok(()) };
        if self.egress.contains_key(&ifindex) {
            return Ok(());
        }
        let (name, known, filter) = (link.name.as_str(), link.attached.swapped, self.filters);
        let target = EgressTarget { ifindex, name, known, filter };
        let egress = target.attach(steering.egress.as_fd(), self.pins.as_ref())?;
        self.egress.insert(ifindex, egress);
        Ok(())
    }

    /// Attaches TC programs by filters, as on kernels before 6.6. For tests; before any interface is attached.
    #[doc(hidden)]
    pub fn attach_by_filters(&mut self) {
        self.filters = true;
    }

    /// The TC program, for measurements and tests that run it without an interface (BPF_PROG_TEST_RUN); `None` without steering.
    pub fn egress_program(&self) -> Option<BorrowedFd<'_>> {
        self.steering.as_ref().map(|steering| steering.egress.as_fd())
    }

    /// Takes it off. Fine if it is not there.
    pub(super) fn detach_egress(&mut self, ifindex: u32) -> Result<(), DataplaneError> {
        let Some(mut egress) = self.egress.remove(&ifindex) else { return Ok(()) };
        if self.egress.values().any(|other| other.pin().is_some() && other.pin() == egress.pin()) {
            // As with its link.
            egress.forget_pin();
        }
        egress.detach()
    }

    /// Runs this agent's program again where a successor has put its own.
    pub(super) fn reclaim_egress(&self) -> Result<(), DataplaneError> {
        let Some(steering) = &self.steering else { return Ok(()) };
        let run = |(ifindex, egress): (&u32, &Egress)| {
            let interface = || self.links.get(ifindex).map(|link| link.name.clone()).unwrap_or_default();
            let run = egress.run(steering.egress.as_fd());
            run.map_err(|source| DataplaneError::AttachEgress { interface: interface(), source })
        };
        self.egress.iter().map(run).fold(Ok(()), Result::and)
    }

    /// Removes the filters that an earlier agent has left where this one has none: it had services, or an older kernel.
    pub(super) fn remove_former_filters(&self) {
        for (ifindex, link) in &self.links {
            let by_filter = matches!(self.egress.get(ifindex), Some(Egress::Filter { .. }));
            if link.attached.swapped && !by_filter {
                remove_filter(*ifindex);
            }
        }
    }
}

/// Puts the program where the filter is, or makes one. The qdisc stays when it goes: others may use it by then.
fn set_filter(ifindex: u32, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut qdisc = message(ifindex)?;
    (qdisc.header.handle, qdisc.header.parent) = (TcHandle::from(0xffff_0000), TcHandle::CLSACT);
    qdisc.attributes.push(TcAttribute::Kind("clsact".to_owned()));
    let added = ask(RouteNetlinkMessage::NewQueueDiscipline(qdisc), NLM_F_CREATE | NLM_F_EXCL);
    match added {
        Err(error) if error.raw_os_error() != Some(libc::EEXIST) => return Err(error),
        _ => {}
    }
    let mut filter = filter(ifindex)?;
    filter.attributes.push(TcAttribute::Options(vec![
        TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_raw_fd().unsigned_abs())),
        TcOption::Bpf(TcFilterBpfOption::ProgName(PROGRAM.to_owned())),
        TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
    ]));
    ask(RouteNetlinkMessage::NewTrafficFilter(filter), NLM_F_CREATE)
}

/// Removes the filter that an agent left on an interface. There need be none, nor the interface.
pub(super) fn remove_filter(ifindex: u32) {
    if let Ok(filter) = filter(ifindex) {
        drop(ask(RouteNetlinkMessage::DelTrafficFilter(filter), 0));
    }
}

fn message(ifindex: u32) -> io::Result<TcMessage> {
    let mut message = TcMessage::default();
    message.header.index = i32::try_from(ifindex).map_err(io::Error::other)?;
    Ok(message)
}

fn filter(ifindex: u32) -> io::Result<TcMessage> {
    let mut filter = message(ifindex)?;
    filter.header.handle = TcHandle::from(HANDLE);
    filter.header.parent = TcHandle { minor: TcHandle::MIN_EGRESS, ..TcHandle::CLSACT };
    filter.header.info = PRIORITY << 16 | u32::from(ALL_PROTOCOLS.to_be());
    filter.attributes.push(TcAttribute::Kind(TcFilterBpf::KIND.to_owned()));
    Ok(filter)
}

fn ask(request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    let mut request = NetlinkMessage::from(request);
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        _ => Ok(()),
    }
}
