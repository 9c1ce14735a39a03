//! The ConfigMap of kube-keepalived-vip as our configuration.
//!
//! `data` maps a VIP to `namespace/service[:NAT|DR|PROXY]`, or to nothing where it stands for itself. That project had one
//! VRRP router for all of them: VRRPv3, VRID 50, adverts of 1 s, no preemption. What backends a Service has is known to
//! the API server alone, so Services are written behind comment signs.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use super::document::{Document, scalar};
use super::{ImportError, Imported, yaml};
use crate::config::tree::{Entry, Value};

/// `--services-configmap` where the file does not name itself.
const USUAL: &str = "kube-system/vip-configmap";

/// Imports a file: the ConfigMap, or its `data` alone.
///
/// # Errors
/// It cannot be read, is no YAML, or has no entry whose key is an address.
pub fn import(file: &Path) -> Result<Imported, ImportError> {
    import_document(&Document::read(file)?)
}

fn import_document(document: &Document) -> Result<Imported, ImportError> {
    let data = match document.text(&["kind"]).as_deref() {
        Some("ConfigMap") => document.entries(&["data"]),
        Some(other) => return Err(document.error(format!("is a {other}, and no ConfigMap"))),
        None => document.entries(&[]),
    };
    let entries: Vec<_> = data.iter().map(|entry| (entry, address(&entry.key))).collect();
    if !entries.iter().any(|(_, vip)| vip.is_some()) {
        return Err(document.error(
            "has no entry whose key is an address: `data` of kube-keepalived-vip maps VIPs to Services",
        ));
    }
    Ok(Imported { yaml: written(document, &entries) })
}

/// A key as an address; those of ConfigMaps may hold no colon, so `fd00--50` stands for fd00::50.
fn address(key: &str) -> Option<IpAddr> {
    let key = key.trim();
    key.parse().ok().or_else(|| key.replace(['-', '_'], ":").parse::<Ipv6Addr>().ok().map(IpAddr::V6))
}

fn written(document: &Document, entries: &[(&Entry, Option<IpAddr>)]) -> String {
    let name = match (document.text(&["metadata", "namespace"]), document.text(&["metadata", "name"])) {
        (namespace, Some(name)) => format!("{}/{name}", namespace.as_deref().unwrap_or("default")),
        _ => USUAL.to_owned(),
    };
    let mut vips: Vec<String> = Vec::new();
    let mut services: Vec<String> = Vec::new();
    let mut seen: HashSet<IpAddr> = HashSet::new();
    for (entry, vip) in entries {
        let Some(vip) = vip else {
            let why = "NOT SERVED: the key is no address";
            vips.push(document.remark(entry, &entry.key, why));
            continue;
        };
        if !seen.insert(*vip) {
            vips.push(document.remark(entry, &entry.key, "NOT SERVED: this address stands here already"));
            continue;
        }
        vips.push(format!("- {}", yaml::quoted(&vip.to_string())));
        services.extend(of(document, entry, *vip));
    }
    let mut text = vec![
        yaml::comment(&format!(
            "Imported from {} by vip-agent {}: the VIPs of kube-keepalived-vip's ConfigMap, for agents that ask no API server.",
            document.name(),
            env!("CARGO_PKG_VERSION")
        )),
        yaml::comment(
            "In the cluster agents read that ConfigMap themselves, Services and their endpoints with it:",
        ),
        yaml::comment(&format!("kubernetes: {{ sources: [configmap], configmap: {} }}", yaml::quoted(&name))),
        "instances:".to_owned(),
    ];
    let instance = [
        "- name: vips".to_owned(),
        yaml::comment("  --vrid, 50 unless it was said otherwise"),
        "  virtual_router_id: 50".to_owned(),
        yaml::comment(
            "  --iface: the interface with an address in the VIPs' subnet, unless it is named here",
        ),
        "  advert_interval: 1s".to_owned(),
        "  preempt: false".to_owned(),
        yaml::comment("  --use-unicast: unicast: { source: THIS_NODE, peers: [THE, OTHERS] }"),
        "  vips:".to_owned(),
    ];
    let indented = |line: &String| match line.strip_prefix("#   ") {
        Some(rest) => format!("    # {rest}"),
        None => format!("  {line}"),
    };
    text.extend(instance.iter().map(indented));
    text.extend(vips.iter().map(|line| format!("      {line}")));
    if !services.is_empty() {
        text.push(yaml::comment("services:"));
        text.append(&mut services);
    }
    text.push(String::new());
    text.join("\n")
}

/// A VIP's Services, as comments.
fn of(document: &Document, entry: &Entry, vip: IpAddr) -> Vec<String> {
    let Some(value) = scalar(&entry.node) else {
        return match entry.node.value {
            Value::Null => Vec::new(),
            _ => vec![document.remark(
                entry,
                &entry.key,
                "NOT SERVED: is no text of the form namespace/service:METHOD",
            )],
        };
    };
    let listed = value.split(|c: char| c == ',' || c.is_whitespace()).filter(|part| !part.is_empty());
    listed.flat_map(|reference| service(document, entry, vip, reference)).collect()
}

fn service(document: &Document, entry: &Entry, vip: IpAddr, reference: &str) -> Vec<String> {
    let (name, method) = reference.split_once(':').unwrap_or((reference, "NAT"));
    let Some((namespace, service)) =
        name.split_once('/').filter(|(namespace, service)| !namespace.is_empty() && !service.is_empty())
    else {
        return vec![document.remark(
            entry,
            reference,
            "NOT SERVED: is not of the form namespace/service:METHOD",
        )];
    };
    let mode = match method.to_ascii_uppercase().as_str() {
        "NAT" | "" => "mode: nat",
        "DR" => "mode: dr",
        "PROXY" => "mode: proxy, proxy_protocol: v1",
        _ => {
            return vec![document.remark(
                entry,
                reference,
                "NOT SERVED: the method is none of NAT, DR and PROXY",
            )];
        }
    };
    let why = "its backends are the Service's endpoints, which the API server knows: fill them in";
    let line = format!(
        "  - {{ name: {}, vip: {}, ports: all, {mode}, affinity: client_ip, affinity_timeout: 30m, backends: [{{ address: ... }}] }}",
        yaml::scalar(&format!("{namespace}-{service}")),
        yaml::quoted(&vip.to_string()),
    );
    vec![document.remark(entry, reference, why), yaml::comment(&line)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const RESOURCE: &str = "apiVersion: v1
kind: ConfigMap
metadata: { name: vips, namespace: edge }
data:
  10.4.0.50: default/echoheaders
  10.4.0.51: default/web:DR
  fd00--50: shop/cart:PROXY
  10.4.0.52: \"\"
  10.4.0.53: default/a:NAT, default/b
";

    fn imported(text: &str) -> Imported {
        import_document(&Document::parse("cm.yaml", text).unwrap()).unwrap()
    }

    #[test]
    fn all_vips_become_one_instance_as_they_were_one_router() {
        let imported = imported(RESOURCE);
        assert_eq!(imported.problems(), Vec::<String>::new(), "{}", imported.yaml);
        let ours = "
            instances:
              - name: vips
                virtual_router_id: 50
                preempt: false
                vips: [10.4.0.50, 10.4.0.51, 'fd00::50', 10.4.0.52, 10.4.0.53]
        ";
        let parsed = |text: &str| parse(text, "x", "node").unwrap_or_else(|problems| panic!("{problems}")).0;
        assert_eq!(parsed(&imported.yaml), parsed(ours), "{}", imported.yaml);
    }

    #[test]
    fn services_stand_behind_comment_signs_with_their_mode() {
        let yaml = imported(RESOURCE).yaml;
        for line in [
            "# cm.yaml:5: default/echoheaders: its backends are the Service's endpoints",
            "#   - { name: default-echoheaders, vip: \"10.4.0.50\", ports: all, mode: nat,",
            "#   - { name: default-web, vip: \"10.4.0.51\", ports: all, mode: dr,",
            "#   - { name: shop-cart, vip: \"fd00::50\", ports: all, mode: proxy, proxy_protocol: v1,",
            "#   - { name: default-a, vip: \"10.4.0.53\", ports: all, mode: nat,",
            "#   - { name: default-b, vip: \"10.4.0.53\", ports: all, mode: nat,",
            "# kubernetes: { sources: [configmap], configmap: \"edge/vips\" }",
        ] {
            assert!(yaml.contains(line), "{line} is missing in\n{yaml}");
        }
        assert!(!yaml.contains("10.4.0.52\", ports"), "{yaml}");
    }

    #[test]
    fn what_cannot_be_served_says_so_at_its_line() {
        let yaml =
            imported("10.0.0.1: web\nfoo: default/web\n10.0.0.2: default/web:TUNNEL\n10.0.0.3: [1]\n").yaml;
        for line in [
            "# cm.yaml:1: web: NOT SERVED",
            "# cm.yaml:2: foo: NOT SERVED",
            "# cm.yaml:3: default/web:TUNNEL: NOT SERVED",
            "# cm.yaml:4: 10.0.0.3: NOT SERVED",
        ] {
            assert!(yaml.contains(line), "{line} is missing in\n{yaml}");
        }
    }

    #[test]
    fn what_is_no_such_config_map_is_refused() {
        for (text, message) in [
            ("kind: Secret\ndata: {10.0.0.1: a/b}", "cm.yaml:1: is a Secret, and no ConfigMap"),
            ("kind: ConfigMap\ndata: {}", "cm.yaml:1: has no entry whose key is an address"),
            ("- 1", "cm.yaml:1: has no entry whose key is an address"),
        ] {
            let error =
                Document::parse("cm.yaml", text).and_then(|document| import_document(&document)).unwrap_err();
            assert!(error.to_string().starts_with(message), "{text}: {error}");
        }
    }
}
