//! Starts the command: confined, filtered, and with its listener in our hands before its first
//! instruction.

use std::ffi::OsString;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::process::{Child, Command};

use landlock::{
    ABI, Access, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreated, Scope,
};
use netshunt_notify::{Features, Listener, ListenerNumber, Program};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tracing::debug;

use crate::points::{FILTERED, RELEASING};
use crate::{Error, sys};

/// Capabilities that would let a root guest out (capabilities(7), by number): the network ones,
/// and those that reach into other processes or the kernel itself.
const DROPPED: [u32; 12] = [
    10, // NET_BIND_SERVICE
    11, // NET_BROADCAST
    12, // NET_ADMIN
    13, // NET_RAW
    16, // SYS_MODULE
    17, // SYS_RAWIO
    19, // SYS_PTRACE
    21, // SYS_ADMIN
    22, // SYS_BOOT: kexec_load(2) puts another kernel in the place of this one
    38, // PERFMON
    39, // BPF
    40, // CHECKPOINT_RESTORE
];

/// What the child does to itself between fork and exec. Built before the fork.
struct Confinement {
    keep_fds: Vec<RawFd>,
    keep_caps: bool,
    landlock: Option<OwnedFd>,
    program: Program,
    features: Features,
    report: PipeWriter,
    go: PipeReader,
    /// The child's copy of the pipe's other end: with it open, `go` would never end.
    release: RawFd,
}

/// What the child tells about itself, once it is filtered: its pid and the listener's number.
const REPORT: usize = 8;

/// Starts `command`, held until the returned [`Held`] is released.
pub(crate) fn start(command: &[OsString], options: &Options<'_>) -> Result<Held, Error> {
    let system = Error::system("start the command");
    let (name, arguments) =
        command.split_first().ok_or_else(|| Error::NotFound { command: OsString::new() })?;
    let (reports, report) = io::pipe().map_err(Error::system("make a pipe"))?;
    let (go, release) = io::pipe().map_err(Error::system("make a pipe"))?;
    let mut confinement = Confinement {
        keep_fds: options.keep_fds.to_vec(),
        keep_caps: options.keep_caps,
        landlock: domain(options.features)?,
        program: Program::new(),
        features: *options.features,
        report,
        go,
        release: release.as_raw_fd(),
    };
    let mut child = Command::new(name);
    child.args(arguments);
    // SAFETY of what runs there: see `Confinement::enter`.
    sys::before_exec(&mut child, move || confinement.enter());
    // spawn() returns only after exec, and the child waits for us before: it needs a thread.
    let thread = std::thread::Builder::new()
        .name("netshunt-spawn".to_owned())
        .spawn(move || child.spawn())
        .map_err(system)?;
    Ok(Held { thread, reports, release, command: name.clone(), features: *options.features })
}

/// How to confine a guest.
#[derive(Debug)]
pub(crate) struct Options<'a> {
    pub(crate) features: &'a Features,
    pub(crate) keep_fds: &'a [RawFd],
    pub(crate) keep_caps: bool,
}

/// A child that is being confined and has not executed the command yet.
pub(crate) struct Held {
    thread: std::thread::JoinHandle<io::Result<Child>>,
    reports: PipeReader,
    release: PipeWriter,
    command: OsString,
    features: Features,
}

impl Held {
    /// Takes the listener and hands it to `serve`, then lets the command run.
    pub(crate) fn release<T>(
        mut self,
        serve: impl FnOnce(Listener) -> Result<T, Error>,
    ) -> Result<(Child, T), Error> {
        let served = match self.take_listener() {
            Ok(Some(listener)) => Some(serve(listener)),
            // The child ended before it was filtered; spawn() knows why.
            Ok(None) => None,
            Err(error) => Some(Err(Error::System { doing: "take the seccomp listener", source: error })),
        };
        let served = match served {
            Some(Ok(served)) => {
                debug!("{RELEASING}");
                self.release.write_all(&[1]).map_err(Error::system("release the command"))?;
                Some(Ok(served))
            }
            other => other,
        };
        // Closed without a word, the pipe makes the child give up.
        drop(self.release);
        let spawned = self.thread.join().map_err(|_| Error::System {
            doing: "start the command",
            source: io::Error::other("the spawning thread panicked"),
        })?;
        match (spawned, served) {
            (Ok(child), Some(Ok(served))) => Ok((child, served)),
            (Ok(mut child), other) => {
                // It runs without anybody serving it: fail closed.
                let _ = child.kill();
                let _ = child.wait();
                Err(other.and_then(Result::err).unwrap_or(Error::System {
                    doing: "start the command",
                    source: io::Error::other("it was never filtered"),
                }))
            }
            (Err(_), Some(Err(error))) => Err(error),
            (Err(source), None) => Err(Error::System { doing: "confine the command", source }),
            (Err(error), Some(Ok(_))) => Err(execution(self.command, error)),
        }
    }

    fn take_listener(&mut self) -> io::Result<Option<Listener>> {
        let mut report = [0; REPORT];
        match self.reports.read_exact(&mut report) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let (pid, number) = report.split_at(4);
        let word = |bytes: &[u8]| i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let pid = Pid::from_raw(word(pid)).ok_or(io::ErrorKind::InvalidData)?;
        let child = pidfd_open(pid, PidfdFlags::empty())?;
        debug!(pid = pid.as_raw_nonzero().get(), "{FILTERED}");
        Listener::take(child.as_fd(), ListenerNumber(word(number)), &self.features).map(Some)
    }
}

fn execution(command: OsString, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::NotFound => Error::NotFound { command },
        _ => Error::Execute { command, source },
    }
}

impl Confinement {
    /// Runs in the child between fork and exec: system calls only, nothing that allocates or locks.
    fn enter(&mut self) -> io::Result<()> {
        sys::close_at_exec_but(&self.keep_fds)?;
        // The supervisor may be unreadable by then; the child must not be, or the listener could
        // not be taken from it.
        sys::prctl(libc::PR_SET_DUMPABLE, 1)?;
        if !self.keep_caps {
            drop_capabilities()?;
        }
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
        if let Some(ruleset) = &self.landlock {
            sys::landlock_restrict_self(ruleset.as_fd())?;
        }
        let number = self.program.install(&self.features)?;
        let mut report = [0; REPORT];
        report[..4].copy_from_slice(&std::process::id().cast_signed().to_ne_bytes());
        report[4..].copy_from_slice(&number.0.to_ne_bytes());
        self.report.write_all(&report)?;
        sys::close(self.release)?;
        // Whoever is to serve us is gone if this ends early.
        self.go.read_exact(&mut [0])
    }
}

/// Drops [`DROPPED`] from every set. Without CAP_SETPCAP there is nothing in them to drop.
fn drop_capabilities() -> io::Result<()> {
    for capability in DROPPED {
        match sys::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability)) {
            // EPERM: not privileged; EINVAL: this kernel does not know it.
            Err(error) if !matches!(error.raw_os_error(), Some(libc::EPERM | libc::EINVAL)) => {
                return Err(error);
            }
            _ => {}
        }
    }
    let mut words = sys::capabilities()?;
    for capability in DROPPED {
        let word = &mut words[capability as usize / 32];
        let keep = !(1 << (capability % 32));
        word.effective &= keep;
        word.permitted &= keep;
        word.inheritable &= keep;
    }
    sys::set_capabilities(&words)
}

/// The Landlock domain: no TCP bind or connect of the guest's own, no signals and no abstract
/// sockets out of it, as far as this kernel goes. `None` where it goes nowhere.
fn domain(features: &Features) -> Result<Option<OwnedFd>, Error> {
    // ABI 1 to 3 could only be entered with a filesystem right, which forbids mount(2).
    if features.landlock_abi.is_none_or(|abi| abi < 4) {
        return Ok(None);
    }
    let ruleset = || -> Result<RulesetCreated, landlock::RulesetError> {
        Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessNet::from_all(ABI::V4))?
            .scope(Scope::from_all(ABI::V6))?
            .create()
    };
    let ruleset = ruleset()
        .map_err(|e| Error::System { doing: "make a Landlock domain", source: io::Error::other(e) })?;
    Ok(ruleset.into())
}
