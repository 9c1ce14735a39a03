//! Requests to the API server, by curl inside the node.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use vip_lab::Node;

use crate::commands::Layout;

/// Asks as the administrator.
pub(crate) struct Client<'a> {
    pub(crate) node: &'a Node,
    pub(crate) layout: &'a Layout,
}

impl Client<'_> {
    /// One request; its answer.
    pub(crate) fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let mut curl = self.node.command("curl");
        // Its certificate is made at its first start: this is the one client that cannot have it beforehand.
        curl = curl.args(["--silent", "--show-error", "--insecure", "--max-time", "20", "--request", method]);
        curl = curl.args(["--header", &self.layout.authorization()]);
        curl = curl.args(["--header", &format!("Content-Type: {kind}"), "--write-out", "\n%{http_code}"]);
        if let Some(body) = body {
            curl = curl.arg("--data-binary").arg(body.to_string());
        }
        let said = curl.arg(self.layout.url(path)).read()?;
        let (answer, code) = said.rsplit_once('\n').context("curl says nothing")?;
        let value = serde_json::from_str(answer).unwrap_or_else(|_| Value::String(answer.to_owned()));
        if !code.starts_with('2') {
            bail!("{method} {path}: {code}: {}", value["message"].as_str().unwrap_or(answer));
        }
        Ok(value)
    }
}
