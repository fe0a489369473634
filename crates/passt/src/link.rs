//! The open link: frames to and from one passt after the other.

use std::io::IoSlice;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use netshunt_backend::{Error as LinkError, Link, Network, PollFd, Sent, Turned};
use tracing::{info, warn};

use crate::backend::NAME;
use crate::mend::is_fragment;
use crate::start::{GRACE, Recipe, Running};
use crate::wire::Lost;
use crate::{Error, sys};

/// A child that lived this long had worked: what ended it need not end the next.
const STEADY: Duration = Duration::from_secs(60);
/// Between the second and the third attempt, and between the last ones.
const FIRST: Duration = Duration::from_millis(100);
const MOST: Duration = Duration::from_secs(5);

/// passt takes every frame for its own, to whatever Ethernet address it goes: a local, single one.
const SOMEBODY: [u8; 6] = [0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55];

/// An open passt link. Dropping it ends the child.
#[derive(Debug)]
pub struct PasstLink {
    network: Network,
    recipe: Arc<Recipe>,
    state: State,
    backoff: Backoff,
    keeper: Keeper,
}

#[derive(Debug)]
enum State {
    /// Another one is on its way.
    Awaiting(Attempt),
    /// It has been told, and nothing will change.
    Dead,
    /// The wire is no good any more; told at the next turn.
    Lost {
        running: Running,
        since: Instant,
        lost: Lost,
    },
    Up {
        running: Running,
        since: Instant,
    },
}

impl PasstLink {
    /// `network` is what works of the recipe's.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn new(network: Network, recipe: Recipe, running: Running) -> std::io::Result<Self> {
        let keeper = Keeper::start()?;
        info!(
            program = %recipe.program.display(),
            pid = running.child.pid(),
            mode = if recipe.vhost { "vhost-user" } else { "stream" },
            v4 = running.v4,
            v6 = running.v6,
            "passt link open"
        );
        let state = State::Up { running, since: Instant::now() };
        Ok(PasstLink { network, recipe: Arc::new(recipe), state, backoff: Backoff::default(), keeper })
    }

    /// How frames get to passt: `stream` or `vhost-user`, as in the configuration.
    #[must_use]
    pub fn mode(&self) -> &'static str {
        if self.recipe.vhost { "vhost-user" } else { "stream" }
    }

    /// The child's process, while there is one that works.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        match &self.state {
            State::Up { running, .. } => Some(running.child.pid()),
            _ => None,
        }
    }

    /// Notes that the wire is lost.
    fn lose(&mut self, lost: Lost) {
        self.state = match mem::replace(&mut self.state, State::Dead) {
            State::Up { running, since } => State::Lost { running, since, lost },
            other => other,
        };
    }

    /// Has the next one started, after the last is buried.
    fn replace(&mut self, old: Option<(Running, Lost)>, lived: Duration) -> Result<(), LinkError> {
        let delay = self.backoff.after(lived);
        let attempt = self
            .keeper
            .replace(self.recipe.clone(), old, delay)
            .map_err(|source| dead(&Error::Start { program: self.recipe.program.clone(), source }))?;
        self.state = State::Awaiting(attempt);
        Ok(())
    }

    /// Looks whether the next one has started.
    fn arrive(&mut self, now: Instant) -> Result<Turned, LinkError> {
        let State::Awaiting(attempt) = &self.state else { return Ok(Turned::Alive) };
        match attempt.result.try_recv() {
            Err(mpsc::TryRecvError::Empty) => Ok(Turned::Alive),
            Ok(Ok(running)) => {
                let PasstLink { network, .. } = self;
                if network.v4.is_some() && !running.v4 || network.v6.is_some() && !running.v6 {
                    warn!(v4 = running.v4, v6 = running.v6, "the new passt carries less than the last");
                }
                info!(pid = running.child.pid(), "passt was replaced");
                self.state = State::Up { running, since: now };
                Ok(Turned::Renewed)
            }
            Ok(Err(error)) => {
                if is_hopeless(&error) {
                    return Err(dead(&error));
                }
                warn!(%error, "passt does not start again yet");
                self.replace(None, Duration::ZERO).map(|()| Turned::Alive)
            }
            Err(mpsc::TryRecvError::Disconnected) => {
                warn!("the thread that starts passt has failed");
                self.replace(None, Duration::ZERO).map(|()| Turned::Alive)
            }
        }
    }

    fn step(&mut self, now: Instant, fds: &[PollFd]) -> Result<Turned, LinkError> {
        if let State::Up { running, .. } = &mut self.state
            && let Some((words, rest)) = fds.split_first()
        {
            if words.revents != 0 {
                running.child.words.read();
            }
            if let Err(lost) = running.wire.turn(rest) {
                self.lose(lost);
            }
        }
        if matches!(self.state, State::Lost { .. })
            && let State::Lost { running, since, lost } = mem::replace(&mut self.state, State::Dead)
        {
            self.replace(Some((running, lost)), now.saturating_duration_since(since))?;
            return Ok(Turned::Alive);
        }
        self.arrive(now)
    }
}

impl Link for PasstLink {
    fn network(&self) -> &Network {
        &self.network
    }

    fn send(&mut self, frame: &[IoSlice<'_>]) -> Sent {
        match &mut self.state {
            // Lost, rather than delivered as what it is not.
            State::Up { .. } if frame.first().is_some_and(|start| is_fragment(start)) => Sent::Taken,
            State::Up { running, .. } => running.wire.send(frame),
            // As into a cable that is pulled out: what was meant for the last one is not for the next.
            _ => Sent::Taken,
        }
    }

    fn receive(&mut self, deliver: &mut dyn FnMut(&[u8])) -> bool {
        let State::Up { running, .. } = &mut self.state else { return false };
        running.wire.receive(deliver).unwrap_or_else(|lost| {
            self.lose(lost);
            false
        })
    }

    fn interests(&mut self, now: Instant, fds: &mut Vec<PollFd>) -> Option<Instant> {
        let entry = |fd| PollFd { fd, events: libc::POLLIN, revents: 0 };
        match &mut self.state {
            State::Awaiting(attempt) => fds.push(entry(attempt.life.as_raw_fd())),
            State::Dead => {}
            State::Lost { .. } => return Some(now),
            State::Up { running, .. } => {
                fds.push(entry(running.child.words.fd()));
                return running.wire.interests(fds).map(|wait| now + wait);
            }
        }
        None
    }

    fn turn(&mut self, now: Instant, fds: &[PollFd]) -> Result<Turned, LinkError> {
        let turned = self.step(now, fds);
        if turned.is_err() {
            self.state = State::Dead;
        }
        turned
    }

    fn unsent(&mut self, _now: Instant) -> u64 {
        match &mut self.state {
            State::Up { running, .. } => running.wire.unsent(),
            State::Awaiting(_) | State::Dead | State::Lost { .. } => 0,
        }
    }

    fn processes(&self) -> Vec<i32> {
        self.pid().into_iter().collect()
    }

    fn abandon(&mut self, from: SocketAddr, to: SocketAddr) {
        // passt gives a connection up at a reset, whatever its numbers. One that finds no room is
        // lost, and the attempt ends with passt's patience.
        if let Some(frame) = reset(self.network.mac, from, to) {
            let _ = self.send(&[IoSlice::new(&frame)]);
        }
    }
}

/// A frame that resets a connection of the guest's (RFC 9293, 3.5.2).
fn reset(mac: [u8; 6], from: SocketAddr, to: SocketAddr) -> Option<Vec<u8>> {
    const TTL: u8 = 64;
    let ethernet = PacketBuilder::ethernet2(mac, SOMEBODY);
    let ip = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), TTL),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), TTL),
        _ => return None,
    };
    let mut frame = Vec::new();
    ip.tcp(from.port(), to.port(), 0, 0).rst().write(&mut frame, &[]).ok()?;
    Some(frame)
}

/// Whether another attempt would fail alike, however long one waits.
fn is_hopeless(error: &Error) -> bool {
    let Error::Start { source, .. } = error else { return false };
    use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    matches!(source.kind(), NotADirectory | NotFound | PermissionDenied)
}

fn dead(error: &Error) -> LinkError {
    let mut reason = error.to_string();
    if let Some(source) = std::error::Error::source(error) {
        reason = format!("{reason}: {source}");
    }
    LinkError::Dead { name: NAME, reason }
}

/// A thread that starts passts and buries them. It is there before the link is used: whoever uses it may be confined,
/// and what is started then too.
#[derive(Debug)]
struct Keeper {
    /// `None`: there will be no more.
    orders: Option<mpsc::Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Order {
    /// Waits `delay` after the burial of the `old` one, and tells how the start went before it closes `owner`.
    Replace {
        recipe: Arc<Recipe>,
        old: Option<(Running, Lost)>,
        delay: Duration,
        owner: UnixStream,
        result: mpsc::Sender<Result<Running, Error>>,
    },
    /// Nobody needs it any more.
    End(Running),
}

/// One that is being started.
#[derive(Debug)]
struct Attempt {
    /// Closed at the other end when it is decided; closed at ours, it is given up.
    life: UnixStream,
    result: mpsc::Receiver<Result<Running, Error>>,
}

impl Keeper {
    fn start() -> std::io::Result<Keeper> {
        let (orders, inbox) = mpsc::channel::<Order>();
        let thread = std::thread::Builder::new()
            .name("netshunt-passt".to_owned())
            .spawn(move || inbox.into_iter().for_each(Order::obey))?;
        Ok(Keeper { orders: Some(orders), thread: Some(thread) })
    }

    fn replace(
        &self,
        recipe: Arc<Recipe>,
        old: Option<(Running, Lost)>,
        delay: Duration,
    ) -> std::io::Result<Attempt> {
        let (life, owner) = UnixStream::pair()?;
        let (sender, result) = mpsc::channel();
        self.order(Order::Replace { recipe, old, delay, owner, result: sender });
        Ok(Attempt { life, result })
    }

    /// An order that nobody takes ends with its passt, and an attempt is seen to have failed.
    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            let _ = orders.send(order);
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.orders = None;
        // A panic there has been reported by the panic hook.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Order {
    fn obey(self) {
        match self {
            Order::Replace { recipe, old, delay, owner, result } => {
                if let Some((running, lost)) = old {
                    bury(running, &lost);
                }
                if !is_left_alone(&owner, delay) {
                    // Without an owner nobody takes it, and it ends with the message.
                    let _ = result.send(recipe.start(&owner));
                }
                // The last: it wakes the owner, who finds the result.
                drop(owner);
            }
            Order::End(running) => drop(running),
        }
    }
}

impl Drop for PasstLink {
    fn drop(&mut self) {
        if let State::Up { running, .. } | State::Lost { running, .. } =
            mem::replace(&mut self.state, State::Dead)
        {
            self.keeper.order(Order::End(running));
        }
    }
}

/// Waits; whether the owner has gone meanwhile.
fn is_left_alone(owner: &UnixStream, delay: Duration) -> bool {
    let end = Instant::now() + delay;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let mut fds = [PollFd { fd: owner.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
        if sys::poll(&mut fds, left).is_err() || fds[0].revents != 0 {
            return true;
        }
        if left.is_zero() {
            return false;
        }
    }
}

fn bury(running: Running, lost: &Lost) {
    let Running { wire, child, .. } = running;
    let pid = child.pid();
    if !matches!(lost, Lost::Closed) {
        child.kill();
    }
    drop(wire);
    let (end, words) = child.bury(GRACE);
    warn!(pid, reason = %lost, %end, words, "passt is gone: its connections are lost, another is started");
}

/// How long to wait before the next attempt.
#[derive(Debug, Default)]
struct Backoff {
    next: Duration,
}

impl Backoff {
    /// The last one `lived` for that long.
    fn after(&mut self, lived: Duration) -> Duration {
        let delay = if lived >= STEADY { Duration::ZERO } else { self.next };
        self.next = (delay * 2).clamp(FIRST, MOST);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_replacement_comes_at_once_and_the_others_later_and_later() {
        let mut backoff = Backoff::default();
        let millis = |lived| move |backoff: &mut Backoff| backoff.after(lived).as_millis();
        let short = millis(Duration::from_secs(1));
        let delays: Vec<u128> = (0..9).map(|_| short(&mut backoff)).collect();
        assert_eq!(delays, [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(millis(STEADY)(&mut backoff), 0);
        assert_eq!(short(&mut backoff), 100);
    }
}
