//! One engine for all tests, and the agent's word on the files that come out of it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{LazyLock, Mutex, PoisonError};

use anyhow::Result;
use vip_agent::config::{self, Config};
use vip_deploy::{Finding, Helm, Release, Rendered};

static HELM: LazyLock<Mutex<Helm>> = LazyLock::new(|| Mutex::new(Helm::start().expect("Helm's engine")));

/// What `work` makes of the engine.
pub(crate) fn with_helm<T>(work: impl FnOnce(&mut Helm) -> T) -> T {
    work(&mut HELM.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The chart with these values, as release `edge` in namespace `vip`.
pub(crate) fn rendered(values: &str) -> Rendered {
    let release = Release { name: "edge", namespace: "vip" };
    with_helm(|helm| helm.render(release, values)).unwrap_or_else(|error| panic!("{error:#}\n{values}"))
}

/// Why it does not render with these values.
pub(crate) fn refused(values: &str) -> String {
    let rendered = with_helm(|helm| helm.render(Release::default(), values));
    rendered.err().unwrap_or_else(|| panic!("accepted:\n{values}")).to_string()
}

/// What the linter has against it, beside the icon that it recommends.
pub(crate) fn findings(values: &str) -> Vec<Finding> {
    let mut findings =
        with_helm(|helm| helm.lint(values)).unwrap_or_else(|error| panic!("{error:#}\n{values}"));
    findings.retain(|finding| finding.error != "icon is recommended");
    findings
}

/// A file of tests/values.
pub(crate) fn values(name: &str) -> String {
    let path = vip_deploy::folder().join("tests/values").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rendered file of the agents, as `vip-agent check` reads it, and its warnings. Secrets are where the pod would have
/// them, but for the folder.
pub(crate) fn checked(rendered: &Rendered) -> (Config, Vec<String>) {
    check(rendered).unwrap_or_else(|error| panic!("{error:#}\n{}", rendered.config()))
}

fn check(rendered: &Rendered) -> Result<(Config, Vec<String>)> {
    let folder = tempfile::tempdir()?;
    let secrets = folder.path().join("secrets");
    let identity = rcgen::generate_simple_self_signed(["node".to_owned()])?;
    for (name, text) in [
        ("viplane-auth/password", "s3cret-a"),
        ("viplane-signing/key", &"5a".repeat(32)),
        ("viplane-token/token", "a-token-of-some-length"),
        ("viplane-tls/tls.crt", &identity.cert.pem()),
        ("viplane-tls/tls.key", &identity.signing_key.serialize_pem()),
    ] {
        write_secret(&secrets.join(name), text)?;
    }
    let text = rendered.config().replace("/run/secrets", &secrets.display().to_string());
    let file = folder.path().join("config.yaml");
    fs::write(&file, &text)?;
    let loaded = config::load(&file, "node")?;
    Ok((loaded.config, loaded.warnings.lines().collect()))
}

/// Warnings beside the one that a certificate is not verified.
pub(crate) fn unexpected(mut warnings: Vec<String>) -> Vec<String> {
    warnings.retain(|warning| !warning.contains("http.insecure: warning: "));
    warnings
}

fn write_secret(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o400))?)
}
