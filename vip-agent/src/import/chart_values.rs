//! The values of the chart keepalived-ingress-vip (0.1.2 to 0.1.4) as our configuration.
//!
//! What they mean is what that chart documents, its defaults included; deploy/chart makes the same of them, and a test
//! holds the two together. What is about pods and not about VIPs is a remark.

use std::path::Path;
use std::time::Duration;

use super::document::{Document, scalar};
use super::{ImportError, Imported, yaml};
use crate::config::duration::Span;
use crate::config::tree::Entry;

/// Imports a file: the values, or a HelmChart resource of k3s that holds them.
///
/// # Errors
/// It cannot be read, is no YAML, or names no VIP.
pub fn import(file: &Path) -> Result<Imported, ImportError> {
    import_document(&Document::read(file)?)
}

fn import_document(document: &Document) -> Result<Imported, ImportError> {
    if document.text(&["kind"]).as_deref() == Some("HelmChart") {
        let Some(values) = document.text(&["spec", "valuesContent"]) else {
            return Err(
                document.error("this HelmChart has no spec.valuesContent: name the file of its values")
            );
        };
        return import_document(&Document::parse(&format!("{}: valuesContent", document.name()), &values)?);
    }
    if document.entries(&["keepalived"]).is_empty() {
        return Err(document.error("has no `keepalived`: these are not the values of keepalived-ingress-vip"));
    }
    Values { document, remarks: Vec::new() }.written()
}

/// The keys of `keepalived` that are read, those of older releases last.
const KEYS: [&str; 20] = [
    "debug",
    "authPassword",
    "vrrpInterfaceName",
    "vipInterfaceName",
    "vipAddressCidr",
    "virtualRouterId",
    "vrrpNoPreempt",
    "checkServiceUrl",
    "checkServiceInterval",
    "checkServiceFailAfter",
    "checkKubelet",
    "checkKubeletInterval",
    "checkKubeletFailAfter",
    "checkKubeletUrl",
    "checkKubeApi",
    "checkKubeApiInterval",
    "checkKubeApiFailAfter",
    "enableDebug",
    "ingressHealthzUrl",
    "kubeletHealthzUrl",
];

/// A check of that chart.
struct Check {
    name: &'static str,
    interval: (&'static str, u16),
    fail_after: (&'static str, u16),
    /// What is asked, as lines of the probe.
    asks: Vec<String>,
}

struct Values<'a> {
    document: &'a Document,
    /// Those that stand at no key of the output.
    remarks: Vec<String>,
}

impl Values<'_> {
    fn written(mut self) -> Result<Imported, ImportError> {
        let vip = self.text("vipAddressCidr").map(|vip| vip.trim().to_owned()).filter(|vip| !vip.is_empty());
        let Some(vip) = vip else {
            return Err(self.document.error("has no keepalived.vipAddressCidr: there is no VIP to serve"));
        };
        self.leftovers();
        let mut text = vec![
            yaml::comment(&format!(
                "Imported from {} by vip-agent {}: the values of keepalived-ingress-vip.",
                self.document.name(),
                env!("CARGO_PKG_VERSION")
            )),
            yaml::comment(
                "The chart of this project understands them as they are; this is for agents without it. Then: vip-agent check",
            ),
        ];
        let checks = self.checks();
        let tracked = yaml::list(checks.iter().map(|check| check.name));
        text.append(&mut self.remarks);
        if self.flag("debug", self.flag("enableDebug", false)) {
            text.push("log: { level: debug }".to_owned());
        }
        text.push("probes:".to_owned());
        for check in &checks {
            text.extend(self.probe(check));
        }
        text.push("instances:".to_owned());
        text.extend(self.instance(&vip, &tracked));
        text.push(String::new());
        Ok(Imported { yaml: text.join("\n") })
    }

    /// A remark for each value that is no configuration of an agent.
    fn leftovers(&mut self) {
        let of_pods = "is the pods': the chart of this project understands it";
        for entry in self.document.entries(&[]) {
            let remark = match entry.key.as_str() {
                "keepalived" | "global" => continue,
                "image" => {
                    self.document.remark(entry, "image", "is keepalived's: `cargo xtask image` makes ours")
                }
                "kind" | "pod" | "rbac" | "serviceAccount" | "serviceAccountName" | "nameOverride"
                | "fullnameOverride" => self.document.remark(entry, &entry.key, of_pods),
                _ => self.document.remark(entry, &entry.key, "unknown key: left out"),
            };
            self.remarks.push(remark);
        }
        for entry in self.document.entries(&["keepalived"]) {
            if !KEYS.contains(&entry.key.as_str()) {
                let what = format!("keepalived.{}", entry.key);
                self.remarks.push(self.document.remark(entry, &what, "unknown key: left out"));
            }
        }
    }

    /// The checks that are on: of the service always, of kubelet and API server unless they were switched off.
    fn checks(&self) -> Vec<Check> {
        let mut checks = vec![Check {
            name: "service",
            interval: ("checkServiceInterval", 2),
            fail_after: ("checkServiceFailAfter", 2),
            asks: self.url("checkServiceUrl", "ingressHealthzUrl", "http://127.0.0.1:10254/healthz"),
        }];
        if self.flag("checkKubelet", true) {
            let mut asks = self.url("checkKubeletUrl", "kubeletHealthzUrl", "http://127.0.0.1:10248/healthz");
            if let Some(entry) = self.entry("checkKubeletUrl") {
                let why = "is asked now; that chart asked checkServiceUrl in its place";
                asks.insert(0, self.document.remark(entry, "checkKubeletUrl", why));
            }
            checks.push(Check {
                name: "kubelet",
                interval: ("checkKubeletInterval", 5),
                fail_after: ("checkKubeletFailAfter", 5),
                asks,
            });
        }
        if self.flag("checkKubeApi", true) {
            checks.push(Check {
                name: "kube-api",
                interval: ("checkKubeApiInterval", 5),
                fail_after: ("checkKubeApiFailAfter", 5),
                asks: vec![
                    yaml::comment(
                        "in a pod; elsewhere: http, with the API server's url, ca_file and token_file",
                    ),
                    "preset: kube_api".to_owned(),
                    "weight: -40".to_owned(),
                ],
            });
        }
        checks
    }

    fn probe(&self, check: &Check) -> Vec<String> {
        let mut lines = vec![format!("  - name: {}", check.name)];
        let (interval, mut remarks) = self.number(check.interval.0, check.interval.1);
        // Bounded, so that it fits a Duration whatever the file says; the agent takes an hour at most.
        let interval = Duration::from_secs_f64((interval.clamp(0.0, 1e6) * 1e3).round() / 1e3);
        let timeout = Duration::from_secs(5)
            .min(Duration::from_millis(u64::try_from(interval.as_millis() * 9 / 10).unwrap_or(u64::MAX)));
        let (fall, more) = self.number(check.fail_after.0, check.fail_after.1);
        remarks.extend(more);
        let polling = [
            format!("interval: {}", Span(interval)),
            format!("timeout: {}", Span(timeout)),
            format!("fall: {fall}"),
            "rise: 2".to_owned(),
        ];
        lines.extend(
            check.asks.iter().cloned().chain(remarks).chain(polling).map(|line| format!("    {line}")),
        );
        lines
    }

    fn instance(&self, vip: &str, tracked: &str) -> Vec<String> {
        let interface = |key| self.text(key).unwrap_or_else(|| "eth0".to_owned());
        let (id, remarks) = self.number("virtualRouterId", 10);
        let mut lines = remarks;
        lines.push(format!("virtual_router_id: {id}"));
        lines.push(format!("interface: {}", yaml::scalar(&interface("vrrpInterfaceName"))));
        lines.push(format!("vip_interface: {}", yaml::scalar(&interface("vipInterfaceName"))));
        lines.extend(self.protocol(vip));
        lines.push(match self.flag("vrrpNoPreempt", false) {
            true => "preempt: false".to_owned(),
            false => "preempt_delay: 5s".to_owned(),
        });
        lines.push(format!("vips: {}", yaml::list([vip])));
        lines.push(format!("track: {tracked}"));
        let first = "  - name: cluster-vip".to_owned();
        std::iter::once(first).chain(lines.into_iter().map(|line| format!("    {line}"))).collect()
    }

    /// Version 2 where a password says that somebody else may speak it, too.
    fn protocol(&self, vip: &str) -> Vec<String> {
        const LONGEST: usize = 8;
        let fast = "advert_interval: 100ms".to_owned();
        let Some(entry) = self.entry("authPassword") else {
            let why = "no authPassword: version 3, which keepalived-ingress-vip does not hear: stop it on all nodes first; auth_trailer signs the adverts";
            return vec![yaml::comment(why), fast];
        };
        let remark = |why: &str| self.document.remark(entry, "authPassword", why);
        if vip.contains(':') {
            return vec![
                remark("IPv6 takes version 3, which has no password, with keepalived as well"),
                fast,
            ];
        }
        let password: String = scalar(&entry.node).unwrap_or_default().chars().take(LONGEST).collect();
        vec![
            remark(
                "version 2 with adverts of 1s, as keepalived-ingress-vip speaks; without a password and with `advert_interval: 100ms` once that is gone from all nodes",
            ),
            "version: 2".to_owned(),
            yaml::comment("better: auth: { password_file: FILE }, which nobody else can read"),
            format!("auth: {{ password: {} }}", yaml::quoted(&password)),
        ]
    }

    /// The lines of a question by HTTP, by the key's new name or its old one.
    fn url(&self, key: &str, old: &str, default: &str) -> Vec<String> {
        let entry = self.entry(key).or_else(|| self.entry(old));
        let url = entry.and_then(|entry| scalar(&entry.node)).unwrap_or_else(|| default.to_owned());
        let https = url.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://"));
        let plain = url.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("http://"));
        let remark = |why: &str| entry.map(|entry| self.document.remark(entry, key, why));
        if plain && is_api_server(&url[7..]) {
            let why =
                "6443 answers nothing but https; a 401 is an API server that lives and refuses strangers";
            let url = yaml::quoted(&format!("https://{}", &url[7..]));
            let http = format!("http: {{ url: {url}, status: [200, 401], insecure: true }}");
            return remark(why).into_iter().chain([http]).collect();
        }
        if https {
            let why = "the certificate is not verified, as it was not there; no token is sent";
            let http = format!("http: {{ url: {}, insecure: true }}", yaml::quoted(&url));
            return remark(why).into_iter().chain([http]).collect();
        }
        vec![format!("http: {{ url: {} }}", yaml::quoted(&url))]
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        let entry = self.document.entry(&["keepalived", key])?;
        scalar(&entry.node).is_some_and(|text| !text.is_empty()).then_some(entry)
    }

    fn text(&self, key: &str) -> Option<String> {
        scalar(&self.entry(key)?.node)
    }

    fn flag(&self, key: &str, default: bool) -> bool {
        self.text(key).map_or(default, |text| text.eq_ignore_ascii_case("true"))
    }

    /// A number above zero, and a remark where the file has something else.
    fn number(&self, key: &str, default: u16) -> (f64, Vec<String>) {
        let Some(entry) = self.entry(key) else { return (default.into(), Vec::new()) };
        let number = scalar(&entry.node).and_then(|text| text.trim().parse::<f64>().ok());
        match number.filter(|number| number.is_finite() && *number > 0.0) {
            Some(number) => (number, Vec::new()),
            None => {
                let why = format!("is no number above 0: {default}, the default, stands for it");
                (default.into(), vec![self.document.remark(entry, key, why)])
            }
        }
    }
}

/// Whether what follows the scheme is at port 6443.
fn is_api_server(rest: &str) -> bool {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.ends_with(":6443")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, parse};

    fn imported(values: &str) -> Imported {
        import_document(&Document::parse("values.yaml", values).unwrap()).unwrap()
    }

    fn config(values: &str) -> Config {
        let imported = imported(values);
        assert_eq!(imported.problems(), Vec::<String>::new(), "{}", imported.yaml);
        parse(&imported.yaml, "imported", "node").unwrap().0
    }

    fn same(values: &str, ours: &str) {
        let ours = parse(ours, "ours", "node").unwrap_or_else(|problems| panic!("{problems}")).0;
        assert_eq!(config(values), ours, "{}", imported(values).yaml);
    }

    #[test]
    fn an_address_alone_has_that_charts_checks_and_defaults() {
        same(
            "keepalived: {vipAddressCidr: 192.168.11.2/24}",
            "
            probes:
              - { name: service, http: { url: 'http://127.0.0.1:10254/healthz' }, interval: 2s, timeout: 1800ms }
              - { name: kubelet, http: { url: 'http://127.0.0.1:10248/healthz' }, interval: 5s, timeout: 4500ms, fall: 5 }
              - { name: kube-api, preset: kube_api, interval: 5s, timeout: 4500ms, fall: 5, weight: -40 }
            instances:
              - name: cluster-vip
                virtual_router_id: 10
                interface: eth0
                vip_interface: eth0
                advert_interval: 100ms
                preempt_delay: 5s
                vips: [192.168.11.2/24]
                track: [service, kubelet, kube-api]
            ",
        );
    }

    #[test]
    fn a_password_keeps_the_version_that_the_other_chart_speaks() {
        let instance = &config(
            "keepalived: {vipAddressCidr: 10.0.0.2/24, authPassword: longer-than-8, vrrpNoPreempt: 'true'}",
        )
        .instances[0];
        let written =
            crate::config::effective(&config("keepalived: {vipAddressCidr: 10.0.0.2/24, authPassword: a}"));
        assert!(!instance.preempt);
        assert!(written.contains("version: 2"), "{written}");
        let yaml = imported("keepalived: {vipAddressCidr: 10.0.0.2/24, authPassword: longer-than-8}").yaml;
        assert!(yaml.contains("password: \"longer-t\""), "{yaml}");
    }

    #[test]
    fn ipv6_has_no_password_with_either() {
        let yaml = imported("keepalived: {vipAddressCidr: 'fd00::2/64', authPassword: secret}").yaml;
        assert!(yaml.contains("IPv6 takes version 3") && !yaml.contains("\"secret\""), "{yaml}");
    }

    #[test]
    fn plain_http_to_an_api_server_becomes_https() {
        let yaml = |url: &str| {
            imported(&format!("keepalived: {{vipAddressCidr: 10.0.0.2, checkServiceUrl: '{url}'}}")).yaml
        };
        for (url, asked) in [
            (
                "http://127.0.0.1:6443/healthz",
                "{ url: \"https://127.0.0.1:6443/healthz\", status: [200, 401], insecure: true }",
            ),
            ("HTTP://[::1]:6443", "{ url: \"https://[::1]:6443\", status: [200, 401], insecure: true }"),
            ("http://127.0.0.1:64430/", "{ url: \"http://127.0.0.1:64430/\" }"),
            ("http://127.0.0.1/:6443", "{ url: \"http://127.0.0.1/:6443\" }"),
            ("https://127.0.0.1:6443/", "{ url: \"https://127.0.0.1:6443/\", insecure: true }"),
        ] {
            assert!(yaml(url).contains(&format!("http: {asked}\n")), "{}", yaml(url));
        }
    }

    #[test]
    fn what_is_not_the_agents_is_remarked_by_line() {
        let yaml = imported(
            "kind: Daemonset\nimage:\n  tag: v0.1.4\npod: {replicas: 3}\nkeepalived:\n  vipAddressCidr: 10.0.0.2/24\n  chekKubelet: true\n  virtualRouterId: many\n",
        )
        .yaml;
        for remark in [
            "# values.yaml:1: kind: is the pods'",
            "# values.yaml:2: image: ",
            "# values.yaml:4: pod: is the pods'",
            "# values.yaml:7: keepalived.chekKubelet: unknown key: left out",
            "# values.yaml:8: virtualRouterId: is no number above 0: 10",
        ] {
            assert!(yaml.contains(remark), "{remark} is missing in\n{yaml}");
        }
    }

    #[test]
    fn a_helm_chart_resource_of_k3s_is_opened() {
        let resource = "
kind: HelmChart
spec:
  valuesContent: |-
    keepalived:
      vipAddressCidr: 172.16.135.2/21
      checkKubelet: false
      checkKubeApi: false
";
        let config = config(resource);
        assert_eq!((config.probes.len(), config.instances.len()), (1, 1));
    }

    #[test]
    fn what_is_no_such_file_is_refused_with_its_line() {
        for (text, message) in [
            ("a: 1", "values.yaml:1: has no `keepalived`"),
            ("keepalived: {debug: true}", "values.yaml:1: has no keepalived.vipAddressCidr"),
            ("kind: HelmChart", "values.yaml:1: this HelmChart has no spec.valuesContent"),
            (
                "keepalived:\n  vipAddressCidr: a\n  checkKubeletInterval=3\n  b: 1\n",
                "values.yaml:3: is not YAML",
            ),
        ] {
            let error = Document::parse("values.yaml", text)
                .and_then(|document| import_document(&document))
                .unwrap_err();
            assert!(error.to_string().starts_with(message), "{text}: {error}");
        }
    }
}
