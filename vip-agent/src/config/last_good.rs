//! The last configuration that was applied, kept so that a start needs nothing else.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::load::LARGEST_FILE;
use crate::files;

/// The copy of the last good configuration in `state_dir`.
#[derive(Clone, Debug)]
pub struct LastGood {
    path: PathBuf,
}

impl LastGood {
    /// `last-good.yaml` in that directory.
    pub fn in_dir(state_dir: &Path) -> Self {
        Self { path: state_dir.join("last-good.yaml") }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps a configuration's text, verbatim, and makes the directory if it is missing. A crash at any point leaves
    /// the former copy or the new one, whole. It may hold a password, so only its owner reads it (0600).
    ///
    /// # Errors
    /// The file system's.
    pub fn save(&self, source: &str) -> io::Result<()> {
        files::replace(&self.path, source.as_bytes())
    }

    /// The text that was kept last; `None` if there is none.
    ///
    /// # Errors
    /// The file system's; also a file that is no text or too large, which `save` never wrote.
    pub fn load(&self) -> io::Result<Option<String>> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut source = String::new();
        file.take(LARGEST_FILE + 1).read_to_string(&mut source)?;
        if source.len() as u64 > LARGEST_FILE {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(Some(source))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_was_saved_last_is_loaded_verbatim() {
        let dir = tempfile::tempdir().unwrap();
        let last_good = LastGood::in_dir(&dir.path().join("state"));
        assert_eq!(last_good.load().unwrap(), None);
        last_good.save("# first\n").unwrap();
        last_good.save("# second, with a comment\r\n\tand odd bytes: \u{1F600}").unwrap();
        assert_eq!(
            last_good.load().unwrap().unwrap(),
            "# second, with a comment\r\n\tand odd bytes: \u{1F600}"
        );
        let left: Vec<_> =
            fs::read_dir(dir.path().join("state")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["last-good.yaml"]);
        assert_eq!(fs::metadata(last_good.path()).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_crash_while_saving_neither_harms_the_copy_nor_the_next_save() {
        let dir = tempfile::tempdir().unwrap();
        let last_good = LastGood::in_dir(dir.path());
        last_good.save("old").unwrap();
        fs::write(dir.path().join("last-good.yaml.new"), "ha").unwrap();
        assert_eq!(last_good.load().unwrap().unwrap(), "old");
        last_good.save("new").unwrap();
        assert_eq!(last_good.load().unwrap().unwrap(), "new");
    }

    #[test]
    fn a_copy_that_is_no_text_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let last_good = LastGood::in_dir(dir.path());
        fs::write(last_good.path(), [0xff, 0xfe]).unwrap();
        assert_eq!(last_good.load().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
