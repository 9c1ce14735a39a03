//! Adverts built when the configuration is applied, so that sending one is a system call and nothing else.

use std::fmt;
use std::net::IpAddr;

use super::codec::{EncodeError, Fields, PseudoHeader, advert_group, patch_priority};
use super::frame;
use crate::types::{Family, MacAddr};

/// What one instance says over one family: the same advert once per destination, since the destination is part of the
/// checksum.
#[derive(Clone, PartialEq, Eq)]
pub struct PreparedAdverts {
    adverts: Vec<(IpAddr, Vec<u8>)>,
    /// Bytes of headers before each advert.
    headers: usize,
}

impl PreparedAdverts {
    /// Builds the adverts from `source` to each of `destinations`: the advert group alone, or the unicast peers.
    ///
    /// # Errors
    /// What [`Fields::encode`] refuses; a destination of another family than `source`.
    pub fn build(fields: &Fields<'_>, source: IpAddr, destinations: &[IpAddr]) -> Result<Self, EncodeError> {
        let family = Family::of(source);
        let build = |&destination: &IpAddr| {
            let pseudo = PseudoHeader::new(source, destination)
                .ok_or(EncodeError::WrongFamily { address: destination, family })?;
            let mut advert = vec![0; fields.encoded_len(family)];
            fields.encode(pseudo, &mut advert)?;
            Ok((destination, advert))
        };
        Ok(Self { adverts: destinations.iter().map(build).collect::<Result<_, _>>()?, headers: 0 })
    }

    /// Builds a whole Ethernet frame from `mac` and `source` to the advert group, for a sender of frames
    /// ([`AdvertSender::open_for_frames`](super::socket::AdvertSender::open_for_frames)).
    ///
    /// # Errors
    /// What [`Fields::encode`] refuses.
    pub fn build_frame(fields: &Fields<'_>, source: IpAddr, mac: MacAddr) -> Result<Self, EncodeError> {
        let mut prepared = Self::build(fields, source, &[advert_group(Family::of(source))])?;
        for (_, advert) in &mut prepared.adverts {
            let headers = frame::headers(mac, source, advert.len());
            prepared.headers = headers.len();
            advert.splice(0..0, headers);
        }
        Ok(prepared)
    }

    /// Changes the priority in place, without allocating: 1-255, or [`LEAVING`](super::codec::LEAVING).
    pub fn set_priority(&mut self, priority: u8) {
        for (_, advert) in &mut self.adverts {
            patch_priority(&mut advert[self.headers..], priority);
        }
    }

    /// Each destination with the IP payload, or the frame, for it.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (IpAddr, &[u8])> {
        self.adverts.iter().map(|(destination, advert)| (*destination, advert.as_slice()))
    }
}

/// Without the bytes: those of version 2 may hold a password.
impl fmt::Debug for PreparedAdverts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(to, advert)| (to, advert.len()))).finish()
    }
}
