//! What the cluster wants of this node: a document in the configuration's own format, read by its checks, and kept on disk.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde_json::Value;
use vip_kube_protocol::LONGEST;

use crate::config::{self, Instance, Problems};
use crate::files;

/// How problems call what was not read from a file.
const SAID: &str = "vip-kube";

/// Instances, and the text that they were read from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// In the document's order.
    pub instances: Vec<Instance>,
    text: String,
}

impl Document {
    /// What `vip-kube` says.
    ///
    /// # Errors
    /// All that a configuration file would be refused for.
    pub(super) fn of(instances: &Value) -> Result<Self, Problems> {
        Self::read(format!("{{\"instances\":{instances}}}"))
    }

    /// Reads a text.
    ///
    /// # Errors
    /// All that a configuration file would be refused for.
    pub(super) fn read(text: String) -> Result<Self, Problems> {
        let (config, _) = config::parse(&text, SAID, SAID)?;
        Ok(Self { instances: config.instances, text })
    }

    /// What was kept last. One that cannot be read is as none: the cluster itself knows better, sooner or later.
    pub(super) fn load(state_dir: &Path) -> Option<Self> {
        let path = path(state_dir);
        let mut text = String::new();
        let read = File::open(&path).and_then(|file| file.take(LONGEST as u64).read_to_string(&mut text));
        let why = match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => error.to_string(),
            Ok(_) => match Self::read(text) {
                Ok(document) => return Some(document),
                Err(problems) => problems.to_string(),
            },
        };
        tracing::warn!(
            "{} cannot be read, so nothing is known of the cluster until its API server answers: {why}",
            path.display()
        );
        None
    }

    /// Replaces what was kept as a whole: a crash at any point leaves the former document or this one.
    pub(super) fn save(&self, state_dir: &Path) -> io::Result<()> {
        files::replace(&path(state_dir), self.text.as_bytes())
    }
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("kubernetes.json")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one() -> Document {
        let unicast = json!({"source": ["10.0.0.1"], "peers": ["10.0.0.2"]});
        Document::of(&json!([{
            "name": "kube-shard-1", "virtual_router_id": 51, "priority": 77, "preempt": true, "preempt_delay": "5s",
            "unicast": unicast, "vips": ["10.0.0.70/24", "10.0.0.71"], "local_address": "never",
        }]))
        .unwrap()
    }

    #[test]
    fn what_was_kept_last_is_there_again() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = dir.path().join("state");
        assert_eq!(Document::load(&state_dir), None);
        let document = one();
        assert_eq!(document.instances[0].priority.get(), 77);
        document.save(&state_dir).unwrap();
        assert_eq!(Document::load(&state_dir), Some(document));
    }

    #[test]
    fn what_is_broken_on_disk_is_no_reason_to_fail() {
        let dir = tempfile::tempdir().unwrap();
        for text in
            ["", "{\"instances\":[{\"name\":\"ku", "{\"moons\": 2}", "{\"instances\":[{\"name\":\"a\"}]}"]
        {
            std::fs::write(path(dir.path()), text).unwrap();
            assert_eq!(Document::load(dir.path()), None, "{text}");
        }
    }

    #[test]
    fn what_a_file_would_be_refused_for_is_refused() {
        let two = |id: u8, vip: &str| {
            Document::of(&json!([
                {"name": "a", "virtual_router_id": 51, "vips": ["10.0.0.70"]},
                {"name": "b", "virtual_router_id": id, "vips": [vip]},
            ]))
        };
        assert!(two(52, "10.0.0.71").is_ok());
        assert!(two(51, "10.0.0.71").unwrap_err().to_string().contains("51 stands already"));
        assert!(two(52, "10.0.0.70").unwrap_err().to_string().contains("10.0.0.70 stands already"));
        assert!(two(52, "127.0.0.1").unwrap_err().to_string().contains("loopback"));
        assert!(Document::of(&json!("instances")).is_err());
        assert!(
            Document::of(&json!([{"name": "a", "virtual_router_id": 51, "vips": ["10.0.0.70"], "moons": 2}]))
                .is_err()
        );
    }
}
