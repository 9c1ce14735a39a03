//! What a driver says of itself by ioctl(2): its name, its queues, its flags.

use std::ffi::CStr;
use std::io;
use std::mem;
use std::os::fd::AsRawFd;

use bytemuck::{Pod, Zeroable};
use nix::errno::Errno;
use socket2::{Domain, Socket, Type};

// Of linux/ethtool.h; `libc` has none of it.
const GET_DRIVER: u32 = 0x03;
const GET_FLAGS: u32 = 0x25;
const GET_CHANNELS: u32 = 0x3c;

/// A struct that the kernel fills for the command in its first word.
///
/// # Safety
/// It must be as long as what the kernel writes for any command that it is made with.
unsafe trait Answer: Pod {
    /// Ready to be asked with.
    fn to(command: u32) -> Self;
}

/// `struct ethtool_value`
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Value {
    command: u32,
    data: u32,
}

// SAFETY: the kernel's own layout; it is asked with GET_FLAGS only.
unsafe impl Answer for Value {
    fn to(command: u32) -> Self {
        Self { command, ..Self::zeroed() }
    }
}

/// `struct ethtool_drvinfo`
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    /// Versions, bus and reserved bytes.
    names: [[u8; 32]; 4],
    reserved: [u8; 12],
    counts: [u32; 5],
}

// SAFETY: the kernel's own layout; it is asked with GET_DRIVER only.
unsafe impl Answer for DriverInfo {
    fn to(command: u32) -> Self {
        Self { command, ..Self::zeroed() }
    }
}

/// `struct ethtool_channels`
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ChannelInfo {
    command: u32,
    /// Receive, transmit, other, combined.
    most: [u32; 4],
    /// The same.
    used: [u32; 4],
}

// SAFETY: the kernel's own layout; it is asked with GET_CHANNELS only.
unsafe impl Answer for ChannelInfo {
    fn to(command: u32) -> Self {
        Self { command, ..Self::zeroed() }
    }
}

/// How many queue pairs a NIC has: those in use, and those that it could have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    /// In use.
    pub used: u32,
    /// At most.
    pub most: u32,
}

/// The driver's name; `None` where there is none (lo).
///
/// # Errors
/// No such interface in this network namespace.
pub fn driver(interface: &str) -> io::Result<Option<String>> {
    let answer: Option<DriverInfo> = ethtool(interface, GET_DRIVER)?;
    let name = answer.as_ref().and_then(|answer| CStr::from_bytes_until_nul(&answer.driver).ok());
    Ok(name.map(|name| name.to_string_lossy().into_owned()).filter(|name| !name.is_empty()))
}

/// Its queue pairs; where receiving and sending have queues of their own, the fewer of them. `None` where the driver does
/// not say.
///
/// # Errors
/// No such interface in this network namespace.
pub fn channels(interface: &str) -> io::Result<Option<Channels>> {
    let answer: Option<ChannelInfo> = ethtool(interface, GET_CHANNELS)?;
    let pairs = |[receive, transmit, _, combined]: [u32; 4]| combined + receive.min(transmit);
    Ok(answer.map(|answer| Channels { used: pairs(answer.used), most: pairs(answer.most) }))
}

/// Its flags (`ETH_FLAG_...`); none where the driver has no settings.
///
/// # Errors
/// No such interface in this network namespace.
pub(super) fn flags(interface: &str) -> io::Result<u32> {
    let answer: Option<Value> = ethtool(interface, GET_FLAGS)?;
    Ok(answer.map_or(0, |answer| answer.data))
}

/// Whether IFF_MULTICAST is set, without which the kernel joins no groups at the NIC.
///
/// # Errors
/// No such interface in this network namespace.
pub fn does_multicast(interface: &str) -> io::Result<bool> {
    let mut request = request(interface);
    ioctl(libc::SIOCGIFFLAGS as _, &mut request)?;
    // SAFETY: the kernel has filled the union with flags, as it does for this command.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(libc::c_int::from(flags) & libc::IFF_MULTICAST != 0)
}

/// `None`: the driver knows no such command.
fn ethtool<T: Answer>(interface: &str, command: u32) -> io::Result<Option<T>> {
    let mut answer = T::to(command);
    let mut request = request(interface);
    request.ifr_ifru.ifru_data = (&raw mut answer).cast();
    match ioctl(libc::SIOCETHTOOL as _, &mut request) {
        Ok(()) => Ok(Some(answer)),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

fn request(interface: &str) -> libc::ifreq {
    // SAFETY: all zero is a valid ifreq: an empty name and a null pointer.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // The last byte stays 0.
    let room = request.ifr_name.len() - 1;
    for (slot, byte) in request.ifr_name[..room].iter_mut().zip(interface.bytes()) {
        *slot = byte as libc::c_char;
    }
    request
}

fn ioctl(command: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    // SAFETY: the request holds a name that ends and, for SIOCETHTOOL, a pointer to a struct of its command's layout
    // (`Answer`); both outlive the call.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), command as _, &raw mut *request) };
    Errno::result(answer)?;
    Ok(())
}
