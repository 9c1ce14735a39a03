//! The authentication trailer: an HMAC-SHA256 behind an advert, for routers of our own kind (RFC 2104; RFC 7474 and RFC
//! 7166 do the like for OSPF).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                VRRP message, as without a trailer             |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                       Magic: "VPA1"                           |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                          Key id                               |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                     Stamp: epoch (34 bits),                   |
//! |                       counter (30 bits)                       |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                   HMAC-SHA256 (32 bytes)                      |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! The message's own checksum, and the length in its pseudo-header, end where the message ends: a receiver that knows
//! trailers but has no key reads the message as if there were none. The HMAC is over a label, source and destination address
//! (16 bytes each, IPv4-mapped), the message, and the trailer up to the HMAC. TTL and MACs are not covered.

mod key;
mod replay;
mod stamp;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use hmac::Mac;

pub use self::key::{KeyId, KeyRing, KeyRingError, NoKeyId};
pub use self::replay::{Freshness, Mark, Marks};
pub use self::stamp::{Epoch, Stamp, Stamps};
use super::codec::PseudoHeader;
use super::discard::Discard;
use crate::types::Family;

/// Bytes of a trailer.
pub const LEN: usize = 48;

const MAGIC: [u8; 4] = *b"VPA1";
/// Begins what is signed, so that a signature serves for nothing else.
const LABEL: &[u8; 16] = b"viplane advert 1";
const KEY_ID: std::ops::Range<usize> = 4..8;
const STAMP: std::ops::Range<usize> = 8..16;
/// The part that is signed.
const SIGNED: usize = 16;

/// What an instance expects of others' adverts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthRules {
    /// Any of these may have signed.
    pub keys: KeyRing,
    /// Whether adverts without a trailer are taken, with a remark: while a group is changing over.
    pub accept_unsigned: bool,
}

/// A trailer by one of our keys, and right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    /// By which one.
    pub key: KeyId,
    /// Before and after which others.
    pub stamp: Stamp,
}

/// What became of an advert's trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Neither is there a trailer, nor is one wanted.
    Plain,
    /// As it should be.
    Signed(Signed),
    /// Accepted for a reason that is worth a log line.
    Remarked(Discard),
}

impl Verdict {
    pub(super) const fn signed(self) -> Option<Signed> {
        match self {
            Self::Signed(signed) => Some(signed),
            Self::Plain | Self::Remarked(_) => None,
        }
    }

    pub(super) const fn remark(self) -> Option<Discard> {
        match self {
            Self::Remarked(why) => Some(why),
            Self::Plain | Self::Signed(_) => None,
        }
    }
}

/// Divides an IP payload into the message and what looks like a trailer behind it.
pub(super) fn split(payload: &[u8], family: Family) -> (&[u8], Option<&[u8; LEN]>) {
    let length = said_len(payload, family);
    match payload.split_at_checked(length) {
        Some((message, rest)) => match <&[u8; LEN]>::try_from(rest) {
            Ok(trailer) if trailer.starts_with(&MAGIC) => (message, Some(trailer)),
            _ => (payload, None),
        },
        None => (payload, None),
    }
}

/// How long a message is by what its header says: that of version 2 ends with authentication data.
fn said_len(payload: &[u8], family: Family) -> usize {
    let (version, count) =
        (payload.first().map_or(0, |byte| byte >> 4), payload.get(3).copied().unwrap_or(0));
    let address = match family {
        Family::V4 => 4,
        Family::V6 => 16,
    };
    let auth_data = if version == 2 { super::auth::AUTH_LEN } else { 0 };
    super::codec::HEADER_LEN + usize::from(count) * address + auth_data
}

/// Judges the trailer of a message.
///
/// # Errors
/// There is none although one is needed, or it is of no key of ours, or was not made for this message.
pub(super) fn judge(
    message: &[u8],
    trailer: Option<&[u8; LEN]>,
    addresses: PseudoHeader,
    rules: Option<&AuthRules>,
) -> Result<Verdict, Discard> {
    match (rules, trailer) {
        (None, None) => Ok(Verdict::Plain),
        (None, Some(_)) => Ok(Verdict::Remarked(Discard::UnexpectedTrailer)),
        (Some(AuthRules { accept_unsigned: true, .. }), None) => Ok(Verdict::Remarked(Discard::Unsigned)),
        (Some(_), None) => Err(Discard::Unsigned),
        (Some(rules), Some(trailer)) => rules.keys.verify(message, trailer, addresses).map(Verdict::Signed),
    }
}

impl KeyRing {
    /// Writes the trailer behind the message in `advert`, whose last [`LEN`] bytes it takes. Anything shorter is left alone.
    pub(super) fn sign(&self, advert: &mut [u8], addresses: PseudoHeader, stamp: Stamp) {
        let Some((message, trailer)) = advert.split_last_chunk_mut::<LEN>() else { return };
        let key = self.signing();
        let (signed, signature) = trailer.split_at_mut(SIGNED);
        signed[..4].copy_from_slice(&MAGIC);
        signed[KEY_ID].copy_from_slice(&key.id().0);
        signed[STAMP].copy_from_slice(&stamp.get().to_be_bytes());
        let digest = feed(key.mac(), message, signed, addresses).finalize();
        signature.copy_from_slice(&digest.into_bytes());
    }

    fn verify(
        &self,
        message: &[u8],
        trailer: &[u8; LEN],
        addresses: PseudoHeader,
    ) -> Result<Signed, Discard> {
        let (signed, signature) = trailer.split_at(SIGNED);
        let key = self.find(&signed[KEY_ID]).ok_or(Discard::UnknownKey)?;
        // In constant time.
        let verified = feed(key.mac(), message, signed, addresses).verify_slice(signature);
        verified.map_err(|_| Discard::BadSignature)?;
        let mut stamp = [0; 8];
        stamp.copy_from_slice(&signed[STAMP]);
        Ok(Signed { key: key.id(), stamp: Stamp::from_wire(u64::from_be_bytes(stamp)) })
    }
}

/// For other messages than adverts between those that share the keys.
impl KeyRing {
    /// The id of the key that signs.
    pub(crate) fn signing_id(&self) -> [u8; 4] {
        self.signing().id().0
    }

    /// The HMAC by the key that signs. The label is of this purpose alone.
    pub(crate) fn digest(&self, label: &[u8; 16], message: &[u8]) -> [u8; 32] {
        self.signing().mac().chain_update(label).chain_update(message).finalize().into_bytes().into()
    }

    /// Whether that is the HMAC by the key of this id; `None` if there is no such key. Takes the same time for whatever it is.
    pub(crate) fn is_digest(
        &self,
        id: &[u8],
        label: &[u8; 16],
        message: &[u8],
        signature: &[u8; 32],
    ) -> Option<bool> {
        let key = self.find(id)?;
        Some(key.mac().chain_update(label).chain_update(message).verify_slice(signature).is_ok())
    }
}

/// All that is covered.
fn feed(mut mac: key::HmacSha256, message: &[u8], signed: &[u8], addresses: PseudoHeader) -> key::HmacSha256 {
    mac.update(LABEL);
    mac.update(&wide(addresses.source()));
    mac.update(&wide(addresses.destination()));
    mac.update(message);
    mac.update(signed);
    mac
}

fn wide(address: IpAddr) -> [u8; 16] {
    let wide: Ipv6Addr = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    wide.octets()
}

/// What signs the adverts that an instance sends.
#[derive(Clone)]
pub struct Signer {
    keys: KeyRing,
    stamps: Arc<Stamps>,
}

impl Signer {
    /// Signs by the ring's first key, with stamps that the whole agent shares.
    pub fn new(keys: KeyRing, stamps: Arc<Stamps>) -> Self {
        Self { keys, stamps }
    }

    /// Signs what is about to be sent, with this stamp: one for each round of sending.
    pub(super) fn sign(&self, advert: &mut [u8], addresses: PseudoHeader, stamp: Stamp) {
        self.keys.sign(advert, addresses, stamp);
    }

    /// The stamp for what is sent now.
    pub(super) fn next(&self) -> Stamp {
        self.stamps.next()
    }

    /// The stamp for what somebody else may send once this agent sends nothing any more.
    pub(super) fn last(&self) -> Stamp {
        self.stamps.last()
    }
}

impl PartialEq for Signer {
    fn eq(&self, other: &Self) -> bool {
        self.keys == other.keys && Arc::ptr_eq(&self.stamps, &other.stamps)
    }
}

impl Eq for Signer {}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("keys", &self.keys).finish_non_exhaustive()
    }
}
