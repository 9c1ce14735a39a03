//! Reads and writes headers through two small traits, so that the kernel and the tests run the same code.

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod tcp;
pub mod virtual_mac;

/// A frame, read in pieces of 1, 2, 4 or 8 bytes: what BPF does in one instruction, and the verifier can follow.
pub trait Bytes {
    /// The `N` bytes at `offset`; `None` if the frame ends before them.
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

/// A frame that can be rewritten in place.
pub trait BytesMut: Bytes {
    /// Writes `bytes` at `offset`; `None`, and nothing written, if the frame ends before their end.
    #[must_use]
    fn store<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()>;

    /// Cuts or grows the frame's tail; `None`, and nothing changed, if there is no room to grow.
    #[must_use]
    fn resize(&mut self, length: usize) -> Option<()>;
}

impl Bytes for [u8] {
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }
}

/// A frame in user-space memory, with room to grow: the counterpart of the kernel's packet and its tailroom.
#[derive(Debug)]
pub struct Frame<'a> {
    room: &'a mut [u8],
    length: usize,
}

impl<'a> Frame<'a> {
    /// The first `length` bytes of `room` are the frame, the rest is tailroom; `None` if `room` is too short.
    pub fn new(room: &'a mut [u8], length: usize) -> Option<Self> {
        (length <= room.len()).then_some(Self { room, length })
    }

    /// The frame as it stands.
    pub fn as_bytes(&self) -> &[u8] {
        self.room.get(..self.length).unwrap_or_default()
    }
}

impl Bytes for Frame<'_> {
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.as_bytes().load(offset)
    }
}

impl BytesMut for Frame<'_> {
    fn store<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        *self.room.get_mut(..self.length)?.get_mut(offset..)?.first_chunk_mut()? = bytes;
        Some(())
    }

    fn resize(&mut self, length: usize) -> Option<()> {
        // The kernel clears what it adds (bpf_xdp_adjust_tail), so that no stale memory goes out.
        self.room.get_mut(self.length..length.max(self.length))?.fill(0);
        self.length = length;
        Some(())
    }
}
