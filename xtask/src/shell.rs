//! Running other programs: announced, checked, and as root where a task needs it.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Where Debian keeps the programs that an ordinary user's `PATH` leaves out.
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The repository's root.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask/ lies in the repository")
}

/// Cargo's target folder, which also holds the kernel library and what is downloaded.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(
        || workspace().join("target"),
        // Cargo resolves a relative one against the folder it was started in, and so do we.
        |folder| env::current_dir().unwrap_or_default().join(folder),
    )
}

/// Prints a line about what is being done.
pub(crate) fn say(text: impl AsRef<str>) {
    println!("xtask: {}", text.as_ref());
}

/// A cargo command in the repository's root.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(workspace()).stdin(Stdio::null());
    command
}

/// Runs a command to its end, its output shown.
///
/// # Errors
/// When it cannot be started or does not succeed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", shown(command)))?;
    ensure!(status.success(), "{} failed: {status}", shown(command));
    Ok(())
}

/// Runs a command and returns what it printed.
///
/// # Errors
/// When it cannot be started or does not succeed; its standard error is part of the message.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {}", shown(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed: {}\n{}", shown(command), output.status, said.trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as one would type it.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// The program's path, looked for where a user's and where root's shell would.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(SYSTEM_FOLDERS.iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// By which right this run can do what only root may.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Privilege {
    /// No way that asks nobody for a password.
    None,
    /// This process is root.
    Root,
    /// `sudo` works without a password.
    Sudo,
}

impl Privilege {
    /// Looks without asking anybody anything.
    pub(crate) fn detect() -> Self {
        if is_root() {
            return Self::Root;
        }
        let sudo = Command::new("sudo").args(["-n", "true"]).stderr(Stdio::null()).status();
        if sudo.is_ok_and(|status| status.success()) { Self::Sudo } else { Self::None }
    }

    /// The words to put before a command so that root runs it without a password.
    pub(crate) fn prefix(self) -> &'static [&'static str] {
        match self {
            Self::None | Self::Root => &[],
            Self::Sudo => &["sudo", "-n"],
        }
    }
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    // /proc/self belongs to the effective user: the one thing std can tell about us.
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// A command that runs `script` as root, through `sudo` (which may ask for a password) if need be.
pub(crate) fn as_root(script: &str) -> Command {
    let mut words = if is_root() { vec![] } else { vec!["sudo"] };
    words.extend(["sh", "-eu", "-c", script, "xtask"]);
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::inherit());
    command
}
