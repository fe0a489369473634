//! The process that a shell sees.
//!
//! `netshunt run` is two processes. The *front* is the one that was started: it passes signals on,
//! stops when the command stops, and ends as the command did. Its child is the supervisor, which
//! leaves the shell's session as soon as the command runs there. So a job that is stopped, by ^Z or
//! kill(1), takes no connection with it that a descendant outside the job uses; and the supervisor
//! may write to a terminal that it is not in the foreground of.
//!
//! Session and not only process group: the kernel spares a job from stopping that nobody could
//! continue (an *orphaned* group, setpgid(2)), and a supervisor in the same session, as the parent
//! of the command, would count as somebody who could.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use netshunt_supervisor::Job;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use nix::unistd::{ForkResult, Pid, getpgid, getpgrp, getppid, getsid, setsid};
use rustix::process::{WaitOptions, waitpid};

use crate::status::{FAILED, Leave};
use crate::{say, sys};

/// Which of the two processes this is.
pub(crate) enum Side {
    /// The front, when all is over.
    Front(Leave),
    /// The supervisor, with its line to the front.
    Supervisor(Arc<Line>),
}

/// Becomes two processes. Before anything else is made: the front keeps a copy of what is there.
pub(crate) fn split() -> anyhow::Result<Side> {
    let (ours, theirs) = UnixStream::pair().context("cannot make a socket pair")?;
    let front = Pid::this();
    match sys::fork().context("cannot start the supervisor")? {
        ForkResult::Parent { child } => {
            drop(theirs);
            Front::new(child, ours)?.watch().map(Side::Front)
        }
        ForkResult::Child => {
            drop(ours);
            // Nobody would be left to tell how the command ended.
            prctl::set_pdeathsig(Signal::SIGKILL).context("cannot follow the front process")?;
            ensure!(getppid() == front, "the front process was killed");
            Ok(Side::Supervisor(Arc::new(Line {
                front,
                socket: theirs,
                told: Mutex::default(),
                answered: Condvar::new(),
            })))
        }
    }
}

/// What the supervisor says: a kind and a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    /// The command's process runs.
    Command(i32),
    /// The command was killed by this signal.
    Killed(i32),
    /// The command was stopped by this signal. Wants an answer of one byte: it shall go on.
    Stopped(i32),
}

impl Message {
    fn encode(self) -> [u8; 5] {
        let (kind, number) = match self {
            Message::Command(pid) => (b'c', pid),
            Message::Killed(signal) => (b'k', signal),
            Message::Stopped(signal) => (b's', signal),
        };
        let [a, b, c, d] = number.to_ne_bytes();
        [kind, a, b, c, d]
    }

    fn decode([kind, number @ ..]: [u8; 5]) -> Option<Self> {
        let number = i32::from_ne_bytes(number);
        match kind {
            b'c' => Some(Message::Command(number)),
            b'k' => Some(Message::Killed(number)),
            b's' => Some(Message::Stopped(number)),
            _ => None,
        }
    }
}

/// Passed on to the command, through the supervisor.
const PASSED: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGTSTP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Seen by the front, or kept from stopping it: it stops only with the command.
const OWN: [Signal; 4] = [Signal::SIGCHLD, Signal::SIGCONT, Signal::SIGTTIN, Signal::SIGTTOU];

struct Front {
    supervisor: Pid,
    socket: UnixStream,
    signals: SignalFd,
    /// Signals that came, whoever sent them.
    seen: SigSet,
    command: Option<Pid>,
    /// What the command was killed by.
    killed: Option<i32>,
}

impl Front {
    fn new(supervisor: Pid, socket: UnixStream) -> anyhow::Result<Self> {
        let mut mask = SigSet::empty();
        for signal in PASSED.into_iter().chain(OWN) {
            // What was ignored before us is the command's to ignore.
            sys::default_action(signal);
            mask.add(signal);
        }
        let watch = || -> nix::Result<SignalFd> {
            mask.thread_block()?;
            // Guests of our own user could otherwise take over this process.
            prctl::set_dumpable(false)?;
            SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        };
        let signals = watch().context("cannot watch signals")?;
        socket.set_nonblocking(true).context("cannot talk to the supervisor")?;
        Ok(Front { supervisor, socket, signals, seen: SigSet::empty(), command: None, killed: None })
    }

    /// Until the supervisor's end.
    fn watch(mut self) -> anyhow::Result<Leave> {
        let mut listening = true;
        loop {
            let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            fds.extend(listening.then(|| PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)));
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error).context("cannot wait for the supervisor"),
            }
            let continued = self.take_signals();
            listening = listening && self.listen(continued);
            if let Some(leave) = self.look(continued)? {
                return Ok(leave);
            }
        }
    }

    /// Passes on what came. Returns whether somebody continued us.
    fn take_signals(&mut self) -> bool {
        let mut continued = false;
        while let Ok(Some(info)) = self.signals.read_signal() {
            let Ok(signal) = Signal::try_from(info.ssi_signo.cast_signed()) else { continue };
            match signal {
                Signal::SIGCONT => continued |= info.ssi_pid.cast_signed() != self.supervisor.as_raw(),
                _ if PASSED.contains(&signal) => {
                    self.seen.add(signal);
                    if !self.reached_command(signal, &info) {
                        // ESRCH: it has ended, which the next look finds.
                        let _ = kill(self.supervisor, signal);
                    }
                }
                _ => {}
            }
        }
        continued
    }

    /// Whether the kernel sent this to our whole process group, and the command is in it.
    fn reached_command(&self, signal: Signal, info: &siginfo) -> bool {
        // A terminal that hangs up tells the leader of its session alone.
        let leader = signal == Signal::SIGHUP && getsid(None) == Ok(Pid::this());
        let grouped = self.command.is_none_or(|command| getpgid(Some(command)) == Ok(getpgrp()));
        info.ssi_code == libc::SI_KERNEL && !leader && grouped
    }

    /// Hears what the supervisor says. Returns whether more may come.
    fn listen(&mut self, mut continued: bool) -> bool {
        let mut bytes = [0; 5];
        loop {
            // A stream, but one that takes and gives so little in one piece.
            match self.socket.read(&mut bytes) {
                Ok(5) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return true,
                _ => return false,
            }
            match Message::decode(bytes) {
                Some(Message::Command(pid)) => self.command = Some(Pid::from_raw(pid)),
                Some(Message::Killed(signal)) => self.killed = Some(signal),
                Some(Message::Stopped(signal)) => {
                    // Else stopped with the command, and by now continued with it.
                    if !std::mem::take(&mut continued) {
                        self.stop(signal);
                    }
                    // Without a reader nobody needs the answer.
                    let _ = self.socket.write_all(&[1]);
                }
                None => return false,
            }
        }
    }

    /// Stops, as far as `signal` does that here, and returns when continued.
    fn stop(&mut self, signal: i32) {
        let signal = Signal::try_from(signal).unwrap_or(Signal::SIGSTOP);
        // All but SIGSTOP are blocked.
        let only = SigSet::from(signal);
        let _ = raise(signal);
        let _ = only.thread_unblock();
        let _ = only.thread_block();
        // The SIGCONT of this stop says nothing about the next.
        self.take_signals();
    }

    /// Whether the supervisor has ended, or was itself stopped.
    fn look(&mut self, continued: bool) -> anyhow::Result<Option<Leave>> {
        let pid = rustix::process::Pid::from_raw(self.supervisor.as_raw());
        // As often as there is something: one SIGCHLD may stand for several ends and stops.
        let status = loop {
            let found = waitpid(pid, WaitOptions::NOHANG | WaitOptions::UNTRACED);
            let Some((_, status)) = found.context("cannot wait for the supervisor")? else { return Ok(None) };
            let Some(signal) = status.stopping_signal() else { break status };
            if !continued {
                self.stop(signal);
            }
            let _ = kill(self.supervisor, Signal::SIGCONT);
        };
        // Its last words.
        self.listen(true);
        let leave = match (self.killed, status.exit_status(), status.terminating_signal()) {
            (Some(signal), ..) => Leave::Signal(signal),
            (_, Some(status), _) => Leave::Status((status & 0xff) as u8),
            (_, _, signal) => self.bereaved(signal.unwrap_or(0)),
        };
        Ok(Some(leave))
    }

    /// The supervisor was killed, and not the command.
    fn bereaved(&self, signal: i32) -> Leave {
        // It was too young to pass it on.
        if Signal::try_from(signal).is_ok_and(|signal| self.seen.contains(signal)) {
            return Leave::Signal(signal);
        }
        say::line(format_args!(
            "the supervisor was killed by signal {signal}; the command has no network now"
        ));
        Leave::Status(FAILED)
    }
}

/// The supervisor's end.
#[derive(Debug)]
pub(crate) struct Line {
    front: Pid,
    socket: UnixStream,
    told: Mutex<Told>,
    answered: Condvar,
}

/// The stops that the front was told of.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    count: u64,
    /// The last one is not answered yet.
    open: bool,
}

/// How long a front that was continued may take to say so, before it is continued again.
const PATIENCE: Duration = Duration::from_millis(20);

impl Line {
    /// Says how the command ended. Returns how the supervisor is to end.
    pub(crate) fn end(&self, leave: Leave) -> Leave {
        let Leave::Signal(signal) = leave else { return leave };
        self.say(Message::Killed(signal));
        // Not heard if the front is there.
        Leave::Status(FAILED)
    }

    fn say(&self, message: Message) {
        // Without the front there is nobody to tell, and we are about to die.
        let _ = (&self.socket).write_all(&message.encode());
    }

    /// A signal that comes between the front's last look and its stop is lost: so again, until it
    /// answers.
    fn rouse(&self, stop: u64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        while told.open && told.count == stop {
            let _ = kill(self.front, Signal::SIGCONT);
            let waited = self.answered.wait_timeout(told, PATIENCE);
            told = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Job for Line {
    fn started(&self, command: i32) {
        // EPERM is for leaders of a group, and the front leads ours or somebody before it.
        if let Err(error) = setsid() {
            tracing::warn!(%error, "cannot leave the session: a stopped job stalls the network");
        }
        self.say(Message::Command(command));
    }

    fn stopped(&self, signal: i32) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        *told = Told { count: told.count + 1, open: true };
        drop(told);
        self.say(Message::Stopped(signal));
        let _ = (&self.socket).read_exact(&mut [0]);
        self.told.lock().unwrap_or_else(PoisonError::into_inner).open = false;
        self.answered.notify_all();
    }

    fn resumed(self: Arc<Self>) {
        let Told { count, open } = *self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if open {
            let line = self.clone();
            let rousing = std::thread::Builder::new().name("netshunt-rouse".to_owned());
            if rousing.spawn(move || line.rouse(count)).is_err() {
                let _ = kill(self.front, Signal::SIGCONT);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_arrives_as_it_was_said() {
        for message in [Message::Command(i32::MAX), Message::Killed(64), Message::Stopped(libc::SIGTTOU)] {
            assert_eq!(Message::decode(message.encode()), Some(message));
        }
        assert_eq!(Message::decode(*b"?____"), None);
    }
}
