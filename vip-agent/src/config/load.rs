//! Finding and reading the configuration file.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::model::Config;
use super::parse_with;
use super::problem::{Position, Problems};
use super::secrets::{
    Secrets, read_detect_key_file, read_key_file, read_password_file, read_server_identity, read_token_file,
    shared_mode,
};

/// Where the configuration is unless `--config` says otherwise.
pub const DEFAULT_FILE: &str = "/etc/viplane/config.yaml";

/// Bytes of the largest file that is read: a thousand instances fit many times.
pub const LARGEST_FILE: u64 = 1 << 20;

/// A configuration as read from a file.
#[derive(Clone, PartialEq, Eq)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// What the user should know.
    pub warnings: Problems,
    /// The text, verbatim: what [`super::LastGood`] keeps.
    pub source: String,
}

/// Without the text, which may hold a password.
impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { config, warnings, source: _ } = self;
        f.debug_struct("Loaded").field("config", config).field("warnings", warnings).finish_non_exhaustive()
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Neither named nor at its usual place.
    #[error(
        "no configuration: {DEFAULT_FILE} does not exist and --config names no other file (the sidecar way, by \
         POD_NAME, POD_NAMESPACE and SERVICE_NAME in the environment, is not available in this version)"
    )]
    Nowhere,
    /// It cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// More than [`LARGEST_FILE`].
    #[error("{}: is larger than 1 MiB, which no configuration needs", .0.display())]
    TooLarge(PathBuf),
    /// It is wrong.
    #[error(transparent)]
    Invalid(#[from] Problems),
    /// It is broken, and the last good configuration does not serve in its place.
    #[error("{broken}\nnor does the last good configuration serve: {last_good}")]
    NoLastGood {
        /// What is wrong with the file.
        broken: Box<LoadError>,
        /// What is wrong with the last good configuration.
        last_good: Box<LoadError>,
    },
}

impl LoadError {
    /// Whether there is no such file.
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Nowhere => true,
            Self::Unreadable { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Self::TooLarge(_) | Self::Invalid(_) | Self::NoLastGood { .. } => false,
        }
    }
}

/// The file that holds the configuration: the one named, else [`DEFAULT_FILE`].
///
/// # Errors
/// None is named and there is none at the usual place.
pub fn find(named: Option<&Path>) -> Result<PathBuf, LoadError> {
    match named {
        Some(path) => Ok(path.to_owned()),
        None if Path::new(DEFAULT_FILE).exists() => Ok(PathBuf::from(DEFAULT_FILE)),
        None => Err(LoadError::Nowhere),
    }
}

/// Reads and checks a file, and the password files that it names; `default_node` is the node's name where the file has none.
///
/// # Errors
/// It cannot be read, is too large, or is wrong.
pub fn load(path: &Path, default_node: &str) -> Result<Loaded, LoadError> {
    let unreadable = |source| LoadError::Unreadable { path: path.to_owned(), source };
    let (bytes, mode) = read(path).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(LoadError::TooLarge(path.to_owned()));
    }
    let file = path.display().to_string();
    let source = String::from_utf8(bytes).map_err(|error| {
        let valid = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]);
        Problems::single(&file, end_of(&valid), "is not UTF-8 text from here on")
    })?;
    checked(source, &file, default_node, shared_mode(mode))
}

/// Checks the text of a configuration that no other user can have read, and the password files that it names; `file` is
/// what problems call it.
///
/// # Errors
/// It is wrong.
pub fn load_text(source: String, file: &str, default_node: &str) -> Result<Loaded, LoadError> {
    checked(source, file, default_node, None)
}

fn checked(
    source: String,
    file: &str,
    default_node: &str,
    shared_mode: Option<u32>,
) -> Result<Loaded, LoadError> {
    let secrets = Secrets {
        password_file: &read_password_file,
        key_file: &read_key_file,
        detect_key_file: &read_detect_key_file,
        token_file: &read_token_file,
        server_identity: &read_server_identity,
        shared_mode,
    };
    let (config, warnings) = parse_with(&source, file, default_node, &secrets)?;
    Ok(Loaded { config, warnings, source })
}

/// A file's bytes, and its mode.
pub(super) fn read(path: &Path) -> io::Result<(Vec<u8>, u32)> {
    let file = File::open(path)?;
    let mode = file.metadata()?.mode();
    let mut bytes = Vec::new();
    // One byte more than allowed, so that a file which grows or has no size (a pipe) is bounded as well.
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
    Ok((bytes, mode))
}

/// The place behind the text's last character.
fn end_of(text: &str) -> Position {
    let line = text.matches('\n').count() as u64 + 1;
    let column = text.rsplit('\n').next().map_or(0, |last| last.chars().count()) as u64 + 1;
    Position { line, column }
}

/// The node's name where the configuration has none: NODE_NAME, else the host's name.
pub fn default_node() -> String {
    let named = std::env::var("NODE_NAME").ok().filter(|name| !name.trim().is_empty());
    let host = || nix::unistd::gethostname().ok().map(|name| name.to_string_lossy().into_owned());
    named.or_else(host).unwrap_or_else(|| "localhost".to_owned())
}
