//! Keys of the authentication trailer: one that signs, and at most one more that is believed.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

pub(super) type HmacSha256 = Hmac<Sha256>;

/// Bytes of a key: as many as the hash has (RFC 2104, 3).
const KEY_LEN: usize = 32;

/// Which key signed, on the wire: made of the key, tells nothing of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(pub(super) [u8; 4]);

/// Text that is no key id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key id is 8 hexadecimal digits")]
pub struct NoKeyId;

/// A key, with the part of the HMAC that does not depend on the message already computed.
#[derive(Clone)]
pub(super) struct Key {
    bytes: [u8; KEY_LEN],
    id: KeyId,
    mac: HmacSha256,
}

/// The keys of an instance. The first signs, both verify: so a new key comes second on all nodes, then first, then alone.
///
/// They have no form that shows them.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyRing {
    first: Key,
    second: Option<Key>,
}

/// Text that holds no keys; does not repeat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    /// Only comments and empty lines.
    #[error("holds no key: it needs a line of 64 hexadecimal digits, as `openssl rand -hex 32` prints")]
    Empty,
    /// A rotation needs two.
    #[error("holds more than two keys: the first signs, the second is accepted as well")]
    TooMany,
    /// A line that is neither a key nor a comment.
    #[error("line {0} is no key: it must be 64 hexadecimal digits, as `openssl rand -hex 32` prints")]
    NoKey(usize),
    /// The second is the first.
    #[error("holds the same key twice")]
    Twice,
    /// One in four thousand million pairs.
    #[error("holds two keys whose ids are the same by chance: make another one")]
    SameId,
}

impl Key {
    fn new(bytes: [u8; KEY_LEN]) -> Self {
        // Any length serves: longer keys would be hashed, shorter ones padded.
        let mac = HmacSha256::new(&hmac::digest::Key::<HmacSha256>::from(padded(bytes)));
        let mut id = [0; 4];
        let digest = mac.clone().chain_update(b"viplane key id").finalize().into_bytes();
        id.copy_from_slice(&digest[..4]);
        Self { bytes, id: KeyId(id), mac }
    }

    /// 64 hexadecimal digits.
    fn from_hex(text: &str) -> Option<Self> {
        let digits: [u8; 2 * KEY_LEN] = text.as_bytes().try_into().ok()?;
        let mut bytes = [0; KEY_LEN];
        for (byte, &[high, low]) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
            *byte = (nibble(high)? << 4) | nibble(low)?;
        }
        Some(Self::new(bytes))
    }

    pub(super) const fn id(&self) -> KeyId {
        self.id
    }

    pub(super) fn mac(&self) -> HmacSha256 {
        self.mac.clone()
    }
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// To the hash's block, as RFC 2104, 2, has it.
fn padded(bytes: [u8; KEY_LEN]) -> [u8; 64] {
    let mut block = [0; 64];
    block[..KEY_LEN].copy_from_slice(&bytes);
    block
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Key {}

impl KeyRing {
    /// Reads one or two keys: a line each, 64 hexadecimal digits. Empty lines, and those that begin with `#`, do not count.
    ///
    /// # Errors
    /// Another number of keys, the same key twice, or a line that is none.
    pub fn parse(text: &str) -> Result<Self, KeyRingError> {
        let mut keys = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                keys.push(Key::from_hex(line).ok_or(KeyRingError::NoKey(index + 1))?);
            }
        }
        let mut keys = keys.into_iter();
        let (first, second) = (keys.next().ok_or(KeyRingError::Empty)?, keys.next());
        match &second {
            Some(_) if keys.next().is_some() => Err(KeyRingError::TooMany),
            Some(second) if *second == first => Err(KeyRingError::Twice),
            Some(second) if second.id == first.id => Err(KeyRingError::SameId),
            _ => Ok(Self { first, second }),
        }
    }

    /// The ids, that of the signing key first.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> {
        std::iter::once(&self.first).chain(&self.second).map(Key::id)
    }

    pub(super) const fn signing(&self) -> &Key {
        &self.first
    }

    pub(super) fn find(&self, id: &[u8]) -> Option<&Key> {
        std::iter::once(&self.first).chain(&self.second).find(|key| key.id.0 == id)
    }
}

impl std::str::FromStr for KeyId {
    type Err = NoKeyId;

    fn from_str(text: &str) -> Result<Self, NoKeyId> {
        let number = u32::from_str_radix(text, 16).map_err(|_| NoKeyId)?;
        if text.len() == 8 { Ok(Self(number.to_be_bytes())) } else { Err(NoKeyId) }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The ids alone.
impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789ABCDEF";
    const OTHER: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

    #[test]
    fn one_or_two_keys_are_read_and_comments_are_not() {
        assert_eq!(KeyRing::parse(ONE).unwrap().ids().count(), 1);
        let ring = KeyRing::parse(&format!("# since May\n{ONE}\n\n  # before\n{OTHER}\r\n")).unwrap();
        assert_eq!(ring.ids().count(), 2);
        assert_eq!(ring.ids().next(), KeyRing::parse(ONE).unwrap().ids().next(), "the first signs");
    }

    #[test]
    fn what_holds_no_keys_is_refused_by_its_line_without_repeating_it() {
        let short = &ONE[1..];
        let table = [
            (String::new(), KeyRingError::Empty),
            ("# only this\n\n".into(), KeyRingError::Empty),
            (short.into(), KeyRingError::NoKey(1)),
            (format!("{ONE}0"), KeyRingError::NoKey(1)),
            (format!("{ONE}\ncorrect horse battery staple"), KeyRingError::NoKey(2)),
            (format!("{ONE}\n{OTHER}\n{}", OTHER.replace('f', "0")), KeyRingError::TooMany),
            (format!("{ONE}\n{}", ONE.to_lowercase()), KeyRingError::Twice),
        ];
        for (text, expected) in table {
            let error = KeyRing::parse(&text).unwrap_err();
            assert_eq!(error, expected);
            assert!(!error.to_string().contains("horse") && !error.to_string().contains(short));
        }
    }

    #[test]
    fn keys_are_not_shown() {
        let shown = format!("{:?}", KeyRing::parse(&format!("{ONE}\n{OTHER}")).unwrap());
        assert_eq!(shown.len(), "[01234567, 01234567]".len(), "{shown}");
    }

    #[test]
    fn it_is_the_hmac_of_rfc_4231() {
        // Test case 1 (4.2): a key of 20 bytes, which padding makes a block.
        let mut block = [0; 64];
        block[..20].fill(0x0b);
        let mac = HmacSha256::new(&hmac::digest::Key::<HmacSha256>::from(block));
        let digest = mac.chain_update(b"Hi There").finalize().into_bytes();
        let expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
    }
}
