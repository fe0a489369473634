//! An apt with a configuration and state of its own under the target folder, by which packages of
//! other suites are downloaded: nothing on the machine changes, and no root is needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::shell;
use crate::sources::{self, Source};

/// Where the machine's own apt is configured.
const ETC: &str = "/etc/apt";

/// Reads our sources and writes our folders, and otherwise is the machine's own apt: its proxy,
/// credentials and keys apply.
#[derive(Debug)]
pub(crate) struct PrivateApt {
    folder: PathBuf,
    sources: Vec<Source>,
}

impl PrivateApt {
    /// One that keeps its state in this folder of the target folder.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn new(folder: &str, sources: Vec<Source>) -> Result<Self> {
        let folder = shell::target().join(folder);
        for inside in ["sources.list.d", "state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(inside)).context("cannot make apt's private folders")?;
        }
        let text: String = sources.iter().map(|source| format!("{source}\n")).collect();
        fs::write(folder.join("sources.list.d/private.sources"), text)
            .context("cannot write the package sources")?;
        fs::write(folder.join("apt.conf"), configuration(&folder))
            .context("cannot write apt's configuration")?;
        Ok(Self { folder, sources })
    }

    /// Prints where it downloads from.
    pub(crate) fn show_sources(&self) {
        for source in &self.sources {
            println!("         {} {}", source.uris.join(" "), source.suites.join(" "));
        }
    }

    /// Downloads the newest of each package into `within`, which is made.
    ///
    /// # Errors
    /// When an archive cannot be reached or lacks a package.
    pub(crate) fn download(&self, packages: &[&str], within: &Path) -> Result<()> {
        fs::create_dir_all(within).with_context(|| format!("cannot make {}", within.display()))?;
        self.run(&["update", "-q"], within)
            .context("cannot fetch the package lists of the archives above")?;
        self.run(&[&["download", "-q"], packages].concat(), within).with_context(|| {
            let names = packages.join(" ");
            let configuration = self.configuration();
            format!(
                "cannot download {names}: see above, and `apt-cache -c {} policy {names}`",
                configuration.display()
            )
        })
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

/// The machine's own package sources and the name of its release.
///
/// # Errors
/// When it is no Debian, or a file cannot be read.
pub(crate) fn machine() -> Result<(Vec<Source>, String)> {
    let release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let codename =
        codename(&release).context("/etc/os-release names no VERSION_CODENAME: is this a Debian?")?;
    Ok((sources::read(Path::new(ETC))?, codename.to_owned()))
}

/// Why nothing can be derived from the machine's sources, and what would help.
pub(crate) fn no_archive(codename: &str) -> String {
    format!(
        "no package source under {ETC} follows Debian's {codename} with its component main: \
         add the Debian archive there"
    )
}

/// The file of a downloaded package; apt names it after the version.
///
/// # Errors
/// When there is none.
pub(crate) fn downloaded(package: &str, folder: &Path) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(&format!("{package}_")) && name.ends_with(".deb") {
            found.push(path);
        }
    }
    // A run that was killed may have left an older one beside the new.
    found.sort_by_key(|path| path.metadata().and_then(|m| m.modified()).ok());
    let Some(newest) = found.pop() else {
        bail!("apt-get download left no {package} in {}", folder.display())
    };
    found.iter().try_for_each(fs::remove_file)?;
    Ok(newest)
}

fn codename(os_release: &str) -> Option<&str> {
    let value = os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(value.trim_matches(['"', '\'']))
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
