//! What the cluster wants of this node: a document in the configuration's own format, read by its checks, and kept on disk.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use vip_kube_protocol::{Backend, LONGEST, node};

use crate::config::{self, Instance, MOST_BACKENDS, Position, Problems, Service};
use crate::files;

/// How problems call what was not read from a file.
const SAID: &str = "vip-kube";

/// Instances and services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// In the document's order.
    pub instances: Vec<Instance>,
    /// Likewise; those of several documents that are alike are one.
    pub services: Vec<Arc<Service>>,
}

impl Document {
    /// What `vip-kube` says.
    ///
    /// # Errors
    /// All that a configuration file would be refused for.
    pub(super) fn of(instances: Value, services: Value) -> Result<Self, Problems> {
        let keys = [("instances".to_owned(), instances), ("services".to_owned(), services)];
        Self::of_json(&Value::Object(keys.into_iter().collect()))
    }

    /// Reads a text.
    ///
    /// # Errors
    /// All that a configuration file would be refused for.
    pub(super) fn read(text: &str) -> Result<Self, Problems> {
        let value: Value = serde_json::from_str(text).map_err(|error| {
            let at = Position { line: error.line() as u64, column: error.column() as u64 };
            Problems::single(SAID, at, &format!("is not JSON: {error}"))
        })?;
        Self::of_json(&value)
    }

    fn of_json(value: &Value) -> Result<Self, Problems> {
        let config = config::of_json(value, SAID)?;
        Ok(Self {
            instances: config.instances,
            services: config.services.into_iter().map(Arc::new).collect(),
        })
    }

    /// The same with other backends of some services.
    ///
    /// # Errors
    /// What is wrong with them: all that a configuration file would be refused for.
    pub(super) fn with_backends<'a>(
        &self,
        changed: impl IntoIterator<Item = (&'a String, &'a Vec<Backend>)>,
    ) -> Result<Self, String> {
        let mut document = self.clone();
        let places: HashMap<&str, usize> =
            self.services.iter().enumerate().map(|(place, service)| (service.name.as_str(), place)).collect();
        let vips: HashSet<IpAddr> =
            self.instances.iter().flat_map(|instance| &instance.vips).map(|vip| vip.address).collect();
        for (name, backends) in changed {
            let place = *places.get(name.as_str()).ok_or_else(|| format!("there is no service {name}"))?;
            let service = &self.services[place];
            let backends = checked(service, backends, &vips).map_err(|why| format!("{name}: {why}"))?;
            document.services[place] = Arc::new(Service { backends, ..Service::clone(service) });
        }
        let steered = document.services.iter().filter(|service| service.mode.is_steered());
        let count: usize = steered.map(|service| service.backends.len()).sum();
        if u32::try_from(count).map_or(true, |count| count > MOST_BACKENDS) {
            return Err(format!("{count} backends: at most {MOST_BACKENDS} fit"));
        }
        Ok(document)
    }

    /// What was kept last. One that cannot be read is as none: the cluster itself knows better, sooner or later.
    pub(super) fn load(state_dir: &Path) -> Option<Self> {
        let path = path(state_dir);
        let mut text = String::new();
        let read = File::open(&path).and_then(|file| file.take(LONGEST as u64).read_to_string(&mut text));
        let why = match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => error.to_string(),
            Ok(_) => match Self::read(&text) {
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
        let services: Vec<&Service> = self.services.iter().map(|service| &**service).collect();
        let text = serde_json::to_vec(&Kept { instances: &self.instances, services })?;
        files::replace(&path(state_dir), &text)
    }
}

/// As it is on disk.
#[derive(serde::Serialize)]
struct Kept<'a> {
    instances: &'a [Instance],
    services: Vec<&'a Service>,
}

/// Backends of a service, by the checks of a configuration file.
fn checked(
    service: &Service,
    backends: &[Backend],
    vips: &HashSet<IpAddr>,
) -> Result<Vec<config::Backend>, String> {
    let mut seen = HashSet::with_capacity(backends.len());
    let one = |Backend { address, weight }: &Backend| {
        let address = node(&address.to_string()).map_err(|error| error.to_string())?;
        let why = if !seen.insert(address) {
            "stands twice"
        } else if vips.contains(&address) {
            "is a VIP"
        } else if !service.mode.reaches(&service.vip, &address) {
            "is of a family that the mode cannot reach"
        } else {
            return Ok(config::Backend { address, weight: *weight, probe: None });
        };
        Err(format!("{address} {why}"))
    };
    backends.iter().map(one).collect()
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
        let instances = json!([{
            "name": "kube-shard-1", "virtual_router_id": 51, "priority": 77, "preempt": true, "preempt_delay": "5s",
            "unicast": unicast, "vips": ["10.0.0.70/24", "10.0.0.71"], "local_address": "never",
        }]);
        let services = json!([{
            "name": "kube-default.web-10.0.0.70", "vip": "10.0.0.70", "mode": "nat",
            "ports": [{"port": 80, "target": 8080, "protocol": "tcp"}, {"port": 53, "protocol": "udp"}],
            "affinity": "client_ip", "affinity_timeout": "10800s", "source_ranges": ["10.0.0.0/8"],
            "backends": [{"address": "10.2.0.1"}, {"address": "10.2.0.2", "weight": 0}],
        }]);
        Document::of(instances, services).unwrap()
    }

    fn backend(address: &str, weight: u16) -> Backend {
        Backend { address: address.parse().unwrap(), weight }
    }

    fn changed(document: &Document, name: &str, backends: &[Backend]) -> Result<Document, String> {
        document.with_backends([(&name.to_owned(), &backends.to_vec())])
    }

    #[test]
    fn what_was_kept_last_is_there_again() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = dir.path().join("state");
        assert_eq!(Document::load(&state_dir), None);
        let document = one();
        assert_eq!(document.instances[0].priority.get(), 77);
        assert_eq!(document.services[0].backends.len(), 2);
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
            let instances = json!([
                {"name": "a", "virtual_router_id": 51, "vips": ["10.0.0.70"]},
                {"name": "b", "virtual_router_id": id, "vips": [vip]},
            ]);
            Document::of(instances, json!([]))
        };
        assert!(two(52, "10.0.0.71").is_ok());
        assert!(two(51, "10.0.0.71").unwrap_err().to_string().contains("51 stands already"));
        assert!(two(52, "10.0.0.70").unwrap_err().to_string().contains("10.0.0.70 stands already"));
        assert!(two(52, "127.0.0.1").unwrap_err().to_string().contains("loopback"));
        assert!(Document::of(json!("instances"), json!([])).is_err());
        let with_moons = json!([{"name": "a", "virtual_router_id": 51, "vips": ["10.0.0.70"], "moons": 2}]);
        assert!(Document::of(with_moons, json!([])).is_err());
        let instances = json!([{"name": "a", "virtual_router_id": 51, "vips": ["10.0.0.70"]}]);
        let elsewhere = json!([{"name": "s", "vip": "10.0.0.71", "ports": [80], "mode": "local"}]);
        let why = Document::of(instances, elsewhere).unwrap_err().to_string();
        assert!(why.contains("services[0].vip: 10.0.0.71 is no instance's VIP"), "{why}");
    }

    #[test]
    fn other_backends_of_a_service_leave_all_else_as_it_was() {
        let document = one();
        let name = "kube-default.web-10.0.0.70";
        let other = changed(&document, name, &[backend("10.2.0.3", 1)]).unwrap();
        assert_eq!(other.instances, document.instances);
        let backends = vec![config::Backend { address: "10.2.0.3".parse().unwrap(), weight: 1, probe: None }];
        assert_eq!(*other.services[0], Service { backends, ..Service::clone(&document.services[0]) });
        assert_eq!(changed(&document, name, &[]).unwrap().services[0].backends, []);
    }

    #[test]
    fn backends_that_a_file_would_be_refused_for_are_refused() {
        let name = "kube-default.web-10.0.0.70";
        for (name, backends, why) in [
            ("other", vec![], "there is no service other"),
            (name, vec![backend("10.2.0.3", 1), backend("10.2.0.3", 0)], "10.2.0.3 stands twice"),
            (name, vec![backend("10.0.0.71", 1)], "10.0.0.71 is a VIP"),
            (name, vec![backend("fd00::3", 1)], "fd00::3 is of a family that the mode cannot reach"),
            (name, vec![backend("127.0.0.1", 1)], "a loopback address"),
        ] {
            let found = changed(&one(), name, &backends).unwrap_err();
            assert!(found.contains(why), "{found}");
        }
        let many: Vec<Backend> = (0..=MOST_BACKENDS)
            .map(|n| Backend { address: std::net::Ipv4Addr::from_bits(0x0a02_0000 + n).into(), weight: 1 })
            .collect();
        assert!(changed(&one(), name, &many).unwrap_err().contains("at most 16000 fit"));
    }
}
