//! Debian's source of Linux 6.12: downloaded by an apt with a configuration and state of its own
//! under the target folder, so that nothing on the machine changes and no root is needed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

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
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let apt = PrivateApt::new(&shell::target().join("apt"))?;
    say(format!("fetching the source of Linux 6.12 ({PACKAGE}, about 150 MB) with apt-get download, from:"));
    for source in &apt.sources {
        println!("         {} {}", source.uris.join(" "), source.suites.join(" "));
    }
    apt.run(&["update", "-q"], &folder).context("cannot fetch the package lists of the archives above")?;
    apt.run(&["download", "-q", PACKAGE], &folder).with_context(|| {
        format!(
            "cannot download {PACKAGE}: see above, and `apt-cache -c {} policy {PACKAGE}`",
            apt.configuration().display()
        )
    })?;
    let package = downloaded(&folder)?;
    extract(&package, &tarball)?;
    fs::remove_file(&package).with_context(|| format!("cannot remove {}", package.display()))?;
    Ok(tarball)
}

/// An apt that reads our sources and writes our folders, and otherwise is the machine's own: its
/// proxy, credentials and keys apply.
#[derive(Debug)]
struct PrivateApt {
    folder: PathBuf,
    sources: Vec<sources::Source>,
}

impl PrivateApt {
    fn new(folder: &Path) -> Result<Self> {
        let etc = Path::new("/etc/apt");
        let release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
        let codename =
            codename(&release).context("/etc/os-release names no VERSION_CODENAME: is this a Debian?")?;
        let sources = sources::for_kernel(&sources::read(etc)?, codename);
        ensure!(
            !sources.is_empty(),
            "no package source under {} follows Debian's {codename} with its component main: \
             add the Debian archive there, or put {TARBALL} of {PACKAGE} into {}",
            etc.display(),
            shell::target().join("kernel-source").display()
        );
        for inside in ["sources.list.d", "state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(inside)).context("cannot make apt's private folders")?;
        }
        let text: String = sources.iter().map(|source| format!("{source}\n")).collect();
        fs::write(folder.join("sources.list.d/kernel.sources"), text)
            .context("cannot write the package sources")?;
        fs::write(folder.join("apt.conf"), configuration(folder))
            .context("cannot write apt's configuration")?;
        Ok(Self { folder: folder.to_owned(), sources })
    }

    fn run(&self, arguments: &[&str], within: &Path) -> Result<()> {
        let mut apt = Command::new("apt-get");
        apt.arg("-c").arg(self.configuration()).args(arguments);
        shell::run(apt.current_dir(within).stdin(Stdio::null()))
    }

    fn configuration(&self) -> PathBuf {
        self.folder.join("apt.conf")
    }
}

/// What our apt does differently, in the format of apt.conf(5).
fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{folder}/sources.list.d";
Dir::State "{folder}/state";
Dir::Cache "{folder}/cache";
// Started by root, apt would download as the user _apt, who may not reach our folders.
APT::Sandbox::User "";
// Hooks of the machine tidy its own folders, not ours, and we may lack the right.
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"#
    )
}

fn codename(os_release: &str) -> Option<&str> {
    let value = os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(value.trim_matches(['"', '\'']))
}

/// The package file in the folder; apt names it after the version.
fn downloaded(folder: &Path) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(PACKAGE) && name.ends_with(".deb") {
            found.push(path);
        }
    }
    // A run that was killed may have left an older one beside the new.
    found.sort_by_key(|path| path.metadata().and_then(|m| m.modified()).ok());
    let Some(newest) = found.pop() else { bail!("apt-get download left no package in {}", folder.display()) };
    found.iter().try_for_each(fs::remove_file)?;
    Ok(newest)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codename_is_read_with_and_without_quotes() {
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=bookworm\n"), Some("bookworm"));
        assert_eq!(codename("VERSION_CODENAME=\"trixie\"\n"), Some("trixie"));
        assert_eq!(codename("ID=debian\n"), None);
    }
}
