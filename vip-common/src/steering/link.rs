//! The Ethernet header in front of what is steered: new addresses, and new places when IP headers come or go behind it.

use crate::decision::Family;
use crate::packet::ethernet::{self, Mac};
use crate::packet::{Bytes, BytesMut, Headroom};

/// Offset of the type in an untagged header, or of the first tag.
const TYPE: usize = 12;

/// Whom the next station is told that the frame is from, and who that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// This node's interface.
    pub own: Mac,
    /// The next station.
    pub next: Mac,
}

impl Hop {
    /// Back to where the frame came from; `None` if that is no station.
    #[inline(always)]
    pub fn back<B: Bytes + ?Sized>(frame: &B, own: Mac) -> Option<Self> {
        let next = ethernet::source(frame)?;
        next.is_station().then_some(Self { own, next })
    }

    /// Writes both addresses; tags stay.
    #[inline(always)]
    #[must_use]
    pub fn write<B: BytesMut + ?Sized>(&self, frame: &mut B) -> Option<()> {
        self.next.store(frame, ethernet::DESTINATION)?;
        self.own.store(frame, ethernet::SOURCE)
    }
}

/// Makes room of `by` bytes behind the link header of `header` bytes, which stays in front with its tags: another next hop, and
/// the type of what now begins behind it.
#[inline(always)]
#[must_use]
pub(super) fn open<B: Headroom + ?Sized>(
    frame: &mut B,
    header: usize,
    by: usize,
    hop: Hop,
    family: Family,
) -> Option<()> {
    frame.grow_front(by)?;
    move_tags(frame, header, by, 0)?;
    finish(frame, header, hop, family)
}

/// The reverse: takes away `by` bytes behind the link header.
#[inline(always)]
#[must_use]
pub(super) fn close<B: Headroom + ?Sized>(
    frame: &mut B,
    header: usize,
    by: usize,
    family: Family,
) -> Option<()> {
    let own = Mac::load(frame, ethernet::DESTINATION)?;
    let from = Mac::load(frame, ethernet::SOURCE)?;
    move_tags(frame, header, 0, by)?;
    frame.cut_front(by)?;
    finish(frame, header, Hop { own: from, next: own }, family)
}

#[inline(always)]
fn finish<B: BytesMut + ?Sized>(frame: &mut B, header: usize, hop: Hop, family: Family) -> Option<()> {
    let ethertype = match family {
        Family::V4 => ethernet::IPV4,
        Family::V6 => ethernet::IPV6,
    };
    hop.write(frame)?;
    frame.store(header - 2, ethertype.to_be_bytes())
}

/// Copies the tags of the header that begins at `from` to the one that begins at `to`. At most two: a loop would be no
/// shorter. They are further apart than they are long.
#[inline(always)]
fn move_tags<B: BytesMut + ?Sized>(frame: &mut B, header: usize, from: usize, to: usize) -> Option<()> {
    if header > ethernet::HEADER {
        let tag: [u8; ethernet::TAG] = frame.load(from + TYPE)?;
        frame.store(to + TYPE, tag)?;
    }
    if header > ethernet::HEADER + ethernet::TAG {
        let tag: [u8; ethernet::TAG] = frame.load(from + TYPE + ethernet::TAG)?;
        frame.store(to + TYPE + ethernet::TAG, tag)?;
    }
    Some(())
}
