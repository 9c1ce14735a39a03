//! A frame that leaves, as the kernel has it: with whole checksums, or with partial ones that a device completes.

use etherparse::checksum::Sum16BitWords;
use vip_common::decision::Family;
use vip_common::packet::Bytes;
use vip_common::packet::checksum::Delta;
use vip_common::steering::egress::{Covered, Leaving, Left, restore};
use vip_common::steering::packet::protocol;

use crate::packets::read;
use crate::world::World;

pub(crate) struct Outgoing {
    pub(crate) frame: Vec<u8>,
    /// Offset of the checksum that is left to the device, if there is one.
    partial: Option<usize>,
}

impl Outgoing {
    pub(crate) fn whole(frame: Vec<u8>) -> Self {
        Self { frame, partial: None }
    }

    /// With nothing but the sum of the pseudo-header where its checksum belongs, as senders have it whose device does the rest.
    pub(crate) fn partial(mut frame: Vec<u8>) -> Self {
        let packet = read(&frame).expect("a packet");
        let at = packet.transport + if packet.protocol == protocol::TCP { 16 } else { 6 };
        let addresses = match packet.family {
            Family::V4 => packet.network + 12..packet.network + 20,
            Family::V6 => packet.network + 8..packet.network + 40,
        };
        let length = u32::try_from(packet.end - packet.transport).expect("short").to_be_bytes();
        let sum = Sum16BitWords::new().add_slice(&frame[addresses]).add_slice(&length);
        let sum = !sum.add_2bytes([0, packet.protocol]).ones_complement();
        frame[at..at + 2].copy_from_slice(&sum.to_ne_bytes());
        Self { frame, partial: Some(at) }
    }

    /// What the device makes of it.
    pub(crate) fn completed(mut self) -> Vec<u8> {
        if let Some(at) = self.partial {
            let packet = read(&self.frame).expect("a packet");
            let sum = Sum16BitWords::new().add_slice(&self.frame[packet.transport..packet.end]);
            let sum = match sum.ones_complement() {
                0 if packet.protocol == protocol::UDP => 0xffff,
                sum => sum,
            };
            self.frame[at..at + 2].copy_from_slice(&sum.to_ne_bytes());
        }
        self.frame
    }

    /// Sends it on its way.
    pub(crate) fn leave(mut self, world: &World) -> (Left, Vec<u8>) {
        let left = restore(&mut self, world);
        (left, self.completed())
    }
}

impl Bytes for Outgoing {
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.frame[..].load(offset)
    }
}

/// As bpf_l4_csum_replace does it.
impl Leaving for Outgoing {
    fn store<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Option<()> {
        *self.frame.get_mut(at..)?.first_chunk_mut()? = bytes;
        Some(())
    }

    fn adjust_header(&mut self, at: usize, delta: Delta) -> Option<()> {
        let before = self.load(at)?;
        self.store(at, delta.apply(before))
    }

    fn adjust_transport(&mut self, at: usize, delta: Delta, covered: Covered, udp: bool) -> Option<()> {
        let before: [u8; 2] = self.load(at)?;
        let after = match (self.partial, covered) {
            (None, _) if udp => delta.apply_udp(before),
            (None, _) => delta.apply(before),
            (Some(_), Covered::Data) => before,
            // What is there is a sum, not its complement.
            (Some(_), Covered::Addresses) => delta.apply(before.map(|byte| !byte)).map(|byte| !byte),
        };
        self.store(at, after)
    }
}
