//! Debian's source of Linux 6.12, in the target folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::apt::{self, PrivateApt};
use crate::shell::{self, say};
use crate::sources;

const PACKAGE: &str = "linux-source-6.12";

/// What the package holds, and what is kept of it.
const TARBALL: &str = "linux-source-6.12.tar.xz";

/// The source's tarball, downloaded if this folder has none yet; silent when it has.
///
/// The newest 6.12 that the machine's archives offer is taken. To follow a newer one, remove
/// `target/kernel-source`.
///
/// # Errors
/// When the machine's package sources name no Debian archive, or the download fails.
pub(crate) fn ensure_downloaded() -> Result<PathBuf> {
    let folder = shell::target().join("kernel-source");
    let tarball = folder.join(TARBALL);
    if tarball.is_file() {
        return Ok(tarball);
    }
    let (machine, codename) = apt::machine()?;
    let sources = sources::for_kernel(&machine, &codename);
    ensure!(
        !sources.is_empty(),
        "{}, or put {TARBALL} of {PACKAGE} into {}",
        apt::no_archive(&codename),
        folder.display()
    );
    let apt = PrivateApt::new("apt", sources)?;
    say(format!("fetching the source of Linux 6.12 ({PACKAGE}, about 150 MB) with apt-get download, from:"));
    apt.show_sources();
    apt.download(&[PACKAGE], &folder)?;
    let package = apt::downloaded(PACKAGE, &folder)?;
    extract(&package, &tarball)?;
    fs::remove_file(&package).with_context(|| format!("cannot remove {}", package.display()))?;
    Ok(tarball)
}

/// Takes the tarball out of the package, whole or not at all.
fn extract(package: &Path, tarball: &Path) -> Result<()> {
    let partial = tarball.with_extension("partial");
    let mut contents = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start dpkg-deb")?;
    let stream = contents.stdout.take().expect("asked for a pipe above");
    let mut tar = Command::new("tar");
    tar.args(["-x", "-f", "-", "-O", &format!("./usr/src/{TARBALL}")]);
    tar.stdin(stream).stdout(File::create(&partial).context("cannot write the kernel's source")?);
    shell::run(&mut tar)?;
    let status = contents.wait().context("cannot wait for dpkg-deb")?;
    ensure!(status.success(), "{} is damaged: dpkg-deb {status}", package.display());
    fs::rename(&partial, tarball).with_context(|| format!("cannot name {}", tarball.display()))
}
