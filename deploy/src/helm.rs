//! Helm's own engine: the library behind `helm`, in a Python process that `cargo xtask setup` has the package for.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::Rendered;

/// A running engine, for any number of requests. Ends when dropped.
#[derive(Debug)]
pub struct Helm {
    process: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    chart: PathBuf,
}

/// What a chart is installed as.
#[derive(Clone, Copy, Debug)]
pub struct Release<'a> {
    /// The release's name.
    pub name: &'a str,
    /// Where to.
    pub namespace: &'a str,
}

impl Default for Release<'_> {
    fn default() -> Self {
        Self { name: "viplane", namespace: "viplane" }
    }
}

/// What the linter says.
#[derive(Clone, Debug, Deserialize)]
pub struct Finding {
    /// 1 information, 2 warning, 3 error.
    pub severity: u8,
    /// The file.
    pub path: String,
    /// What is wrong.
    pub error: String,
}

/// Why the engine did not do as it was asked.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer<T> {
    Ok(T),
    Error(String),
}

/// The Python with Helm's engine in it, as set-up makes it.
fn python() -> PathBuf {
    crate::root().join("target/tools/helm/bin/python")
}

impl Helm {
    /// Starts the engine for this repository's chart.
    ///
    /// # Errors
    /// It is not installed.
    pub fn start() -> Result<Self> {
        let python = python();
        if !python.exists() {
            bail!("there is no {}: cargo xtask setup installs Helm's engine", python.display());
        }
        let mut command = Command::new(&python);
        command.arg("-c").arg(include_str!("helm.py"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().with_context(|| format!("cannot start {}", python.display()))?;
        let requests = process.stdin.take();
        let answers = process.stdout.take().context("the engine has no standard output")?;
        Ok(Self { process, requests, answers: BufReader::new(answers), chart: crate::chart() })
    }

    /// Renders the chart, without a cluster: `lookup` finds nothing.
    ///
    /// # Errors
    /// What schema or templates have against the values.
    pub fn render(&mut self, release: Release<'_>, values: &str) -> Result<Rendered> {
        self.ask(
            json!({ "do": "render", "values": values, "name": release.name, "namespace": release.namespace }),
        )
    }

    /// Lints the chart with these values.
    ///
    /// # Errors
    /// The values are no YAML.
    pub fn lint(&mut self, values: &str) -> Result<Vec<Finding>> {
        self.ask(json!({ "do": "lint", "values": values }))
    }

    /// Packs the chart into `destination`; yields the archive.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn package(&mut self, destination: &Path) -> Result<PathBuf> {
        self.ask(json!({ "do": "package", "destination": destination }))
    }

    /// Installs, upgrades (`action`) or uninstalls the release in a cluster.
    ///
    /// # Errors
    /// What the API server has against it.
    pub fn release(
        &mut self,
        kubeconfig: &Path,
        action: &str,
        release: Release<'_>,
        values: &str,
    ) -> Result<Value> {
        self.ask(json!({
            "do": "release", "action": action, "kubeconfig": kubeconfig,
            "name": release.name, "namespace": release.namespace, "values": values,
        }))
    }

    fn ask<T: DeserializeOwned>(&mut self, mut request: Value) -> Result<T> {
        request["chart"] = json!(self.chart);
        let requests = self.requests.as_mut().context("the engine has ended")?;
        writeln!(requests, "{request}").context("cannot ask the engine")?;
        let mut line = String::new();
        self.answers.read_line(&mut line).context("cannot read the engine's answer")?;
        match serde_json::from_str(&line)
            .with_context(|| format!("the engine's answer is not understood: {line:?}"))?
        {
            Answer::Ok(answer) => Ok(answer),
            Answer::Error(message) => bail!(message),
        }
    }
}

impl Drop for Helm {
    fn drop(&mut self) {
        // The end of its input is its end.
        drop(self.requests.take());
        let _ = self.process.wait();
    }
}
