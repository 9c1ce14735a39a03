//! The bearer token: what a client must know.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// A token as it is remembered: by its digest. So nothing shows it, and a comparison takes the same time wherever two tokens
/// begin to differ.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token([u8; 32]);

/// Why a text is no token. Does not repeat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Less than anybody would guess at.
    #[error("holds a token of {0} characters: at least 16 are needed, `openssl rand -hex 32` makes 64")]
    TooShort(usize),
    /// What cannot stand in a header.
    #[error(
        "holds something else than one line of letters, digits and `-._~+/=` (RFC 6750), with or without a line end"
    )]
    NotAToken,
}

/// Shortest token, in characters.
const SHORTEST: usize = 16;

impl Token {
    /// The token of this text (RFC 6750, 2.1: b64token).
    ///
    /// # Errors
    /// It is too short, or has characters that no token has.
    pub fn new(text: &str) -> Result<Self, TokenError> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if !text.bytes().all(fits) {
            return Err(TokenError::NotAToken);
        }
        if text.len() < SHORTEST {
            return Err(TokenError::TooShort(text.len()));
        }
        Ok(Self::digest(text.as_bytes()))
    }

    /// Whether an `Authorization` header shows this token.
    pub fn is_shown_by(&self, header: &[u8]) -> bool {
        let Some((scheme, shown)) = header.split_at_checked(b"bearer ".len()) else { return false };
        let shown = Self::digest(shown.trim_ascii());
        // Without a branch on what is secret.
        let differs = self.0.iter().zip(shown.0).fold(0, |differs, (a, b)| differs | (a ^ b));
        std::hint::black_box(differs) == 0 && scheme.eq_ignore_ascii_case(b"bearer ")
    }

    fn digest(text: &[u8]) -> Self {
        Self(Sha256::digest(text).into())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(masked)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "0123456789abcdef-._~+/=";

    #[test]
    fn only_the_whole_token_opens() {
        let token = Token::new(TEXT).unwrap();
        for shown in [format!("Bearer {TEXT}"), format!("bearer  {TEXT} ")] {
            assert!(token.is_shown_by(shown.as_bytes()), "{shown}");
        }
        let cut = &TEXT[..TEXT.len() - 1];
        for shown in ["", "Bearer", "Bearer ", TEXT, &format!("Bearer {cut}"), &format!("Basic {TEXT}")] {
            assert!(!token.is_shown_by(shown.as_bytes()), "{shown}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused_without_repeating_it() {
        assert_eq!(Token::new("short"), Err(TokenError::TooShort(5)));
        for text in ["0123456789 abcdef", "0123456789\nabcdef", "0123456789abcdéf"] {
            assert_eq!(Token::new(text), Err(TokenError::NotAToken), "{text}");
        }
        assert_eq!(Token::new(""), Err(TokenError::TooShort(0)));
        assert_eq!(format!("{:?}", Token::new(TEXT)), "Ok(Token(masked))");
    }
}
