//! The simple text password of VRRPv2 (RFC 2338, 5.3.6 and 10.2): no protection against an attacker, who reads it off the
//! wire, but against routers that were configured for something else.

use std::fmt;

/// Bytes of authentication data in every advert of version 2 (RFC 3768, 5.3.10).
pub const AUTH_LEN: usize = 8;

/// What stands for a password wherever it would be shown. Longer than any, so that it is refused where it is pasted.
pub const MASK: &str = "***masked***";

/// A password of 1-8 bytes. It has no form that shows it but the one on the wire.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Password([u8; AUTH_LEN]);

/// Text that is no password; does not repeat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// An empty one would be the wire's zeros.
    #[error("a password must be 1-8 bytes: this one is empty")]
    Empty,
    /// keepalived cuts such a one off; here nothing is guessed.
    #[error(
        "a password must be 1-8 bytes, as VRRP version 2 has room for no more: this one is longer \
         (keepalived uses the first eight and ignores the rest)"
    )]
    TooLong,
    /// A zero byte would end it early on the wire; others are slips of an editor.
    #[error("a password must not hold control characters")]
    Control,
}

impl Password {
    /// Takes the text's bytes as they are.
    ///
    /// # Errors
    /// Empty, longer than [`AUTH_LEN`] bytes, or with control characters.
    pub fn new(text: &str) -> Result<Self, PasswordError> {
        let bytes = text.as_bytes();
        if bytes.is_empty() {
            return Err(PasswordError::Empty);
        }
        if text.chars().any(char::is_control) {
            return Err(PasswordError::Control);
        }
        let mut padded = [0; AUTH_LEN];
        padded.get_mut(..bytes.len()).ok_or(PasswordError::TooLong)?.copy_from_slice(bytes);
        Ok(Self(padded))
    }

    /// The authentication data of an advert: padded with zeros.
    pub const fn wire(&self) -> &[u8; AUTH_LEN] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_of_1_to_8_bytes_is_padded_with_zeros() {
        assert_eq!(Password::new("s").unwrap().wire(), b"s\0\0\0\0\0\0\0");
        assert_eq!(Password::new("secret12").unwrap().wire(), b"secret12");
        assert_eq!(Password::new("a b:\u{e4}").unwrap().wire(), b"a b:\xc3\xa4\0\0");
    }

    #[test]
    fn what_is_no_password_is_refused() {
        assert_eq!(Password::new(""), Err(PasswordError::Empty));
        assert_eq!(Password::new("secret123"), Err(PasswordError::TooLong));
        assert_eq!(Password::new("\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}"), Err(PasswordError::TooLong));
        assert_eq!(Password::new("a\0"), Err(PasswordError::Control));
        assert_eq!(Password::new("a\n"), Err(PasswordError::Control));
    }

    #[test]
    fn a_password_is_not_shown_and_its_mask_is_none() {
        assert_eq!(format!("{:?}", Some(Password::new("secret12").unwrap())), "Some(***masked***)");
        assert_eq!(Password::new(MASK), Err(PasswordError::TooLong));
    }
}
