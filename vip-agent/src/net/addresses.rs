//! VIPs on lo, each with a short lifetime that we renew: a dead agent's addresses go away by themselves.
//!
//! IPv4 as /32 of scope host, IPv6 as /128 without duplicate address detection and deprecated from the start, so that
//! a VIP never becomes a source address by accident. Ours are told from an administrator's by IFA_PROTO (Linux 5.18);
//! on older kernels by the journal and their finite lifetime.

mod delivery;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ipnet::IpNet;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, AddressScope, CacheInfo,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use tokio::sync::Mutex;
use tokio::task::{AbortHandle, spawn_blocking};
use tracing::warn;

use super::journal::{Journal, JournalError};
use super::links::{LinkAddress, decode_address};
use super::{NetlinkError, Rtnetlink};
use crate::types::MonotonicTime;

/// lo's index in every network namespace (LOOPBACK_IFINDEX of the kernel).
pub(super) const LO: u32 = 1;

/// IFA_PROTO of our addresses; 0-3 are the kernel's, no other is assigned (linux/if_addr.h). `ip address` shows it.
pub const ADDRESS_PROTOCOL: u8 = 0x76;

/// How long an address stays without renewal, and how often it is renewed.
#[derive(Clone, Copy, Debug)]
pub struct Lifetime {
    /// Seconds, 1-86400; the kernel takes the address away up to a second later.
    pub valid: u32,
    /// Between two renewals; a third of `valid` lets two of them fail.
    pub renewal: Duration,
}

impl Default for Lifetime {
    fn default() -> Self {
        Self { valid: 10, renewal: Duration::from_secs(3) }
    }
}

/// Why an address is not on lo, or still there.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// The kernel said no, or nothing.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The change is not written down, so it was not made.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// IPv6 is switched off.
    #[error(
        "lo takes no IPv6 address: set net.ipv6.conf.lo.disable_ipv6=0, or local_address: never for the IPv6 VIPs"
    )]
    Ipv6Disabled,
}

/// Where an address stands after [`LocalAddresses::add`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staged {
    /// On lo and ours: acknowledged by the kernel, renewed until removed.
    Ours,
    /// Somebody else has put it on an interface, so local listeners get it anyway; it is not touched.
    Foreign {
        /// Index of that interface.
        ifindex: u32,
    },
}

/// The addresses of one call with what became of each.
pub type Outcomes<T> = BTreeMap<IpAddr, Result<T, AddressError>>;

/// Puts VIPs on lo, keeps them there, takes them away.
#[derive(Debug)]
pub struct LocalAddresses {
    shared: Arc<Shared>,
    renewal: AbortHandle,
}

impl Drop for LocalAddresses {
    /// What is still on lo then goes away by itself.
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

impl LocalAddresses {
    /// Connects to the kernel and starts to renew. Must be called within a tokio runtime; it works on the network
    /// namespace of the calling thread.
    ///
    /// # Errors
    /// No netlink socket.
    pub fn start(journal: Arc<Journal>, lifetime: Lifetime) -> Result<Self, NetlinkError> {
        let rtnetlink = Rtnetlink::connect()?;
        let shared = Arc::new(Shared { rtnetlink, journal, lifetime, held: Mutex::new(Held::default()) });
        let renewal = tokio::spawn(Arc::clone(&shared).keep_renewing()).abort_handle();
        Ok(Self { shared, renewal })
    }

    /// Writes down in the journal what [`Self::add`] may be called with, so that it need not wait for the disk then.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub async fn prepare(&self, vips: &[IpAddr]) -> Result<(), JournalError> {
        self.shared.write_down(vips).await
    }

    /// Puts `vips` on lo; returns when local listeners get their packets. Those that are ours already are renewed.
    ///
    /// # Errors
    /// The journal cannot be written, or netlink fails as a whole; what failed for one address stands with it.
    pub async fn add(&self, vips: &[IpAddr]) -> Result<Outcomes<Staged>, AddressError> {
        self.shared.add(vips).await
    }

    /// Takes `vips` off lo; returns when the kernel has acknowledged it. What is not ours, or not there, is left.
    ///
    /// # Errors
    /// Netlink fails as a whole; the addresses then go away by themselves, for they are not renewed any more.
    pub async fn remove(&self, vips: &[IpAddr]) -> Result<Outcomes<()>, AddressError> {
        let mut held = self.shared.held.lock().await;
        for vip in vips {
            held.addresses.remove(vip);
        }
        self.shared.take_away(vips).await
    }

    /// Takes everything of ours off lo and crosses it out: the end of a clean exit.
    ///
    /// # Errors
    /// The first address that the kernel would not take away; it goes away by itself within its lifetime.
    pub async fn remove_all(&self) -> Result<(), AddressError> {
        let written_down = self.shared.journal.entries().addresses;
        let vips: Vec<_> = written_down.iter().copied().collect();
        self.remove(&vips).await?.into_values().collect::<Result<Vec<()>, _>>()?;
        let journal = Arc::clone(&self.shared.journal);
        on_disk(move || journal.forget_addresses(&written_down)).await?;
        Ok(())
    }

    /// What is on lo by us at present, as far as we know.
    pub async fn held(&self) -> BTreeSet<IpAddr> {
        self.shared.held.lock().await.addresses.clone()
    }
}

/// Takes what is ours of `vips` off lo.
pub(super) async fn take_away(rtnetlink: &Rtnetlink, vips: &BTreeSet<IpAddr>) -> Result<(), AddressError> {
    let present = present(rtnetlink, vips.iter()).await?;
    let ours = vips.iter().copied().filter(|vip| matches!(present.get(vip), Some(Holder::Us))).collect();
    delete(rtnetlink, ours).await?.into_values().collect()
}

#[derive(Debug)]
struct Shared {
    rtnetlink: Rtnetlink,
    journal: Arc<Journal>,
    lifetime: Lifetime,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    addresses: BTreeSet<IpAddr>,
    /// When the renewal last ran, whether or not there was anything to renew.
    renewed: MonotonicTime,
}

impl Default for Held {
    fn default() -> Self {
        Self { addresses: BTreeSet::new(), renewed: MonotonicTime::now() }
    }
}

/// Who has an address that is on some interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Us,
    Foreign { ifindex: u32 },
}

impl Shared {
    async fn write_down(&self, vips: &[IpAddr]) -> Result<(), JournalError> {
        let new = self.journal.unrecorded(vips);
        if new.is_empty() {
            return Ok(());
        }
        let journal = Arc::clone(&self.journal);
        on_disk(move || journal.record_addresses(new)).await
    }

    async fn add(&self, vips: &[IpAddr]) -> Result<Outcomes<Staged>, AddressError> {
        self.write_down(vips).await?;
        let mut held = self.held.lock().await;
        let present = present(&self.rtnetlink, vips.iter()).await?;
        let mut outcomes = Outcomes::new();
        let mut wanted = Vec::new();
        for &vip in vips.iter().collect::<BTreeSet<_>>() {
            match present.get(&vip) {
                Some(&Holder::Foreign { ifindex }) => {
                    outcomes.insert(vip, Ok(Staged::Foreign { ifindex }));
                }
                Some(Holder::Us) => wanted.push((vip, NLM_F_REPLACE)),
                None => wanted.push((vip, NLM_F_CREATE | NLM_F_EXCL)),
            }
        }
        let new: BTreeSet<IpAddr> =
            wanted.iter().filter(|(_, flags)| *flags != NLM_F_REPLACE).map(|(vip, _)| *vip).collect();
        let mut undelivered = BTreeSet::new();
        for (vip, result) in self.put(wanted).await? {
            let result = match result {
                Ok(()) => Ok(Staged::Ours),
                Err(error) if is_taken(&error) => Ok(Staged::Foreign { ifindex: LO }),
                Err(error) => Err(error),
            };
            if matches!(result, Ok(Staged::Ours)) {
                held.addresses.insert(vip);
                if let IpAddr::V6(ip) = vip
                    && new.contains(&vip)
                {
                    undelivered.insert(ip);
                }
            }
            outcomes.insert(vip, result);
        }
        for vip in delivery::wait_for(&self.rtnetlink, undelivered).await? {
            warn!(%vip, "the kernel does not deliver packets for this VIP on lo yet");
        }
        Ok(outcomes)
    }

    async fn put(&self, wanted: Vec<(IpAddr, u16)>) -> Result<Outcomes<()>, AddressError> {
        let requests = wanted.iter().map(|&(vip, flags)| {
            (RouteNetlinkMessage::NewAddress(address_on_lo(vip, self.lifetime.valid)), flags)
        });
        let results = self.rtnetlink.batch("put an address on lo", requests.collect()).await?;
        let explain = |vip: IpAddr, error: NetlinkError| match &error {
            NetlinkError::Refused { source, .. } if vip.is_ipv6() && is_ipv6_off(source) => {
                AddressError::Ipv6Disabled
            }
            _ => error.into(),
        };
        let outcome = |((vip, _), result): ((IpAddr, u16), Result<(), NetlinkError>)| {
            (vip, result.map_err(|error| explain(vip, error)))
        };
        Ok(wanted.into_iter().zip(results).map(outcome).collect())
    }

    async fn take_away(&self, vips: &[IpAddr]) -> Result<Outcomes<()>, AddressError> {
        let present = present(&self.rtnetlink, vips.iter()).await?;
        let (ours, others): (Vec<_>, Vec<_>) =
            vips.iter().copied().partition(|vip| matches!(present.get(vip), Some(Holder::Us)));
        let mut outcomes = delete(&self.rtnetlink, ours).await?;
        outcomes.extend(others.into_iter().map(|vip| (vip, Ok(()))));
        Ok(outcomes)
    }

    async fn keep_renewing(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(self.lifetime.renewal);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.renew().await {
                warn!(%error, "cannot renew the VIPs on lo");
            }
        }
    }

    async fn renew(&self) -> Result<(), AddressError> {
        let mut held = self.held.lock().await;
        let now = MonotonicTime::now();
        let slept = now.since(held.renewed) > Duration::from_secs(self.lifetime.valid.into());
        held.renewed = now;
        if held.addresses.is_empty() {
            return Ok(());
        }
        let present = present(&self.rtnetlink, held.addresses.iter()).await?;
        let mut wanted = Vec::new();
        held.addresses.retain(|&vip| {
            match present.get(&vip) {
                Some(Holder::Us) => wanted.push((vip, NLM_F_REPLACE)),
                Some(Holder::Foreign { ifindex }) => {
                    warn!(%vip, ifindex, "somebody else has put this VIP on an interface; it is left to them");
                    return false;
                }
                // Whoever sleeps longer than the lifetime is owner no more: what expired must be asked for anew.
                None if slept => {
                    warn!(%vip, "this VIP on lo expired while the agent did not run");
                    return false;
                }
                None => {
                    warn!(%vip, "somebody took this VIP off lo; it is put back");
                    wanted.push((vip, NLM_F_CREATE | NLM_F_EXCL));
                }
            }
            true
        });
        self.put(wanted).await?.into_values().collect()
    }
}

/// Who has which of `vips`; a foreign holder comes before us, wherever it stands.
async fn present(
    rtnetlink: &Rtnetlink,
    vips: impl Iterator<Item = &IpAddr>,
) -> Result<BTreeMap<IpAddr, Holder>, NetlinkError> {
    let vips: BTreeSet<IpAddr> = vips.copied().collect();
    let mut holders = BTreeMap::new();
    for (family, is_wanted) in [
        (AddressFamily::Inet, IpAddr::is_ipv4 as fn(&IpAddr) -> bool),
        (AddressFamily::Inet6, IpAddr::is_ipv6 as fn(&IpAddr) -> bool),
    ] {
        if !vips.iter().any(is_wanted) {
            continue;
        }
        let mut request = AddressMessage::default();
        request.header.family = family;
        let entries = rtnetlink.dump("list the addresses", RouteNetlinkMessage::GetAddress(request)).await?;
        let entries: Vec<_> = entries.iter().filter_map(indexed_address).collect();
        for (ifindex, address) in entries.iter().filter(|(_, address)| vips.contains(&address.net.addr())) {
            let holder =
                if is_ours(*ifindex, address) { Holder::Us } else { Holder::Foreign { ifindex: *ifindex } };
            let known = holders.entry(address.net.addr()).or_insert(holder);
            if *known == Holder::Us {
                *known = holder;
            }
        }
    }
    Ok(holders)
}

fn indexed_address(entry: &RouteNetlinkMessage) -> Option<(u32, LinkAddress)> {
    match entry {
        RouteNetlinkMessage::NewAddress(message) => Some((message.header.index, decode_address(message)?)),
        _ => None,
    }
}

fn is_ours(ifindex: u32, address: &LinkAddress) -> bool {
    let is_single = address.net.prefix_len() == address.net.max_prefix_len();
    let is_unmarked_like_ours = address.protocol == 0 && address.valid_lifetime.is_some() && !*MARKS_ARE_KEPT;
    ifindex == LO && is_single && (address.protocol == ADDRESS_PROTOCOL || is_unmarked_like_ours)
}

/// Whether this kernel has IFA_PROTO (Linux 5.18).
static MARKS_ARE_KEPT: LazyLock<bool> = LazyLock::new(|| {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(5), Some(18))
});

async fn delete(rtnetlink: &Rtnetlink, ours: Vec<IpAddr>) -> Result<Outcomes<()>, NetlinkError> {
    let requests = ours.iter().map(|&vip| (RouteNetlinkMessage::DelAddress(bare_address(vip)), 0)).collect();
    let results = rtnetlink.batch("take an address off lo", requests).await?;
    let settle = |result: Result<(), NetlinkError>| match result {
        Err(NetlinkError::Refused { source, .. }) if source.kind() == io::ErrorKind::AddrNotAvailable => {
            Ok(())
        }
        other => other.map_err(AddressError::from),
    };
    Ok(ours.into_iter().zip(results.into_iter().map(settle)).collect())
}

fn bare_address(vip: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = LO;
    message.header.prefix_len = IpNet::from(vip).prefix_len();
    message.header.family = if vip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.attributes = vec![AddressAttribute::Local(vip), AddressAttribute::Address(vip)];
    message
}

fn address_on_lo(vip: IpAddr, valid: u32) -> AddressMessage {
    let mut message = bare_address(vip);
    let mut lifetimes = CacheInfo::default();
    lifetimes.ifa_valid = valid;
    if vip.is_ipv4() {
        message.header.scope = AddressScope::Host;
        lifetimes.ifa_preferred = valid;
    } else {
        // Without the route of its own that a prefix gets: the one in the local table is what delivers.
        let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
        message.attributes.push(AddressAttribute::Flags(flags));
    }
    message.attributes.push(AddressAttribute::CacheInfo(lifetimes));
    message.attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(ADDRESS_PROTOCOL)));
    message
}

/// EACCES: disable_ipv6; EOPNOTSUPP: no IPv6 in this kernel.
fn is_ipv6_off(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EOPNOTSUPP))
}

fn is_taken(error: &AddressError) -> bool {
    matches!(error, AddressError::Netlink(NetlinkError::Refused { source, .. })
        if source.kind() == io::ErrorKind::AlreadyExists)
}

async fn on_disk(
    work: impl FnOnce() -> Result<(), JournalError> + Send + 'static,
) -> Result<(), JournalError> {
    spawn_blocking(work).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}
