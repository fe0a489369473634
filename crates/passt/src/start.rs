//! From a program to a passt that answers. Waits, so it runs on threads of its own.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use netshunt_backend::{Network, PollFd};
use nix::sys::socket::{setsockopt, sockopt};
use tracing::debug;

use crate::Error;
use crate::child::Child;
use crate::hello::Hello;
use crate::stream::StreamWire;
use crate::sys;
use crate::vhost::VhostWire;
use crate::wire::{Lost, Wire};

/// As long may it take until it answers.
const PATIENCE: Duration = Duration::from_secs(5);
/// A child whose socket is closed has as long to end by itself, so that its exit status is its own.
pub(crate) const GRACE: Duration = Duration::from_millis(200);
/// Of both ends of the stream, in bytes: with room for less than a frame of 64 KiB beside the one that
/// is being sent, versions of 2023 stall. An ordinary user gets what `net.core.wmem_max` allows.
const BUFFER: usize = 4 << 20;

/// How to start a passt, again and again.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) program: PathBuf,
    /// All but those that say how frames get there.
    pub(crate) arguments: Vec<String>,
    pub(crate) network: Network,
    pub(crate) vhost: bool,
    /// Of before 2025: its mistakes are mended.
    pub(crate) old: bool,
}

/// A passt that has answered.
#[derive(Debug)]
pub(crate) struct Running {
    // In this order: the socket closes first, upon which the child leaves.
    pub(crate) wire: Box<dyn Wire>,
    pub(crate) child: Child,
    /// Which families it has answered in.
    pub(crate) v4: bool,
    pub(crate) v6: bool,
}

impl Recipe {
    /// Starts it, and waits until it answers or `owner`, a socket, is closed by the other side.
    ///
    /// # Errors
    /// [`Error::Start`], [`Error::Broken`] or [`Error::Cancelled`]; no child is left.
    pub(crate) fn start(&self, owner: &UnixStream) -> Result<Running, Error> {
        let began = Instant::now();
        let failed = |source| Error::Start { program: self.program.clone(), source };
        let (ours, theirs) = sockets().map_err(failed)?;
        let fd = theirs.as_raw_fd().to_string();
        let mut arguments = self.arguments.clone();
        arguments.extend(["--fd".to_owned(), fd]);
        arguments.extend(self.vhost.then(|| "--vhost-user".to_owned()));
        let child = Child::start(&self.program, &arguments, Some(&theirs), false).map_err(failed)?;
        // Its end is its own from here: when it ends, we shall see the end of the socket.
        drop(theirs);
        let mut attempt = Attempt { child, deadline: began + PATIENCE };
        match attempt.greet(self, ours, owner) {
            Ok(Greeted::Answered { wire, v4, v6 }) => {
                let Attempt { child, .. } = attempt;
                debug!(pid = child.pid(), elapsed = ?began.elapsed(), v4, v6, vhost = self.vhost, "passt answers");
                Ok(Running { wire, child, v4, v6 })
            }
            Ok(Greeted::Cancelled) => Err(Error::Cancelled),
            Ok(Greeted::Silent) => Err(attempt.broken(&format!("it answers nothing for {PATIENCE:?}"))),
            Err(lost) => Err(attempt.broken(&lost.to_string())),
        }
    }
}

/// A connected pair of stream sockets.
fn sockets() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = UnixStream::pair()?;
    for end in [&ours, &theirs] {
        // With the right to it, past the limit of the system.
        if setsockopt(end, sockopt::SndBufForce, &BUFFER).is_err() {
            setsockopt(end, sockopt::SndBuf, &BUFFER)?;
        }
    }
    Ok((ours.into(), theirs.into()))
}

/// A child that has not answered yet.
struct Attempt {
    child: Child,
    deadline: Instant,
}

enum Greeted {
    Answered { wire: Box<dyn Wire>, v4: bool, v6: bool },
    Cancelled,
    Silent,
}

impl Attempt {
    fn greet(&mut self, recipe: &Recipe, socket: OwnedFd, owner: &UnixStream) -> Result<Greeted, Lost> {
        let mut wire: Box<dyn Wire> = if recipe.vhost {
            Box::new(VhostWire::connect(UnixStream::from(socket), self.deadline)?)
        } else {
            Box::new(StreamWire::new(socket, recipe.old))
        };
        let network = &recipe.network;
        let mut hello = Hello::default();
        let mut ask = true;
        loop {
            if std::mem::take(&mut ask) {
                for frame in Hello::round(network) {
                    let _ = wire.send(&[IoSlice::new(&frame)]);
                }
            }
            let any = wire.receive(&mut |frame| ask |= hello.take(frame, network))?;
            if let Some((v4, v6)) = hello.settled(network) {
                return Ok(Greeted::Answered { wire, v4, v6 });
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Greeted::Silent);
            }
            let entry = |fd| PollFd { fd, events: libc::POLLIN, revents: 0 };
            let mut fds = vec![entry(owner.as_raw_fd()), entry(self.child.words.fd())];
            let look = wire.interests(&mut fds).unwrap_or(left);
            let wait = if any { Duration::ZERO } else { left.min(look) };
            sys::poll(&mut fds, wait).map_err(|source| Lost::Io { doing: "wait for passt", source })?;
            if fds[0].revents != 0 {
                return Ok(Greeted::Cancelled);
            }
            if fds[1].revents != 0 {
                self.child.words.read();
            }
            wire.turn(&fds[2..])?;
        }
    }

    /// What there is to say of a child that did not make it.
    fn broken(self, how: &str) -> Error {
        let (end, words) = self.child.bury(GRACE);
        let words = if words.is_empty() { "it says nothing".to_owned() } else { words };
        Error::Broken { why: format!("{how} ({end}); {words}") }
    }
}
