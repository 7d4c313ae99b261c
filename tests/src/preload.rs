//! Libraries that are loaded into a server or program before its own, and play a fault that no proxy can.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use tempfile::TempDir;

/// A built library, gone when dropped; its path is the value of `LD_PRELOAD`.
#[derive(Debug)]
pub struct Preload {
    path: PathBuf,
    _folder: TempDir,
}

impl Preload {
    /// Builds one of `tests/src/preload/*.c`: `disk`, `names` or `shifted_clock`. What it does and which
    /// variables it reads stands there.
    ///
    /// # Errors
    /// There is no C compiler.
    pub fn build(name: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("temporary folder")?;
        let path = folder.path().join(format!("{name}.so"));
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/preload");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&path)
            .arg(sources.join(format!("{name}.c")))
            .arg("-ldl")
            .status()
            .context("cc")?;
        ensure!(built.success(), "cc can't build {name}.c");
        Ok(Self {
            path,
            _folder: folder,
        })
    }

    pub fn path(&self) -> String {
        self.path.display().to_string()
    }
}
