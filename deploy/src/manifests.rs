//! deploy/manifests: what the chart renders for those who have no Helm, and a static pod made of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::{Helm, Release, Rendered, crds};

const MADE: &str = "# Made by `cargo xtask manifests`";

/// Each file of the folder that is made, and what should be in it.
///
/// # Errors
/// The chart cannot be rendered.
pub fn all(helm: &mut Helm) -> Result<BTreeMap<PathBuf, String>> {
    let folder = crate::folder().join("manifests");
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let plain = helm.render(Release::default(), &read("values.yaml")?)?;
    let release = Release { name: "viplane", namespace: "kube-system" };
    let api = helm.render(release, &read("api-server-values.yaml")?)?;
    Ok(BTreeMap::from([
        (folder.join("viplane.yaml"), objects(&plain)?),
        (folder.join("api-server-pod.yaml"), static_pod(&api)?),
        (folder.join("api-server-config.yaml"), config(&api)),
    ]))
}

/// Those that are not as [`all`] says.
///
/// # Errors
/// As [`all`].
pub fn stale(helm: &mut Helm) -> Result<Vec<PathBuf>> {
    let is_stale =
        |(path, text): (PathBuf, String)| (fs::read_to_string(&path).ok() != Some(text)).then_some(path);
    Ok(all(helm)?.into_iter().filter_map(is_stale).collect())
}

/// Writes them.
///
/// # Errors
/// As [`all`], or the folder cannot be written.
pub fn write(helm: &mut Helm) -> Result<Vec<PathBuf>> {
    let stale = stale(helm)?;
    for (path, text) in all(helm)?.into_iter().filter(|(path, _)| stale.contains(path)) {
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(stale)
}

/// The definitions of our own kinds and all rendered files one after the other, behind the namespace, in which such pods must be permitted.
fn objects(rendered: &Rendered) -> Result<String> {
    let namespace = "apiVersion: v1
kind: Namespace
metadata:
  name: viplane
  labels:
    # The agents are in the hosts' network.
    pod-security.kubernetes.io/enforce: privileged
";
    let mut text = format!(
        "{MADE} from values.yaml beside it: edit that, or this, and `kubectl apply -f`.\n{namespace}"
    );
    for definition in crds::all()?.values() {
        text.push_str("---\n");
        text.push_str(definition);
    }
    for file in rendered.files.values() {
        text.push_str("---\n");
        // Helm's bookkeeping: nothing here is managed by it.
        let lines = file.trim().trim_start_matches("---").trim_start().lines();
        for line in lines.filter(|line| !line.trim_start().starts_with("helm.sh/chart:")) {
            text.push_str(
                &line.replace("app.kubernetes.io/managed-by: Helm", "app.kubernetes.io/managed-by: kubectl"),
            );
            text.push('\n');
        }
    }
    Ok(text)
}

/// The agents' pod as the kubelet runs it by itself: it can name no object of the API server, so its file is the host's.
fn static_pod(rendered: &Rendered) -> Result<String> {
    let mut spec = rendered.pod().clone();
    let fields = spec.as_object_mut().context("the chart renders no pod")?;
    fields.remove("serviceAccountName");
    fields.insert("automountServiceAccountToken".to_owned(), json!(false));
    let volumes =
        fields.get_mut("volumes").and_then(Value::as_array_mut).context("the pod has no volumes")?;
    for volume in volumes.iter_mut().filter(|volume| volume["name"] == "config") {
        *volume = json!({ "name": "config", "hostPath": { "path": "/etc/viplane", "type": "Directory" } });
    }
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "vip-agent", "namespace": "kube-system", "labels": { "app.kubernetes.io/name": "vip-agent" } },
        "spec": spec,
    });
    let yaml = serde_saphyr::to_string(&pod).context("a pod as YAML")?;
    Ok(format!(
        "{MADE}: /etc/kubernetes/manifests/vip-agent.yaml, with api-server-config.yaml as /etc/viplane/config.yaml.\n{yaml}"
    ))
}

fn config(rendered: &Rendered) -> String {
    format!(
        "{MADE} from api-server-values.yaml: /etc/viplane/config.yaml of each control-plane node.\n{}",
        rendered.config()
    )
}
