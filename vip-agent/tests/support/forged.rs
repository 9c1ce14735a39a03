//! Adverts over IPv4 that no honest router sends.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::net::Ipv4Addr;

use etherparse::{IpNumber, PacketBuilder};

pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
pub const GROUP_MAC: [u8; 6] = [1, 0, 0x5e, 0, 0, 18];
/// Nobody of the lab.
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 99);
pub const STRANGER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 99];

/// An advert of version 3 by a stranger to the group: VRID 51, priority 1 (which moves nobody), 100 ms, 10.0.0.50.
pub struct Forged {
    pub source: Ipv4Addr,
    pub source_mac: [u8; 6],
    pub destination: Ipv4Addr,
    pub destination_mac: [u8; 6],
    pub message: Vec<u8>,
    /// With the pseudo-header, as keepalived has it.
    pub right_checksum: bool,
    /// What follows, not in the checksum.
    pub trailer: Vec<u8>,
}

impl Forged {
    /// The frame of the advert that `change` makes of it.
    pub fn with(change: impl FnOnce(&mut Self)) -> Vec<u8> {
        let mut forged = Self {
            source: STRANGER,
            source_mac: STRANGER_MAC,
            destination: GROUP,
            destination_mac: GROUP_MAC,
            message: vec![0x31, 51, 1, 1, 0, 10, 0, 0, 10, 0, 0, 50],
            right_checksum: true,
            trailer: Vec::new(),
        };
        change(&mut forged);
        forged.frame()
    }

    /// Lists these VIPs instead.
    pub fn list<const N: usize>(&mut self, vips: [[u8; 4]; N]) {
        self.message.truncate(8);
        self.message[3] = N as u8;
        self.message.extend(vips.concat());
    }

    fn frame(mut self) -> Vec<u8> {
        if self.right_checksum {
            let length = u16::try_from(self.message.len()).expect("it fits a packet").to_be_bytes();
            let sum = etherparse::checksum::Sum16BitWords::new()
                .add_4bytes(self.source.octets())
                .add_4bytes(self.destination.octets())
                .add_2bytes([0, 112])
                .add_2bytes(length)
                .add_slice(&self.message)
                .ones_complement();
            self.message[6..8].copy_from_slice(&sum.to_ne_bytes());
        }
        self.message.extend(self.trailer);
        let link = PacketBuilder::ethernet2(self.source_mac, self.destination_mac);
        let builder = link.ipv4(self.source.octets(), self.destination.octets(), 255);
        let mut frame = Vec::new();
        builder.write(&mut frame, IpNumber::VRRP, &self.message).expect("a frame");
        frame
    }
}
