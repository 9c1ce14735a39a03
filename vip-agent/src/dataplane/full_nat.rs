//! Which ports full NAT may use, and how the program comes to know them.

use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;

use aya::maps::{Array, Map, MapData};
use vip_common::steering::full_nat::ports::Ports;

use super::DataplaneError;
use super::tables::failed;
use super::world::misfit;

/// What local processes get ports of that do not ask for one, in the namespace of the calling thread.
const LOCAL_PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Ports of nobody in particular.
const UNPRIVILEGED: RangeInclusive<u16> = 1024..=65_535;
/// Kubernetes' default of `--service-node-port-range`, which kube-proxy takes on all addresses.
const NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;

const PORTS: usize = size_of::<Ports>() / size_of::<u32>();

/// Ports for flows to backends on other nodes: the unprivileged ones that are in none of `taken` (ports of services, and those
/// that this host listens on), nor NodePorts, nor in the kernel's `ip_local_port_range`, as the VIP may be a local address whose
/// connections the kernel gives ports to. With Linux's and Kubernetes' defaults these are 33,512.
///
/// [`Ports::count`] is zero where that leaves none, as with an `ip_local_port_range` of `1024 65535`: then full NAT refuses all
/// new flows, and that range must be narrowed.
///
/// # Errors
/// The kernel's range cannot be read.
pub fn nat_ports(taken: &[RangeInclusive<u16>]) -> io::Result<Ports> {
    let text = fs::read_to_string(LOCAL_PORTS)?;
    let local = range_of(&text)
        .ok_or_else(|| io::Error::other(format!("{LOCAL_PORTS} is no range: {}", text.trim())))?;
    Ok(Ports::new(UNPRIVILEGED, &[taken, &[local, NODE_PORTS]].concat()))
}

/// Reads `32768\t60999`.
fn range_of(text: &str) -> Option<RangeInclusive<u16>> {
    let mut ends = text.split_ascii_whitespace().map(str::parse);
    match (ends.next(), ends.next(), ends.next()) {
        (Some(Ok(first)), Some(Ok(last)), None) => Some(first..=last),
        _ => None,
    }
}

/// Writes `NAT_PORTS`.
pub(super) fn set_ports(map: BorrowedFd<'_>, ports: &Ports) -> Result<(), DataplaneError> {
    let map = map.try_clone_to_owned().map_err(|error| misfit(error.to_string()))?;
    let map = MapData::from_fd(map).map_err(|error| failed(error, "NAT_PORTS"))?;
    let mut array: Array<_, [u32; PORTS]> =
        Array::try_from(Map::Array(map)).map_err(|error| failed(error, "NAT_PORTS"))?;
    array.set(0, bytemuck::cast::<_, [u32; PORTS]>(*ports), 0).map_err(|error| failed(error, "NAT_PORTS"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_range_is_read_and_nothing_else_is_taken_for_one() {
        assert_eq!(range_of("32768\t60999\n"), Some(32_768..=60_999));
        for text in ["", "1024\n", "1 2 3", "a b", "1 65536"] {
            assert_eq!(range_of(text), None, "{text:?}");
        }
    }

    #[test]
    fn neither_the_hosts_own_ports_nor_services_nor_node_ports_are_among_them() {
        let ports = nat_ports(&[8000..=8003]).expect("a range");
        let local = range_of(&fs::read_to_string(LOCAL_PORTS).expect("Linux")).expect("a range");
        let mut others = [1023, 8000, 8003, 30_000, 32_767, *local.start(), *local.end()].into_iter();
        assert!(others.all(|port| !ports.contains(port)));
    }
}
