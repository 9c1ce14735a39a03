//! The last configuration that was applied, kept for a start with a file that is broken.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::load::{LoadError, Loaded, load, read};
use super::schema::DEFAULT_STATE_DIR;
use super::tree::{Node, Value};
use crate::files;

/// How the first line begins, which the agent puts before the text.
const ABOUT: &str = "# kept by ";

/// Why an agent runs by the last good configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stale {
    /// What is wrong with the configuration file.
    pub why: String,
    /// Where the last good one is.
    pub path: PathBuf,
    /// By which version it was kept and when, as far as it says.
    pub about: Option<String>,
}

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

    /// Keeps a configuration's text below a line that says who keeps it since when, and makes the directory if it is
    /// missing. A crash at any point leaves the former copy or the new one, whole. It may hold a password, so only its
    /// owner reads it (0600).
    ///
    /// # Errors
    /// The file system's.
    pub fn save(&self, source: &str) -> io::Result<()> {
        let (version, now) = (env!("CARGO_PKG_VERSION"), SystemTime::now());
        let about = format!(
            "{ABOUT}vip-agent {version} at {}, when it was applied",
            humantime::format_rfc3339_seconds(now)
        );
        // The mark of UTF-8 may stand at the very beginning only.
        let text = source.trim_start_matches('\u{feff}');
        files::replace(&self.path, format!("{about}\n{text}").as_bytes())
    }

    /// What was kept last, as [`load`] reads it; what it says of itself is in its first line.
    ///
    /// # Errors
    /// There is none; it is no longer valid, for example because a file that it names is missing.
    pub fn load(&self, default_node: &str) -> Result<Loaded, LoadError> {
        load(&self.path, default_node)
    }
}

/// Reads a file as [`load`] does; in the place of one that is broken, the last good configuration.
///
/// Not in the place of one that is missing: whoever removes a configuration wants it gone.
///
/// # Errors
/// As [`load`]; [`LoadError::NoLastGood`] if there is a last good one and it does not serve either.
pub fn load_or_last_good(path: &Path, default_node: &str) -> Result<(Loaded, Option<Stale>), LoadError> {
    let broken = match load(path, default_node) {
        Ok(loaded) => return Ok((loaded, None)),
        Err(error) if error.is_missing() => return Err(error),
        Err(error) => error,
    };
    let last_good = LastGood::in_dir(&state_dir_of(&read(path).map(|(bytes, _)| bytes).unwrap_or_default()));
    match last_good.load(default_node) {
        Ok(loaded) => {
            let stale = Stale::new(broken.to_string(), &last_good, &loaded);
            Ok((loaded, Some(stale)))
        }
        Err(error) if error.is_missing() => Err(broken),
        Err(error) => Err(LoadError::NoLastGood { broken: Box::new(broken), last_good: Box::new(error) }),
    }
}

impl Stale {
    /// Runs by this one, because of that.
    pub fn new(why: String, last_good: &LastGood, loaded: &Loaded) -> Self {
        let about = loaded.source.lines().next().and_then(|line| line.strip_prefix(ABOUT));
        Self { why, path: last_good.path.clone(), about: about.map(str::to_owned) }
    }

    /// Who kept it, and when.
    pub fn about(&self) -> &str {
        self.about.as_deref().unwrap_or("somebody, some time ago")
    }
}

/// The `state_dir` of a file that may be broken anywhere: by its tree, else by its lines, else the default.
fn state_dir_of(bytes: &[u8]) -> PathBuf {
    let text = String::from_utf8_lossy(bytes);
    let in_tree = match Node::read(&text).map(|root| root.value) {
        Ok(Value::Mapping(entries)) => entries.into_iter().find_map(|entry| match entry.node.value {
            Value::Text(dir) if entry.key == "state_dir" => Some(dir),
            _ => None,
        }),
        _ => None,
    };
    let in_lines = || {
        let said = text.lines().find_map(|line| line.strip_prefix("state_dir:"))?;
        let plain = said.split(" #").next().unwrap_or_default().trim();
        Some(plain.trim_matches(['"', '\'']).to_owned())
    };
    let dir = in_tree.or_else(in_lines).map(PathBuf::from).filter(|dir| dir.is_absolute());
    dir.unwrap_or_else(|| DEFAULT_STATE_DIR.into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const VALID: &str = "instances: [{name: edge, virtual_router_id: 51, vips: [10.0.0.50]}]";

    struct Files {
        dir: tempfile::TempDir,
        config: PathBuf,
        last_good: LastGood,
    }

    /// A configuration file, and a last good one that was kept in a state_dir.
    fn files(config: impl AsRef<[u8]>, kept: &str) -> Files {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        let state = dir.path().join("state");
        let text = String::from_utf8_lossy(config.as_ref()).contains("STATE");
        let bytes = if text {
            String::from_utf8_lossy(config.as_ref()).replace("STATE", state.to_str().unwrap()).into_bytes()
        } else {
            config.as_ref().to_owned()
        };
        fs::write(&path, bytes).unwrap();
        let last_good = LastGood::in_dir(&state);
        last_good.save(kept).unwrap();
        Files { dir, config: path, last_good }
    }

    #[test]
    fn what_was_saved_last_is_below_a_line_that_says_when() {
        let dir = tempfile::tempdir().unwrap();
        let last_good = LastGood::in_dir(&dir.path().join("state"));
        assert!(last_good.load("node").unwrap_err().is_missing());
        last_good.save("# first\n").unwrap();
        let second = format!("{VALID}\r\n# a comment and odd characters: \u{1F600}");
        last_good.save(&second).unwrap();
        let kept = fs::read_to_string(last_good.path()).unwrap();
        let (about, text) = kept.split_once('\n').unwrap();
        assert!(
            about.starts_with("# kept by vip-agent 0") && about.contains("Z, when it was applied"),
            "{about}"
        );
        assert_eq!(text, second);
        assert_eq!(last_good.load("node").unwrap().config.instances[0].name.as_str(), "edge");
        let left: Vec<_> =
            fs::read_dir(dir.path().join("state")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["last-good.yaml"]);
        assert_eq!(fs::metadata(last_good.path()).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_crash_while_saving_neither_harms_the_copy_nor_the_next_save() {
        let dir = tempfile::tempdir().unwrap();
        let last_good = LastGood::in_dir(dir.path());
        let holds = |text: &str| fs::read_to_string(last_good.path()).unwrap().ends_with(text);
        last_good.save("old").unwrap();
        fs::write(dir.path().join("last-good.yaml.new"), "ha").unwrap();
        assert!(holds("\nold"));
        last_good.save("new").unwrap();
        assert!(holds("\nnew"));
    }

    #[test]
    fn whatever_may_begin_a_file_may_stand_below_that_line() {
        for text in [
            VALID.to_owned(),
            format!("\u{feff}{VALID}"),
            format!("%YAML 1.2\n---\n{VALID}"),
            format!("---\n{VALID}"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let last_good = LastGood::in_dir(dir.path());
            last_good.save(&text).unwrap();
            assert!(last_good.load("node").is_ok(), "{text:?}");
        }
    }

    #[test]
    fn a_file_that_is_broken_anywhere_gives_way_to_the_last_good_one_in_its_state_dir() {
        let broken: [&[u8]; 6] = [
            b"state_dir: STATE\ninstances: [{name: edge",
            b"state_dir: \"STATE\"  # here\ninstances: 7",
            b"{state_dir: STATE, instances: [], flavour: vanilla}",
            b"node: \"\nstate_dir: 'STATE'\n",
            b"# \xff\nstate_dir: STATE\n",
            b"instances:\n\t- tab\nstate_dir: STATE",
        ];
        for text in broken {
            let files = files(text, VALID);
            let (loaded, stale) = load_or_last_good(&files.config, "node").unwrap();
            let stale = stale.unwrap();
            assert_eq!(loaded.config.instances[0].name.as_str(), "edge");
            assert_eq!(stale.path, files.last_good.path());
            assert!(stale.about().starts_with("vip-agent 0"), "{stale:?}");
            assert!(stale.why.contains("config.yaml"), "{stale:?}");
        }
    }

    #[test]
    fn a_file_that_is_whole_or_missing_is_all_that_counts() {
        let files = files(format!("state_dir: STATE\n{VALID}"), "instances: []");
        let (loaded, stale) = load_or_last_good(&files.config, "node").unwrap();
        assert_eq!((loaded.config.instances.len(), stale), (1, None));
        let missing = load_or_last_good(&files.dir.path().join("absent.yaml"), "node").unwrap_err();
        assert!(missing.is_missing(), "{missing}");
    }

    #[test]
    fn where_both_are_broken_both_are_named() {
        let files = files("state_dir: STATE\ninstances: 7", "instances: 8");
        let error = load_or_last_good(&files.config, "node").unwrap_err().to_string();
        for part in ["config.yaml:2:12: instances: ", "last-good.yaml:2:12: instances: "] {
            assert!(error.contains(part), "{error}");
        }
    }
}
