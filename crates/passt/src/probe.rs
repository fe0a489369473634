//! What the installed passt is and can do, by its own word: versions are dates and commits, and Debian
//! 12's does not know its own.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use netshunt_backend::PollFd;

use crate::Error;
use crate::child::Child;
use crate::sys;
use crate::words::is_noise;

/// As long may the program take to describe itself.
const PATIENCE: Duration = Duration::from_secs(5);
/// As much of what it says is read, in bytes.
const LIMIT: usize = 128 << 10;
/// Looked through after `PATH`.
const FOLDERS: [&str; 3] = ["/usr/bin", "/usr/sbin", "/usr/local/bin"];

/// A program that says to be passt.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Probe {
    /// Where it is.
    pub program: PathBuf,
    /// Its version, by its own word or else by that of Debian's package; `unknown` without either.
    pub version: String,
    options: BTreeSet<String>,
}

impl Probe {
    /// Whether it knows an option: `--vhost-user`.
    #[must_use]
    pub fn offers(&self, option: &str) -> bool {
        self.options.contains(option)
    }
}

/// Finds the program of that name or path, the usual one without, and asks it what it is. Waits for
/// it, up to some seconds.
///
/// # Errors
/// [`Error::Missing`], [`Error::Start`], or [`Error::Broken`] if it describes no option.
pub fn probe(program: Option<&Path>) -> Result<Probe, Error> {
    let program = find(program)?;
    let options = options(&program)?;
    let version = version(&program);
    Ok(Probe { program, version, options })
}

/// The options alone, which take one run of the program.
pub(crate) fn glance(program: Option<&Path>) -> Result<Probe, Error> {
    let program = find(program)?;
    let options = options(&program)?;
    Ok(Probe { program, version: String::new(), options })
}

fn find(program: Option<&Path>) -> Result<PathBuf, Error> {
    let program = program.unwrap_or(Path::new("passt"));
    let missing = || Error::Missing { program: program.to_owned() };
    if program.components().count() > 1 || program.is_absolute() {
        return runs(program).then(|| program.to_owned()).ok_or_else(missing);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(FOLDERS.map(PathBuf::from));
    // A relative folder in PATH means another program wherever we are started.
    let mut candidates = folders.filter(|folder| folder.is_absolute()).map(|folder| folder.join(program));
    candidates.find(|candidate| runs(candidate)).ok_or_else(missing)
}

fn runs(program: &Path) -> bool {
    program.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}

fn options(program: &Path) -> Result<BTreeSet<String>, Error> {
    // Versions of 2023 exit with a failure after their help, and print it to standard error.
    let help = said(program, &["--help"])?;
    let options = listed(&help);
    if options.is_empty() {
        let why = format!("{} --help describes no option", program.display());
        return Err(Error::Broken { why });
    }
    Ok(options)
}

/// The long options in a help text: those at the beginning of a line, and their alternatives.
fn listed(help: &str) -> BTreeSet<String> {
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-') && !is_noise(line));
    let names = |line: &str| -> Vec<String> {
        let words = line.split_whitespace().map(|word| word.trim_end_matches(','));
        words.take_while(|word| word.starts_with('-')).map(str::to_owned).collect()
    };
    lines.flat_map(names).filter(|name| name.len() > 2 && name.starts_with("--")).collect()
}

fn version(program: &Path) -> String {
    let own = said(program, &["--version"]).unwrap_or_default();
    named(&own).or_else(|| packaged(program)).unwrap_or_else(|| "unknown".to_owned())
}

/// The version in `passt VERSION`.
fn named(text: &str) -> Option<String> {
    let mut words = text.lines().find_map(|line| line.strip_prefix("passt "))?.split_whitespace();
    words.next().filter(|version| !version.starts_with("unknown")).map(str::to_owned)
}

/// The version of the Debian package that the program belongs to.
fn packaged(program: &Path) -> Option<String> {
    let program = program.canonicalize().ok()?;
    let dpkg = Path::new("/usr/bin/dpkg-query");
    let owner = said(dpkg, &[OsStr::new("--search"), program.as_os_str()]).ok()?;
    let package = owner.lines().find_map(|line| line.strip_suffix(program.to_str()?))?.trim_end_matches(": ");
    let version = said(dpkg, &["--show", "--showformat=${Version}", package]).ok()?;
    (!version.is_empty() && !version.contains(char::is_whitespace)).then_some(version)
}

/// All that a program says, within limits.
fn said<S: AsRef<OsStr>>(program: &Path, arguments: &[S]) -> Result<String, Error> {
    let start = |source| Error::Start { program: program.to_owned(), source };
    let child = Child::start(program, arguments, None, true).map_err(start)?;
    let deadline = Instant::now() + PATIENCE;
    let (mut text, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        match child.words.read_raw(&mut chunk).map_err(start)? {
            Some(0) => break,
            Some(count) if text.len() < LIMIT => text.extend_from_slice(&chunk[..count]),
            Some(_) => break,
            None => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    let why = format!("{} does not describe itself", program.display());
                    return Err(Error::Broken { why });
                }
                let mut fds = [PollFd { fd: child.words.fd(), events: libc::POLLIN, revents: 0 }];
                sys::poll(&mut fds, left).map_err(start)?;
            }
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELP_2023: &str = "Failed to send 31 bytes to syslog
Usage: passt [OPTION]...
Failed to send 7 bytes to syslog

Failed to send 56 bytes to syslog
  -q, --quiet		Don't print informational messages
Failed to send 50 bytes to syslog
  --log-size BYTES	Maximum size of log file
  -F, --fd FD		Use FD as pre-opened connected socket
    default: from --outbound-if4 and --outbound-if6, if any
  -1, --one-off	Quit after handling one single client
";
    const HELP_2026: &str = "  -s, --socket, --socket-path PATH	UNIX domain socket path
  --vhost-user		Enable vhost-user mode
    UNIX domain socket is provided by -s option
  --map-host-loopback ADDR	Translate ADDR to refer to host
";

    #[test]
    fn options_are_those_that_begin_a_line() {
        let options = listed(HELP_2023).into_iter().collect::<Vec<_>>();
        assert_eq!(options, ["--fd", "--log-size", "--one-off", "--quiet"]);
        let options = listed(HELP_2026).into_iter().collect::<Vec<_>>();
        assert_eq!(options, ["--map-host-loopback", "--socket", "--socket-path", "--vhost-user"]);
    }

    #[test]
    fn the_version_is_the_programs_own_if_it_knows() {
        let text = "Failed to send 9 bytes to syslog\npasst 0.0~git20261002.cba3570-1\nCopyright";
        assert_eq!(named(text).unwrap(), "0.0~git20261002.cba3570-1");
        assert_eq!(named("passt unknown version\n"), None);
        assert_eq!(named(""), None);
    }

    #[test]
    fn a_program_that_is_not_there_is_missing() {
        for name in ["/nowhere/passt", "no-such-passt", "./passt", "/etc/passwd"] {
            let error = probe(Some(Path::new(name))).unwrap_err();
            assert!(matches!(&error, Error::Missing { .. }), "{error}");
            assert_eq!(error.to_string(), format!("there is no {name}"));
        }
    }

    #[test]
    fn a_program_that_describes_nothing_is_not_passt() {
        let error = probe(Some(Path::new("/usr/bin/test"))).unwrap_err();
        assert!(error.to_string().contains("describes no option"), "{error}");
    }
}
