//! `file`: whether there is something at a path.

use std::path::PathBuf;

use super::Limit;
use super::background::Background;

#[derive(Debug)]
pub(super) struct Asker {
    path: PathBuf,
    background: Background,
}

impl Asker {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, background: Background::default() }
    }

    pub(super) async fn ask(&self, limit: Limit) -> Result<(), String> {
        let path = self.path.clone();
        let look = self.background.run(move || std::fs::metadata(path).map(drop));
        let found = limit.on("looking at the file", look).await??;
        found.map_err(|error| format!("{}: {error}", self.path.display()))
    }
}
