//! A child process that does not outlive its owner.
//!
//! passt is not told to die with us by `PR_SET_PDEATHSIG`: that signal follows the *thread* that forked,
//! and the kernel forgets it when the child changes its credentials, as passt does. What ends it,
//! whatever ends us, is its socket: it leaves when our end is closed, and at the latest when it first
//! reads from it. `tests/lifecycle.rs` kills us at every stage of its start.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use netshunt_backend::PollFd;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, pidfd_send_signal, waitid,
};

use crate::sys;
use crate::words::{Words, pipe};

/// How long a passt that is not wanted any more may take to send what it has read from its socket, which is closed
/// by then, and to leave.
const LEAVE: Duration = Duration::from_millis(200);

/// A running child, or one that has ended and waits to be reaped. Dropped, it is killed if it does not leave.
#[derive(Debug)]
pub(crate) struct Child {
    pid: i32,
    pidfd: OwnedFd,
    pub(crate) words: Words,
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Exited(i32),
    Killed(i32),
    /// Another part of the program has reaped it, and the kernel is older than Linux 6.15.
    Unknown,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Exited(status) => write!(f, "exit status {status}"),
            End::Killed(signal) => write!(f, "signal {signal}"),
            End::Unknown => f.write_str("status unknown"),
        }
    }
}

impl Child {
    /// Starts `program` with a clean environment and no descriptor but `socket` and its output. What it
    /// writes to its standard error, with `talks` to its standard output too, are its words.
    pub(crate) fn start<S: AsRef<OsStr>>(
        program: &Path,
        arguments: &[S],
        socket: Option<&OwnedFd>,
        talks: bool,
    ) -> io::Result<Child> {
        let (read, write) = pipe()?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().current_dir("/").stdin(Stdio::null());
        command.stdout(if talks { Stdio::from(write.try_clone()?) } else { Stdio::null() });
        command.stderr(Stdio::from(write));
        let spawned = sys::spawn(&mut command, socket)?;
        let pid = spawned.id().cast_signed();
        let known = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
        let pidfd = pidfd_open(known, PidfdFlags::empty())?;
        Ok(Child { pid, pidfd, words: Words::new(read) })
    }

    /// Its process.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether it has ended, and how. Does not wait.
    pub(crate) fn ended(&self) -> Option<End> {
        self.wait(WaitIdOptions::NOHANG)
    }

    /// Sends SIGKILL to what it has started: while passt of 2026 enters its user namespace it has a child
    /// that waits for it to say when, and would wait for ever. Only before it is reaped: its number, which
    /// is that of its process group, is nobody else's.
    fn kill_group(&self) {
        let _ = Pid::from_raw(self.pid).map(|group| kill_process_group(group, Signal::KILL));
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(&self) {
        // It may have ended already. Once reaped its number may be another's, but not its pidfd.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Waits for its end, ends it if that does not come within `grace`, and tells how it ended and its
    /// last words.
    pub(crate) fn bury(mut self, grace: Duration) -> (End, String) {
        let end = self.end(grace);
        (end.unwrap_or(End::Unknown), self.words.last())
    }

    fn end(&self, grace: Duration) -> Option<End> {
        let deadline = Instant::now() + grace;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if let Some(end) = self.ended() {
                return Some(end);
            }
            let mut fds = [PollFd { fd: self.pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
            if left.is_zero() || sys::poll(&mut fds, left).is_err() {
                self.kill();
                return self.wait(WaitIdOptions::empty());
            }
        }
    }

    fn wait(&self, options: WaitIdOptions) -> Option<End> {
        let wait = |options| waitid(WaitId::PidFd(self.pidfd.as_fd()), options | WaitIdOptions::EXITED);
        loop {
            match wait(options | WaitIdOptions::NOWAIT) {
                Ok(None) => return None,
                Ok(Some(status)) => {
                    self.kill_group();
                    let _ = wait(options);
                    let exited = status.exit_status().map(End::Exited);
                    return exited.or_else(|| status.terminating_signal().map(End::Killed));
                }
                Err(rustix::io::Errno::INTR) => {}
                // ECHILD: a program that looks after all of its children has reaped this one too.
                Err(_) => return Some(sys::exit_code(self.pidfd.as_fd()).map_or(End::Unknown, decoded)),
            }
        }
    }
}

/// A status as wait(2) has it.
fn decoded(status: i32) -> End {
    match status & 0x7f {
        0 => End::Exited(status >> 8 & 0xff),
        signal => End::Killed(signal),
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end(LEAVE);
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use nix::sys::wait::waitpid;

    use super::*;

    fn shell(script: &str) -> Child {
        Child::start(&PathBuf::from("/bin/sh"), &["-c", script], None, false).unwrap()
    }

    const LONG: Duration = Duration::from_secs(10);

    fn eventually(what: &str, mut done: impl FnMut() -> bool) {
        let end = Instant::now() + LONG;
        while !done() {
            assert!(Instant::now() < end, "{what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn how_it_ended_and_what_it_said() {
        let child = shell("echo why >&2; echo unheard; exit 3");
        assert_eq!(child.bury(LONG), (End::Exited(3), "why".to_owned()));
        assert_eq!(shell("sleep 1000").bury(Duration::ZERO).0, End::Killed(libc::SIGKILL));
    }

    #[test]
    fn a_child_that_another_has_reaped_still_ends() {
        let child = shell("exit 3");
        waitpid(nix::unistd::Pid::from_raw(child.pid()), None).unwrap();
        let (end, _) = child.bury(LONG);
        assert!([End::Exited(3), End::Unknown].contains(&end), "{end}");
    }

    #[test]
    fn it_inherits_nothing_and_has_its_own_session() {
        let leak = std::fs::File::open("/dev/null").unwrap();
        let leaked = nix::unistd::dup(&leak).unwrap();
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let theirs = OwnedFd::from(theirs);
        let script = "for n in $(seq 0 99); do [ -e /proc/$$/fd/$n ] && all=\"$all $n\"; done; \
                      echo $all; read _ _ _ _ _ session rest </proc/$$/stat; \
                      [ $session = $$ ] && echo own session; echo home=$HOME path";
        let child = Child::start(Path::new("/bin/sh"), &["-c", script], Some(&theirs), true).unwrap();
        let (_, words) = child.bury(LONG);
        let socket = theirs.as_raw_fd().to_string();
        let (fds, rest) = words.split_once("; ").unwrap();
        assert_eq!(rest, "own session; home= path");
        let fds: Vec<&str> = fds.split(' ').collect();
        assert_eq!(fds, ["0", "1", "2", &socket]);
        drop((ours, leaked));
    }

    #[test]
    fn what_it_has_started_goes_with_it() {
        for script in ["sleep 1000 & echo $! >&2; exec sleep 1000", "sleep 1000 & echo $! >&2; exit 3"] {
            let mut child = shell(script);
            let mut other = 0;
            eventually(script, || child.words.last().parse().map(|pid| other = pid).is_ok());
            drop(child);
            // Whoever inherits it may not have reaped it yet.
            eventually(script, || {
                let stat = std::fs::read_to_string(format!("/proc/{other}/stat"));
                stat.map_or(true, |stat| stat.contains(") Z "))
            });
        }
    }

    #[test]
    fn dropped_it_is_gone() {
        let child = shell("sleep 1000");
        let pid = child.pid();
        drop(child);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
