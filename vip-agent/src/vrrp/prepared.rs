//! Adverts built when the configuration is applied, so that sending one is a system call and nothing else; but for the
//! signature, which is new each time, where adverts are signed.

use std::fmt;
use std::net::IpAddr;

use super::codec::{EncodeError, Fields, PseudoHeader, advert_group, patch_interval, patch_priority};
use super::frame;
use super::trailer::{self, Signer, Stamp};
use crate::types::{Centiseconds, Family, MacAddr};

/// What one instance says over one family: the same advert once per destination, since the destination is part of the
/// checksum.
#[derive(Clone, PartialEq, Eq)]
pub struct PreparedAdverts {
    source: IpAddr,
    adverts: Vec<(IpAddr, Vec<u8>)>,
    /// Bytes of headers before each advert.
    headers: usize,
    /// Each ends with the room for a trailer then.
    signer: Option<Signer>,
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
        let adverts = destinations.iter().map(build).collect::<Result<_, _>>()?;
        Ok(Self { source, adverts, headers: 0, signer: None })
    }

    /// Builds a whole Ethernet frame from `mac` and `source` to the advert group, for a sender of frames
    /// ([`AdvertSender::open_for_frames`](super::socket::AdvertSender::open_for_frames)).
    ///
    /// # Errors
    /// What [`Fields::encode`] refuses.
    pub fn build_frame(fields: &Fields<'_>, source: IpAddr, mac: MacAddr) -> Result<Self, EncodeError> {
        Ok(Self::build(fields, source, &[advert_group(Family::of(source))])?.in_frame(mac))
    }

    /// Makes room for trailers, which [`Self::sign`] writes.
    #[must_use]
    pub fn signed_by(mut self, signer: Option<Signer>) -> Self {
        debug_assert!(self.headers == 0 && self.signer.is_none(), "before the frame is made, and once");
        if signer.is_some() {
            for (_, advert) in &mut self.adverts {
                advert.extend([0; trailer::LEN]);
            }
        }
        Self { signer, ..self }
    }

    /// Makes Ethernet frames from `mac` of them.
    #[must_use]
    pub fn in_frame(mut self, mac: MacAddr) -> Self {
        for (_, advert) in &mut self.adverts {
            let headers = frame::headers(mac, self.source, advert.len());
            self.headers = headers.len();
            advert.splice(0..0, headers);
        }
        self
    }

    /// To be called before each sending: a receiver hears nothing twice. Does not allocate.
    pub fn sign(&mut self) {
        if let Some(stamp) = self.signer.as_ref().map(Signer::next) {
            self.sign_with(stamp);
        }
    }

    /// Signs what somebody else is to send once this agent sends nothing any more: it is later than all that the agent signs
    /// until then, unless that takes new stamps ([`Stamps`](super::trailer::Stamps)) meanwhile.
    pub fn sign_farewell(&mut self) {
        if let Some(stamp) = self.signer.as_ref().map(Signer::last) {
            self.sign_with(stamp);
        }
    }

    fn sign_with(&mut self, stamp: Stamp) {
        let Some(signer) = &self.signer else { return };
        for (destination, advert) in &mut self.adverts {
            if let Some(addresses) = PseudoHeader::new(self.source, *destination) {
                signer.sign(&mut advert[self.headers..], addresses, stamp);
            }
        }
    }

    /// Changes the priority in place, without allocating: 1-255, or [`LEAVING`](super::codec::LEAVING).
    pub fn set_priority(&mut self, priority: u8) {
        for (_, advert) in &mut self.adverts {
            patch_priority(&mut advert[self.headers..], priority);
        }
    }

    /// Announces another interval from now on, in place: of version 3, which has it in centiseconds.
    pub fn set_interval(&mut self, interval: Centiseconds) {
        for (_, advert) in &mut self.adverts {
            patch_interval(&mut advert[self.headers..], interval);
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
