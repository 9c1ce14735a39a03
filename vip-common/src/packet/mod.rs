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

/// A frame whose start can move, for headers in front of it.
pub trait Headroom: BytesMut {
    /// Adds `by` bytes in front: whatever was there, so all of them must be written. `None`, and nothing changed, if there
    /// is no room. All offsets grow by as much.
    #[must_use]
    fn grow_front(&mut self, by: usize) -> Option<()>;

    /// Takes `by` bytes away in front; `None`, and nothing changed, if there are no more.
    #[must_use]
    fn cut_front(&mut self, by: usize) -> Option<()>;
}

impl Bytes for [u8] {
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }
}

/// A frame in user-space memory, with room to grow: the counterpart of the kernel's packet, its headroom and its tailroom.
#[derive(Debug)]
pub struct Frame<'a> {
    room: &'a mut [u8],
    start: usize,
    length: usize,
}

impl<'a> Frame<'a> {
    /// The first `length` bytes of `room` are the frame, the rest is tailroom; `None` if `room` is too short.
    pub fn new(room: &'a mut [u8], length: usize) -> Option<Self> {
        Self::with_headroom(room, 0, length)
    }

    /// `length` bytes of `room` from `start` are the frame; `None` if `room` is too short.
    pub fn with_headroom(room: &'a mut [u8], start: usize, length: usize) -> Option<Self> {
        (start.checked_add(length)? <= room.len()).then_some(Self { room, start, length })
    }

    /// The frame as it stands.
    pub fn as_bytes(&self) -> &[u8] {
        self.room.get(self.start..self.start + self.length).unwrap_or_default()
    }
}

impl Bytes for Frame<'_> {
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.as_bytes().load(offset)
    }
}

impl BytesMut for Frame<'_> {
    fn store<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        let frame = self.room.get_mut(self.start..self.start + self.length)?;
        *frame.get_mut(offset..)?.first_chunk_mut()? = bytes;
        Some(())
    }

    fn resize(&mut self, length: usize) -> Option<()> {
        // The kernel clears what it adds (bpf_xdp_adjust_tail), so that no stale memory goes out.
        self.room.get_mut(self.start..)?.get_mut(self.length..length.max(self.length))?.fill(0);
        self.length = length;
        Some(())
    }
}

impl Headroom for Frame<'_> {
    fn grow_front(&mut self, by: usize) -> Option<()> {
        self.start = self.start.checked_sub(by)?;
        self.length += by;
        Some(())
    }

    fn cut_front(&mut self, by: usize) -> Option<()> {
        self.length = self.length.checked_sub(by)?;
        self.start += by;
        Some(())
    }
}
