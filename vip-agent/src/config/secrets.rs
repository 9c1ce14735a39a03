//! Secrets that a configuration holds or refers to: files of passwords and keys, and who else may read what.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use vip_common::heartbeat::Key;

use crate::api::{IdentityError, ServerIdentity, Token, TokenError};
use crate::vrrp::auth::{AUTH_LEN, Password, PasswordError};
use crate::vrrp::trailer::{KeyRing, KeyRingError};

/// Two keys, and room for comments.
const LARGEST_KEY_FILE: u64 = 16 << 10;

/// A long chain of large certificates.
const LARGEST_PEM_FILE: u64 = 256 << 10;

/// Permission bits by which others than the owner read or write a file.
const OTHERS: u32 = 0o066;

/// What reading a configuration needs beside its text.
#[derive(Clone, Copy)]
pub struct Secrets<'a> {
    /// Reads the file that a `password_file` names.
    pub password_file: &'a dyn Fn(&Path) -> Result<Password, SecretFileError>,
    /// Reads the file that a `key_file` names.
    pub key_file: &'a dyn Fn(&Path) -> Result<KeyRing, SecretFileError>,
    /// Reads the file that a `key_file` of `detect` names.
    pub detect_key_file: &'a dyn Fn(&Path) -> Result<Key, DetectKeyError>,
    /// Reads the file that `api.token_file` names.
    pub token_file: &'a dyn Fn(&Path) -> Result<Token, SecretFileError>,
    /// Reads the files of certificates and of a private key that `api.tls` names.
    pub server_identity: &'a dyn Fn(&Path, &Path) -> Result<ServerIdentity, IdentityFileError>,
    /// Permissions of the configuration file if they let others than its owner read it: a password in it is pointed out.
    pub shared_mode: Option<u32>,
}

impl Secrets<'_> {
    /// For a text that stands alone: the files are not read, and each is an error.
    pub const NONE: Self = Self {
        password_file: &|_| Err(SecretFileError::NotRead),
        key_file: &|_| Err(SecretFileError::NotRead),
        detect_key_file: &|_| Err(DetectKeyError::Refused(SecretFileError::NotRead)),
        token_file: &|_| Err(SecretFileError::NotRead),
        server_identity: &|certificates, _| {
            Err(IdentityFileError::Refused { path: certificates.into(), error: SecretFileError::NotRead })
        },
        shared_mode: None,
    };
}

/// A file of a password or of keys that does not serve. Says nothing of what is in it.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// The file system's word.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// A directory, a pipe, a device.
    #[error("is no regular file")]
    NotAFile,
    /// A secret that others read, or can replace, is none.
    #[error("may be read or written by others than its owner (mode {mode:04o}): `chmod 600 {path}`")]
    Shared {
        /// Its permissions.
        mode: u32,
        /// Its path, for the remedy.
        path: String,
    },
    /// Bytes that are no UTF-8.
    #[error("is no UTF-8 text")]
    NotText,
    /// Of another length, or of several lines.
    #[error("{0} (the file holds the password alone, with or without a line end)")]
    NoPassword(#[from] PasswordError),
    /// Neither one key nor two.
    #[error(transparent)]
    NoKeys(#[from] KeyRingError),
    /// Too short, or something else.
    #[error(transparent)]
    NoToken(#[from] TokenError),
    /// [`Secrets::NONE`].
    #[error("is not read here")]
    NotRead,
}

/// Reads a password file: one line, whose end is dropped. Symbolic links are followed; what counts are the permissions of
/// the file that was opened.
///
/// # Errors
/// It cannot be read, may be read or written by group or others, or holds no password.
pub fn read_password_file(path: &Path) -> Result<Password, SecretFileError> {
    // Enough to see that it is too long.
    let text = private_text(path, 4 * AUTH_LEN as u64)?;
    let line = text.strip_suffix('\n').map_or(&*text, |line| line.strip_suffix('\r').unwrap_or(line));
    Ok(Password::new(line)?)
}

/// Reads a key file ([`KeyRing::parse`]), under the same conditions.
///
/// # Errors
/// As for [`read_password_file`]; it holds neither one key nor two.
pub fn read_key_file(path: &Path) -> Result<KeyRing, SecretFileError> {
    Ok(KeyRing::parse(&private_text(path, LARGEST_KEY_FILE)?)?)
}

/// The first `most` bytes of a file that only its owner reads and writes.
fn private_text(path: &Path, most: u64) -> Result<String, SecretFileError> {
    text(path, most, shared_mode)
}

/// The first `most` bytes of a regular file, unless its permissions are `refused`.
fn text(path: &Path, most: u64, refused: impl Fn(u32) -> Option<u32>) -> Result<String, SecretFileError> {
    // A pipe must not make the agent wait.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(SecretFileError::NotAFile);
    }
    if let Some(mode) = refused(metadata.mode()) {
        return Err(SecretFileError::Shared { mode, path: path.display().to_string() });
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    String::from_utf8(bytes).map_err(|_| SecretFileError::NotText)
}

/// A key file that does not serve. Says nothing of what is in it.
#[derive(Debug, thiserror::Error)]
pub enum DetectKeyError {
    /// As with a password file.
    #[error(transparent)]
    Refused(#[from] SecretFileError),
    /// Something else than a key.
    #[error(
        "holds no key: 32 hexadecimal digits, as `openssl rand -hex 16` makes them, with or without a line end"
    )]
    NoKey,
}

/// Reads the key of fast detection: 32 hexadecimal digits, 128 bits.
///
/// # Errors
/// It cannot be read, may be read or written by group or others, or holds no key.
pub fn read_detect_key_file(path: &Path) -> Result<Key, DetectKeyError> {
    let text = private_text(path, 64)?;
    let digits: [u8; 32] = text.trim_end().as_bytes().try_into().map_err(|_| DetectKeyError::NoKey)?;
    let mut key = [0; 16];
    for (byte, digits) in key.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let (high, low) = digit(digits[0]).zip(digit(digits[1])).ok_or(DetectKeyError::NoKey)?;
        *byte = high << 4 | low;
    }
    Ok(Key::new(key))
}

/// Reads the API's token: one line, whose end is dropped.
///
/// # Errors
/// As for [`read_password_file`]; it holds no token.
pub fn read_token_file(path: &Path) -> Result<Token, SecretFileError> {
    Ok(Token::new(private_text(path, 4096)?.trim_end_matches(['\r', '\n']))?)
}

/// Files of certificates and key that do not serve. Says nothing of what is in them.
#[derive(Debug, thiserror::Error)]
pub enum IdentityFileError {
    /// One of them cannot be had; the key only its owner may read.
    #[error("{} {error}", path.display())]
    Refused {
        /// Which.
        path: PathBuf,
        /// Why.
        error: SecretFileError,
    },
    /// They hold something else, or do not belong together.
    #[error(transparent)]
    Unusable(#[from] IdentityError),
}

/// Reads a certificate chain and its private key, both in PEM.
///
/// # Errors
/// One cannot be read, the key may be read or written by group or others, or they make no server's identity.
pub fn read_server_identity(certificates: &Path, key: &Path) -> Result<ServerIdentity, IdentityFileError> {
    let refused = |path: &Path| {
        let path = path.to_owned();
        |error| IdentityFileError::Refused { path, error }
    };
    let chain = text(certificates, LARGEST_PEM_FILE, |_| None).map_err(refused(certificates))?;
    let key = private_text(key, LARGEST_PEM_FILE).map_err(refused(key))?;
    Ok(ServerIdentity::from_pem(chain.as_bytes(), key.as_bytes())?)
}

/// A file's permissions if others than its owner read or write it.
pub(super) const fn shared_mode(mode: u32) -> Option<u32> {
    if mode & OTHERS == 0 { None } else { Some(mode & 0o7777) }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    use super::*;

    struct PasswordFile {
        _dir: tempfile::TempDir,
        path: PathBuf,
    }

    impl PasswordFile {
        fn of(content: impl AsRef<[u8]>, mode: u32) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("vrrp.pass");
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            Self { _dir: dir, path }
        }

        fn refusal(&self) -> String {
            let refusal = read_password_file(&self.path).unwrap_err().to_string();
            refusal.replace(&self.path.display().to_string(), "FILE")
        }
    }

    #[test]
    fn the_line_is_the_password_and_its_end_is_dropped() {
        for content in ["secret12", "secret12\n", "secret12\r\n"] {
            let file = PasswordFile::of(content, 0o600);
            assert_eq!(read_password_file(&file.path).unwrap(), Password::new("secret12").unwrap());
        }
        let spaced = PasswordFile::of(" a b \n", 0o400);
        assert_eq!(read_password_file(&spaced.path).unwrap(), Password::new(" a b ").unwrap());
    }

    #[test]
    fn a_file_that_others_read_or_write_is_refused_with_the_remedy() {
        for mode in [0o644, 0o640, 0o660, 0o602, 0o604, 0o620, 0o777] {
            let expected = format!(
                "may be read or written by others than its owner (mode {mode:04o}): `chmod 600 FILE`"
            );
            assert_eq!(PasswordFile::of("secret12", mode).refusal(), expected);
        }
    }

    #[test]
    fn behind_a_link_it_is_the_file_that_counts() {
        for (mode, served) in [(0o600, true), (0o644, false)] {
            let file = PasswordFile::of("secret12", mode);
            let link = file.path.with_extension("link");
            symlink(&file.path, &link).unwrap();
            assert_eq!(read_password_file(&link).is_ok(), served);
        }
    }

    #[test]
    fn what_is_no_password_is_refused_without_repeating_it() {
        let alone = "(the file holds the password alone, with or without a line end)";
        let table = [
            ("", "a password must be 1-8 bytes: this one is empty"),
            ("\n", "a password must be 1-8 bytes: this one is empty"),
            ("first\nsecond\n", "a password must not hold control characters"),
            ("tab\tbed", "a password must not hold control characters"),
            (
                "hunter2hunter2hunter2hunter2hunter2hunter2hunter2",
                "a password must be 1-8 bytes, as VRRP version 2 has room for no more: this one is longer \
                 (keepalived uses the first eight and ignores the rest)",
            ),
        ];
        for (content, expected) in table {
            assert_eq!(PasswordFile::of(content, 0o600).refusal(), format!("{expected} {alone}"));
        }
        assert_eq!(PasswordFile::of([0xff, 0xfe], 0o600).refusal(), "is no UTF-8 text");
    }

    #[test]
    fn keys_are_read_from_a_file_of_their_owner_alone() {
        let key = "00".repeat(32);
        let file = PasswordFile::of(&key, 0o600);
        assert_eq!(read_key_file(&file.path).unwrap(), KeyRing::parse(&key).unwrap());
        let shared = PasswordFile::of(&key, 0o640);
        assert!(matches!(read_key_file(&shared.path), Err(SecretFileError::Shared { mode: 0o640, .. })));
        let refusal = read_key_file(&PasswordFile::of("hunter2", 0o600).path).unwrap_err().to_string();
        assert!(refusal.starts_with("line 1 is no key") && !refusal.contains("hunter2"), "{refusal}");
    }

    #[test]
    fn a_key_of_fast_detection_is_32_hexadecimal_digits() {
        for content in ["000102030405060708090a0b0c0d0e0f", "000102030405060708090A0B0C0D0E0F\n"] {
            let file = PasswordFile::of(content, 0o600);
            assert_eq!(
                read_detect_key_file(&file.path).unwrap(),
                Key::new(std::array::from_fn(|at| at as u8))
            );
        }
        let digits = "000102030405060708090a0b0c0d0e0f";
        for content in
            ["", "0", &digits[1..], &format!("{digits}0"), &digits.replace('a', "g"), &format!(" {digits}")]
        {
            let error = read_detect_key_file(&PasswordFile::of(content, 0o600).path).unwrap_err();
            assert!(matches!(error, DetectKeyError::NoKey), "{content:?}");
            assert!(content.is_empty() || !error.to_string().contains(&digits[1..]), "{error}");
        }
        let shared = read_detect_key_file(&PasswordFile::of(digits, 0o640).path).unwrap_err();
        assert!(matches!(shared, DetectKeyError::Refused(SecretFileError::Shared { mode: 0o640, .. })));
    }

    #[test]
    fn what_is_no_file_is_refused_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        for path in [&pipe, &dir.path().to_owned()] {
            assert!(matches!(read_password_file(path), Err(SecretFileError::NotAFile)), "{path:?}");
        }
        let absent = read_password_file(&dir.path().join("absent")).unwrap_err();
        assert_eq!(absent.to_string(), "cannot be read: No such file or directory (os error 2)");
    }
}
