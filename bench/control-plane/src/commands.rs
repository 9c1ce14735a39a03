//! Command lines, ports and files of a control plane. Pure.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::Programs;

/// The collection of CustomResourceDefinitions.
pub const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/// All EndpointSlices.
pub const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
/// The programs, in the order in which they are started.
pub const PROGRAMS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
/// How many ports one takes, from its first on.
pub const PORTS: u16 = 5;

/// Where a control plane keeps its files and listens.
#[derive(Clone, Debug)]
pub struct Layout {
    dir: PathBuf,
    address: IpAddr,
    port: u16,
    /// The administrator's.
    pub(crate) token: String,
}

impl Layout {
    /// The API server listens on `port` of `address`, all else on the next ones of the loopback interface.
    pub fn new(dir: PathBuf, address: IpAddr, port: u16) -> Self {
        // Nobody but the test, or the user who started it, reaches the server.
        Self { dir, address, port, token: "administrator".to_owned() }
    }

    /// The same with another token.
    #[must_use]
    pub fn with_token(self, token: String) -> Self {
        Self { token, ..self }
    }

    /// Certificates and keys.
    pub fn pki(&self) -> PathBuf {
        self.dir.join("pki")
    }

    /// What the server's certificate leads to: the server makes both at its first start.
    pub fn authority(&self) -> PathBuf {
        self.pki().join("apiserver.crt")
    }

    /// The administrator's kubeconfig, which the other programs use as well.
    pub fn kubeconfig_path(&self) -> PathBuf {
        self.dir.join("admin.kubeconfig")
    }

    /// A header that makes a request the administrator's.
    pub fn authorization(&self) -> String {
        format!("Authorization: Bearer {}", self.token)
    }

    /// A path of the API as URL.
    pub fn url(&self, path: &str) -> String {
        let address = match self.address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        format!("https://{address}:{}{path}", self.port)
    }

    /// Commands that make the key by which service accounts' tokens are signed.
    pub fn key_pair(&self) -> [(&'static str, Vec<OsString>); 2] {
        let file = |name: &str| self.pki().join(name).into_os_string();
        let private =
            ["genrsa", "-out"].map(OsString::from).into_iter().chain([file("sa.key"), "2048".into()]);
        let public = ["rsa", "-pubout", "-in"].map(OsString::from).into_iter();
        let public = public.chain([file("sa.key"), "-out".into(), file("sa.pub")]);
        [("openssl", private.collect()), ("openssl", public.collect())]
    }

    /// The server's file of tokens.
    pub fn tokens(&self) -> String {
        format!("{},admin,admin,system:masters\n", self.token)
    }

    /// A kubeconfig with this layout's token; `authority` in PEM.
    pub fn kubeconfig(&self, authority: &str) -> String {
        let authority = base64(authority.as_bytes());
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": self.url(""), "certificate-authority-data": authority}}],
            "users": [{"name": "admin", "user": {"token": self.token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        })
        .to_string()
    }

    /// A program and its arguments.
    pub fn command(&self, name: &str, programs: &Programs) -> Vec<OsString> {
        let mut command = vec![programs.path(name).into_os_string()];
        command.extend(self.arguments(name).into_iter().map(OsString::from));
        command
    }

    fn arguments(&self, name: &str) -> Vec<String> {
        let port = |offset| self.port + offset;
        let local = |offset| format!("http://127.0.0.1:{}", port(offset));
        let (pki, kubeconfig) = (self.pki(), self.kubeconfig_path());
        let (pki, kubeconfig) = (pki.display(), kubeconfig.display());
        match name {
            "etcd" => vec![
                format!("--data-dir={}", self.dir.join("etcd").display()),
                format!("--listen-client-urls={}", local(1)),
                format!("--advertise-client-urls={}", local(1)),
                format!("--listen-peer-urls={}", local(2)),
                format!("--initial-advertise-peer-urls={}", local(2)),
                format!("--initial-cluster=default={}", local(2)),
            ],
            "kube-apiserver" => vec![
                format!("--etcd-servers={}", local(1)),
                format!("--secure-port={}", port(0)),
                format!("--bind-address={}", self.address),
                format!("--advertise-address={}", self.advertised()),
                format!("--cert-dir={pki}"),
                "--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112".into(),
                format!("--service-account-key-file={pki}/sa.pub"),
                format!("--service-account-signing-key-file={pki}/sa.key"),
                "--service-account-issuer=https://kubernetes.default.svc".into(),
                "--authorization-mode=RBAC".into(),
                format!("--token-auth-file={pki}/tokens.csv"),
                "--feature-gates=IPv6DualStack=true,ServiceLBNodePortControl=true,MixedProtocolLBService=true".into(),
                "--runtime-config=discovery.k8s.io/v1beta1=false".into(),
                // Watches end soon, so that resuming them is met in every longer test.
                "--min-request-timeout=60".into(),
            ],
            "kube-controller-manager" => vec![
                format!("--kubeconfig={kubeconfig}"),
                format!("--service-account-private-key-file={pki}/sa.key"),
                "--use-service-account-credentials".into(),
                "--bind-address=127.0.0.1".into(),
                format!("--secure-port={}", port(3)),
                "--port=0".into(),
                format!("--cert-dir={pki}"),
                "--leader-elect=false".into(),
                // Those that need kubelets, or a cloud, or the resource that is a custom one here.
                "--controllers=*,-nodelifecycle,-nodeipam,-route,-cloud-node-lifecycle,-endpointslice,-endpointslicemirroring"
                    .into(),
            ],
            _ => vec![
                format!("--kubeconfig={kubeconfig}"),
                "--bind-address=127.0.0.1".into(),
                format!("--secure-port={}", port(4)),
                "--port=0".into(),
                format!("--cert-dir={pki}"),
                "--leader-elect=false".into(),
            ],
        }
    }

    /// The server refuses to advertise a loopback address.
    fn advertised(&self) -> String {
        if self.address.is_loopback() { "192.0.2.1".to_owned() } else { self.address.to_string() }
    }
}

/// EndpointSlices of discovery.k8s.io/v1, for a server that is older than they are.
pub fn endpoint_slices() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "endpointslices.discovery.k8s.io",
            "annotations": {"api-approved.kubernetes.io": "unapproved, test fixture"},
        },
        "spec": {
            "group": "discovery.k8s.io",
            "scope": "Namespaced",
            "names": {
                "plural": "endpointslices", "singular": "endpointslice", "kind": "EndpointSlice",
                "listKind": "EndpointSliceList",
            },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let [a, b, c] = [0, 1, 2].map(|index| u32::from(chunk.get(index).copied().unwrap_or(0)));
        let bits = a << 16 | b << 8 | c;
        for digit in 0..4 {
            let place = usize::try_from(bits >> (18 - 6 * digit) & 63).unwrap_or(0);
            text.push(if digit <= chunk.len() { char::from(DIGITS[place]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_as_rfc_4648_has_it() {
        let cases = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (text, encoded) in cases {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
    }

    #[test]
    fn no_two_programs_listen_on_one_port() {
        let layout = Layout::new("/tmp/x".into(), [127, 0, 0, 1].into(), 7000);
        let all: String = PROGRAMS.iter().flat_map(|name| layout.arguments(name)).collect();
        for port in 7000..7000 + PORTS {
            assert!(all.contains(&port.to_string()), "{port} in {all}");
        }
    }
}
