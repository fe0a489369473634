//! (in the making)
use anyhow::bail;
use std::path::{Path, PathBuf};
#[allow(dead_code)]
pub(crate) struct Built {
    pub(crate) library: PathBuf,
    pub(crate) version: String,
    pub(crate) sha256: String,
    pub(crate) seconds: Option<u64>,
}
pub(crate) fn ensure(_: &Path, _: &Path, _: usize) -> anyhow::Result<Built> {
    bail!("the kernel build is not written yet")
}
pub(crate) fn verify(_: &Path, _: &Path, _: usize) -> anyhow::Result<()> {
    bail!("the kernel build is not written yet")
}
