//! The command's end, and on the way there signals and stops.

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::thread::Builder;
use std::{fmt, io};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::{WaitOptions, wait};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{debug, warn};

use crate::End;

/// The front end's part in job control.
///
/// A shell takes a job to be stopped when its own child is. But a supervisor that stops stalls every
/// connection of the guest, also of those descendants that are no part of the job. So a front end
/// that a shell may start keeps a process for the shell to look at, which stops and goes on as the
/// command does, and stays awake itself. Without a `Job` a stop of the command concerns nobody: it
/// goes on when somebody continues it.
pub trait Job: fmt::Debug + Send + Sync {
    /// The command runs, as process `command`, in the session and process group of this process.
    /// This process may leave both now (setsid(2)): then nothing that happens to the job or to its
    /// terminal happens to the supervisor.
    fn started(&self, command: i32);

    /// The command was stopped by `signal` (SIGSTOP, SIGTSTP, SIGTTIN or SIGTTOU). Returns when it
    /// shall go on, on a thread of its own.
    fn stopped(&self, signal: i32);

    /// The command goes on without having been asked to, or is over: [`Job::stopped`] is to return
    /// soon. Does not wait.
    fn resumed(self: Arc<Self>);
}

/// Waits for the command, passing on signals, and stops.
pub(crate) async fn command_ends(
    command: Pid,
    mut signals: Incoming,
    job: Option<Arc<dyn Job>>,
) -> io::Result<End> {
    let mut children = signal(SignalKind::child())?;
    if let Some(job) = &job {
        job.started(command.as_raw());
        // Not before: a supervisor that is still in the job stops with it.
        signals.0.extend(Incoming::of(&[Signal::SIGTSTP])?.0);
    }
    let mut stops = Stops { job, stopped: None, told: None };
    loop {
        // Before the first wait too: the command may have ended before the handler was there.
        if let Some(end) = look_after_children(command, &mut stops)? {
            stops.end().await;
            return Ok(end);
        }
        // After that look: what was answered may not be the latest stop.
        if stops.shall_go_on() {
            pass_on(command, Signal::SIGCONT);
        }
        let signal = tokio::select! {
            _ = children.recv() => continue,
            () = stops.answer() => continue,
            signal = signals.next() => signal,
        };
        // The terminal sends these to the whole foreground group: the command has had its own.
        let from_terminal = matches!(signal, Signal::SIGINT | Signal::SIGQUIT) && in_foreground();
        if !from_terminal {
            pass_on(command, signal);
        }
    }
}

fn pass_on(command: Pid, signal: Signal) {
    if let Err(error) = kill(command, signal) {
        warn!(%signal, %error, "cannot pass on a signal");
    }
}

/// Signals that end programs or that they define for themselves: the command gets them from us.
const PASSED: [Signal; 6] =
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2];

/// Signals as they come.
pub(crate) struct Incoming(Vec<(Signal, tokio::signal::unix::Signal)>);

impl Incoming {
    /// Catches what is passed on to the command, from now on.
    pub(crate) fn passed() -> io::Result<Self> {
        Self::of(&PASSED)
    }

    fn of(signals: &[Signal]) -> io::Result<Self> {
        let catch = |&one: &Signal| Ok((one, signal(SignalKind::from_raw(one as i32))?));
        signals.iter().map(catch).collect::<io::Result<_>>().map(Incoming)
    }

    async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            let come = self.0.iter_mut().find_map(|(signal, stream)| {
                matches!(stream.poll_recv(context), Poll::Ready(Some(()))).then_some(*signal)
            });
            come.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

fn in_foreground() -> bool {
    nix::unistd::tcgetpgrp(io::stdin()).is_ok_and(|group| group == nix::unistd::getpgrp())
}

/// Reaps what has ended, and notes whether the command stops or goes on.
fn look_after_children(command: Pid, stops: &mut Stops) -> io::Result<Option<End>> {
    let options = WaitOptions::NOHANG | WaitOptions::UNTRACED | WaitOptions::CONTINUED;
    loop {
        // rustix, as nix has no name for real-time signals and fails on them.
        let (pid, status) = match wait(options) {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(None),
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        if pid.as_raw_nonzero().get() != command.as_raw() {
            continue;
        }
        if let Some(code) = status.exit_status() {
            return Ok(Some(End::Exited(code)));
        }
        if let Some(signal) = status.terminating_signal() {
            return Ok(Some(End::Signaled(signal)));
        }
        debug!(?status, "the command stopped or goes on");
        match status.stopping_signal() {
            Some(signal) => stops.stopped(signal),
            None => stops.continued(),
        }
    }
}

/// The stops of the command, which the front end is told of one at a time.
struct Stops {
    job: Option<Arc<dyn Job>>,
    /// The command is stopped by this signal, and the front end does not know.
    stopped: Option<i32>,
    /// The front end was told of a stop, and has not yet said that the command shall go on.
    told: Option<Told>,
}

struct Told {
    answer: oneshot::Receiver<()>,
    answered: bool,
    /// Nothing has happened to the command since.
    current: bool,
}

impl Stops {
    fn stopped(&mut self, signal: i32) {
        // A second stop without an answer to the first: it went on in between.
        self.continued();
        self.stopped = Some(signal);
        self.tell();
    }

    fn continued(&mut self) {
        self.stopped = None;
        if let (Some(job), Some(told)) = (&self.job, &mut self.told) {
            told.current = false;
            job.clone().resumed();
        }
    }

    fn tell(&mut self) {
        let (Some(job), None) = (&self.job, &self.told) else { return };
        let Some(signal) = self.stopped.take() else { return };
        let job = job.clone();
        let (done, answer) = oneshot::channel();
        // Not on tokio's threads: guests may have all of them wait.
        let thread = Builder::new().name("netshunt-job".to_owned()).spawn(move || {
            job.stopped(signal);
            let _ = done.send(());
        });
        if let Err(error) = thread {
            warn!(%error, "cannot tell that the command stopped: it goes on");
        }
        self.told = Some(Told { answer, answered: false, current: true });
    }

    /// Waits for the front end's answer.
    async fn answer(&mut self) {
        match &mut self.told {
            Some(told) if !told.answered => {
                // Without a thread to tell it there is nobody who would continue the command.
                let _ = (&mut told.answer).await;
                told.answered = true;
            }
            _ => pending().await,
        }
    }

    /// Whether the front end has answered, and the command is where the answer found it.
    fn shall_go_on(&mut self) -> bool {
        let Some(told) = self.told.take_if(|told| told.answered) else { return false };
        self.tell();
        told.current
    }

    /// The command is over: nothing stays stopped for it.
    async fn end(&mut self) {
        self.continued();
        if self.told.as_ref().is_some_and(|told| !told.answered) {
            self.answer().await;
        }
    }
}
