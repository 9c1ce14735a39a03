//! What a NIC takes away from frames before XDP sees them.

use std::io;
use std::mem;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use socket2::{Domain, Socket, Type};

/// Of linux/ethtool.h; `libc` has none of it.
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETH_FLAG_RXVLAN: u32 = 1 << 8;

/// `struct ethtool_value`
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Whether the NIC takes VLAN tags off (`rx-vlan-offload`): then XDP sees tagged frames as untagged ones.
///
/// # Errors
/// No such interface in this network namespace.
pub fn strips_vlan_tags(interface: &str) -> io::Result<bool> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    let mut value = Value { command: ETHTOOL_GFLAGS, data: 0 };
    // SAFETY: all zero is a valid ifreq: an empty name and a null pointer.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // The last byte stays 0.
    let room = request.ifr_name.len() - 1;
    for (slot, byte) in request.ifr_name[..room].iter_mut().zip(interface.bytes()) {
        *slot = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request holds a name that ends, and a pointer to a value of the command's type; both outlive the call.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    match Errno::result(answer) {
        Ok(_) => Ok(value.data & ETH_FLAG_RXVLAN != 0),
        // A driver without settings has no such one.
        Err(Errno::EOPNOTSUPP) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
