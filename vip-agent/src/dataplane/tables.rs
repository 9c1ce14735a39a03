//! Which addresses are VIPs, on which interface, and which VLAN tags lead to which interface.

use std::io;
use std::net::IpAddr;

use aya::maps::{HashMap, MapData, MapError};
use vip_common::maps::{
    HeartbeatLink, MAX_LINKS, MAX_ROUTERS, MAX_VIPS, MAX_VLANS, Vip, Vip4Key, Vip6Key, VirtualMacKey, VlanKey,
};

use super::DataplaneError;
use super::filter::Filter;
use super::world::Maps;
use crate::types::MacAddr;

/// Keys and values as bytes: aya's marker for plain data cannot be put on vip-common's types.
type Table<const KEY: usize, const VALUE: usize> = HashMap<MapData, [u8; KEY], [u8; VALUE]>;

const VIP: usize = size_of::<Vip>();
const VLAN: usize = size_of::<VlanKey>();
const HEARTBEAT: usize = size_of::<HeartbeatLink>();
const VIRTUAL_MAC: usize = size_of::<VirtualMacKey>();

/// `FILTER`, `VIPS4`, `VIPS6`, `VIRTUAL_MACS` and `VLANS`.
#[derive(Debug)]
pub(super) struct Tables {
    filter: Filter,
    vips4: Table<{ size_of::<Vip4Key>() }, VIP>,
    vips6: Table<{ size_of::<Vip6Key>() }, VIP>,
    virtual_macs: Table<VIRTUAL_MAC, VIP>,
    vlans: HashMap<MapData, [u8; VLAN], u32>,
    heartbeat_links: HashMap<MapData, u32, [u8; HEARTBEAT]>,
}

impl Tables {
    pub(super) fn take(maps: &mut Maps) -> Result<Self, DataplaneError> {
        let filter = Filter::take(maps)?;
        Ok(Self {
            filter,
            vips4: maps.take("VIPS4")?,
            vips6: maps.take("VIPS6")?,
            virtual_macs: maps.take("VIRTUAL_MACS")?,
            vlans: maps.take("VLANS")?,
            heartbeat_links: maps.take("HEARTBEAT_LINKS")?,
        })
    }

    pub(super) fn insert_vip(
        &mut self,
        ifindex: u32,
        address: IpAddr,
        vip: Vip,
    ) -> Result<(), DataplaneError> {
        let value: [u8; VIP] = bytemuck::cast(vip);
        // First of all: an address that the filter rules out is not looked for in the tables.
        self.filter.admit(ifindex, address)?;
        let (map, inserted) = match address {
            IpAddr::V4(address) => ("VIPS4", self.vips4.insert(key4(ifindex, address), value, 0)),
            IpAddr::V6(address) => ("VIPS6", self.vips6.insert(key6(ifindex, address), value, 0)),
        };
        inserted.map_err(|error| {
            if !matches!(self.vip(ifindex, address), Ok(Some(_))) {
                drop(self.filter.rule_out(ifindex, address));
            }
            full(error, map, "VIP", MAX_VIPS)
        })
    }

    pub(super) fn remove_vip(&mut self, ifindex: u32, address: IpAddr) -> Result<(), DataplaneError> {
        match address {
            IpAddr::V4(address) => removed(self.vips4.remove(&key4(ifindex, address)), "VIPS4")?,
            IpAddr::V6(address) => removed(self.vips6.remove(&key6(ifindex, address)), "VIPS6")?,
        }
        self.filter.rule_out(ifindex, address)
    }

    pub(super) fn vip(&self, ifindex: u32, address: IpAddr) -> Result<Option<Vip>, DataplaneError> {
        let (map, found) = match address {
            IpAddr::V4(address) => ("VIPS4", self.vips4.get(&key4(ifindex, address), 0)),
            IpAddr::V6(address) => ("VIPS6", self.vips6.get(&key6(ifindex, address), 0)),
        };
        match found {
            Ok(bytes) => Ok(Some(bytemuck::cast(bytes))),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(failed(error, map)),
        }
    }

    pub(super) fn insert_virtual_mac(
        &mut self,
        ifindex: u32,
        mac: MacAddr,
        router: Vip,
    ) -> Result<(), DataplaneError> {
        let value: [u8; VIP] = bytemuck::cast(router);
        let inserted = self.virtual_macs.insert(virtual_mac_key(ifindex, mac), value, 0);
        inserted.map_err(|error| full(error, "VIRTUAL_MACS", "virtual MAC", MAX_ROUTERS))
    }

    pub(super) fn remove_virtual_mac(&mut self, ifindex: u32, mac: MacAddr) -> Result<(), DataplaneError> {
        removed(self.virtual_macs.remove(&virtual_mac_key(ifindex, mac)), "VIRTUAL_MACS")
    }

    pub(super) fn virtual_mac(&self, ifindex: u32, mac: MacAddr) -> Result<Option<Vip>, DataplaneError> {
        match self.virtual_macs.get(&virtual_mac_key(ifindex, mac), 0) {
            Ok(bytes) => Ok(Some(bytemuck::cast(bytes))),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(failed(error, "VIRTUAL_MACS")),
        }
    }

    pub(super) fn insert_vlan(&mut self, tag: VlanKey, ifindex: u32) -> Result<(), DataplaneError> {
        let inserted = self.vlans.insert(bytemuck::cast::<_, [u8; VLAN]>(tag), ifindex, 0);
        inserted.map_err(|error| full(error, "VLANS", "VLAN", MAX_VLANS))
    }

    pub(super) fn remove_vlan(&mut self, tag: VlanKey) -> Result<(), DataplaneError> {
        removed(self.vlans.remove(&bytemuck::cast::<_, [u8; VLAN]>(tag)), "VLANS")
    }

    pub(super) fn insert_heartbeat_link(
        &mut self,
        ifindex: u32,
        link: HeartbeatLink,
    ) -> Result<(), DataplaneError> {
        let inserted = self.heartbeat_links.insert(ifindex, bytemuck::cast::<_, [u8; HEARTBEAT]>(link), 0);
        inserted.map_err(|error| full(error, "HEARTBEAT_LINKS", "interface with fast detection", MAX_LINKS))
    }

    pub(super) fn remove_heartbeat_link(&mut self, ifindex: u32) -> Result<(), DataplaneError> {
        removed(self.heartbeat_links.remove(&ifindex), "HEARTBEAT_LINKS")
    }
}

fn key4(ifindex: u32, address: std::net::Ipv4Addr) -> [u8; size_of::<Vip4Key>()] {
    bytemuck::cast(Vip4Key { ifindex, address: address.octets() })
}

fn key6(ifindex: u32, address: std::net::Ipv6Addr) -> [u8; size_of::<Vip6Key>()] {
    bytemuck::cast(Vip6Key { ifindex, address: address.octets() })
}

fn virtual_mac_key(ifindex: u32, mac: MacAddr) -> [u8; VIRTUAL_MAC] {
    let [.., block, id] = mac.0;
    bytemuck::cast(VirtualMacKey { ifindex, mac: [block, id], reserved: [0; 2] })
}

/// Removing what is not there is fine: the caller wants it gone.
fn removed(result: Result<(), MapError>, map: &'static str) -> Result<(), DataplaneError> {
    match result {
        Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(()),
        Err(MapError::KeyNotFound) => Ok(()),
        result => result.map_err(|error| failed(error, map)),
    }
}

fn full(error: MapError, map: &'static str, what: &'static str, limit: u32) -> DataplaneError {
    if errno(&error) == Some(libc::E2BIG) {
        return DataplaneError::Full { what, limit };
    }
    failed(error, map)
}

fn errno(error: &MapError) -> Option<i32> {
    match error {
        MapError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    }
}

pub(super) fn failed(error: MapError, map: &'static str) -> DataplaneError {
    let source = match error {
        MapError::SyscallError(error) => error.io_error,
        MapError::IoError(error) => error,
        other => io::Error::other(other),
    };
    DataplaneError::Map { map, source }
}
