//! The open link: frames in and out of one libslirp instance.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use libc::{POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI, c_int};
use netshunt_backend::{Error, Link, Network, PollFd, Protocol, Publish, Sent, Turned};
use tracing::{debug, trace};

use crate::attempts::{Attempts, Show};
use crate::farewells::Farewells;
use crate::fragments::{Fragments, Joined};
use crate::frames::Frames;
use crate::loopback::as_gateways;
use crate::plan;
use crate::sys::{self, Host, Instance};

/// Bytes of an Ethernet header, without VLAN tags: libslirp knows none.
const ETHERNET: usize = 14;

/// What has passed over a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames taken from the stack.
    pub sent: u64,
    /// Frames delivered to the stack.
    pub received: u64,
    /// Frames of the stack that no Ethernet of this MTU carries.
    pub oversized: u64,
    /// Frames of libslirp that found the inbound queue full.
    pub dropped: u64,
}

/// An open slirp link. Dropping it closes every socket libslirp holds.
pub struct SlirpLink {
    instance: Instance<Inbox>,
    network: Network,
    fragments: Fragments,
    /// A frame given in pieces, made whole; kept for its memory.
    scratch: Vec<u8>,
    counters: Counters,
}

impl SlirpLink {
    pub(crate) fn open(network: Network) -> Result<Self, crate::Error> {
        let ipv6 = network.v6.is_some();
        let instance = Instance::new(network.mtu, ipv6, Inbox::new(Instant::now()))?;
        debug!(version = sys::version(), mtu = network.mtu, ipv6, "slirp link open");
        Ok(SlirpLink {
            instance,
            network,
            fragments: Fragments::default(),
            scratch: Vec::new(),
            counters: Counters::default(),
        })
    }

    /// Makes ports of the host lead to the stack.
    pub(crate) fn publish(&mut self, publish: &Publish) -> Result<(), Error> {
        let udp = publish.protocol == Protocol::Udp;
        for address in publish.addresses(self.network.v6.is_some()) {
            let guest: IpAddr = if address.is_ipv4() { plan::GUEST.into() } else { plan::GUEST_V6.into() };
            for (host, port) in publish.ports() {
                let at = SocketAddr::new(address, host);
                self.instance
                    .forward(at, SocketAddr::new(guest, port), udp)
                    .map_err(|source| Error::Publish { publish: *publish, at: at.to_string(), source })?;
            }
        }
        // libslirp lets one connection wait, and of the others loses some.
        let mut sockets = Vec::new();
        self.interests(Instant::now(), &mut sockets);
        sockets.iter().for_each(|socket| sys::lengthen_queue(socket.fd));
        Ok(())
    }

    /// How many frames have passed.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters { dropped: self.instance.host().dropped.get(), ..self.counters }
    }
}

impl fmt::Debug for SlirpLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlirpLink")
            .field("network", &self.network)
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}

impl Link for SlirpLink {
    fn network(&self) -> &Network {
        &self.network
    }

    fn send(&mut self, frame: &[IoSlice<'_>]) -> Sent {
        let length: usize = frame.iter().map(|piece| piece.len()).sum();
        if length > ETHERNET + usize::from(self.network.mtu) {
            self.counters.oversized += 1;
            trace!(length, "frame exceeds the MTU");
            return Sent::Taken;
        }
        self.counters.sent += 1;
        let frame = match frame {
            [whole] => &**whole,
            pieces => {
                self.scratch.clear();
                for piece in pieces {
                    self.scratch.extend_from_slice(piece);
                }
                &self.scratch
            }
        };
        match self.fragments.offer(frame) {
            Joined::Complete(datagram) => self.instance.input(&datagram),
            Joined::Held => (),
            Joined::Whole if !self.instance.host().farewells.borrow_mut().sends(frame) => (),
            Joined::Whole => {
                self.instance.host().attempts.borrow_mut().ask(frame);
                self.instance.input(frame);
                self.instance.host().attempts.borrow_mut().asked();
            }
        }
        Sent::Taken
    }

    fn receive(&mut self, deliver: &mut dyn FnMut(&[u8])) -> bool {
        // Taken out for the while: no borrow is held while foreign code runs.
        let mut frames = self.instance.host().frames.take();
        let count = frames.drain(deliver);
        self.instance.host().frames.replace(frames);
        self.counters.received += count as u64;
        count != 0
    }

    fn interests(&mut self, now: Instant, fds: &mut Vec<PollFd>) -> Option<Instant> {
        self.instance.host().advance(now);
        let mut index = -1;
        let over = self.instance.host().attempts.borrow().over();
        let timeout = self.instance.fill(&mut |fd, events| {
            // Whoever asks for -1 learns nothing.
            if over.contains(&fd) {
                return -1;
            }
            fds.push(PollFd { fd, events: to_poll(events), revents: 0 });
            index += 1;
            index
        });
        let timer = self.instance.next_timer();
        let wait = [timeout, timer].into_iter().flatten().min()?;
        now.checked_add(wait)
    }

    /// Sockets of the host's that have no room for what libslirp has acknowledged.
    fn unsent(&mut self, now: Instant) -> u64 {
        let mut fds = Vec::new();
        self.interests(now, &mut fds);
        fds.iter().filter(|fd| fd.events & POLLOUT != 0).count() as u64
    }

    fn turn(&mut self, now: Instant, fds: &[PollFd]) -> Result<Turned, Error> {
        self.instance.host().advance(now);
        self.instance.run_timers();
        let shown = self.instance.host().show(fds);
        self.instance.poll(&mut |index| {
            // libslirp asks with -1 for a socket that fill() did not offer.
            let index = usize::try_from(index).ok();
            index.and_then(|index| shown.get(index).copied()).unwrap_or(0)
        });
        self.instance.host().attempts.borrow_mut().turned();
        Ok(Turned::Alive)
    }

    fn abandon(&mut self, from: SocketAddr, to: SocketAddr) {
        let fd = self.instance.host().attempts.borrow_mut().abandon(from, to);
        // libslirp still has its number, and closes it in the next turn.
        if let Some(fd) = fd {
            sys::disconnect(fd);
        }
    }
}

/// libslirp's bit, and poll(2)'s.
const BITS: [(c_int, i16); 5] = [
    (sys::POLL_IN, POLLIN),
    (sys::POLL_OUT, POLLOUT),
    (sys::POLL_PRI, POLLPRI),
    (sys::POLL_ERR, POLLERR),
    (sys::POLL_HUP, POLLHUP),
];

fn to_poll(events: c_int) -> i16 {
    BITS.iter().filter(|(slirp, _)| events & slirp != 0).fold(0, |bits, (_, poll)| bits | poll)
}

fn from_poll(revents: i16) -> c_int {
    let invalid = if revents & POLLNVAL != 0 { sys::POLL_ERR } else { 0 };
    BITS.iter().filter(|(_, poll)| revents & poll != 0).fold(invalid, |bits, (slirp, _)| bits | slirp)
}

/// What libslirp calls back: the queue of frames, its sockets, and the clock.
struct Inbox {
    frames: RefCell<Frames>,
    attempts: RefCell<Attempts>,
    farewells: RefCell<Farewells>,
    dropped: Cell<u64>,
    opened: Instant,
    /// Since `opened`. A cached clock: libslirp asks for it with every batch of frames.
    now: Cell<Duration>,
}

impl Inbox {
    fn new(opened: Instant) -> Self {
        let (frames, attempts, farewells) = Default::default();
        Inbox { frames, attempts, farewells, dropped: Cell::new(0), opened, now: Cell::default() }
    }

    /// Sets the clock, which never goes back.
    fn advance(&self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.opened);
        self.now.set(elapsed.max(self.now.get()));
    }

    fn queue(&self, frame: &[u8]) {
        match self.frames.borrow_mut().push(frame) {
            true => self.farewells.borrow_mut().receives(frame),
            false => self.dropped.set(self.dropped.get() + 1),
        }
    }

    /// What libslirp sees of polled descriptors: of a connection that has failed, not everything.
    fn show(&self, fds: &[PollFd]) -> Vec<c_int> {
        fds.iter().map(|entry| self.show_one(entry)).collect()
    }

    fn show_one(&self, entry: &PollFd) -> c_int {
        let everything = from_poll(entry.revents);
        if entry.revents == 0 || !self.attempts.borrow().has(entry.fd) {
            return everything;
        }
        let failed = entry.revents & (POLLERR | POLLHUP) != 0;
        let errno = if failed { sys::take_error(entry.fd) } else { 0 };
        if errno != 0 {
            trace!(errno, "a connection fails on the host");
        }
        match self.attempts.borrow_mut().ended(entry.fd, errno, &mut |frame| self.queue(frame)) {
            Show::Everything => everything,
            Show::Nothing => 0,
            Show::Writable => sys::POLL_OUT,
        }
    }
}

impl Host for Inbox {
    fn frame(&self, frame: &[u8]) {
        let frame = &*as_gateways(frame);
        match self.attempts.borrow_mut().instead_of(frame) {
            Some(frames) => frames.iter().for_each(|frame| self.queue(frame)),
            None => self.queue(frame),
        }
    }

    fn guest_error(&self, message: &str) {
        debug!(message = message.trim_end(), "slirp guest error");
    }

    fn opened(&self, fd: RawFd) {
        self.attempts.borrow_mut().opened(fd);
    }

    fn closed(&self, fd: RawFd) {
        self.attempts.borrow_mut().closed(fd);
    }

    fn now(&self) -> Duration {
        // libslirp takes 0 to mean that a timer is not running.
        self.now.get() + Duration::from_secs(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poll_bits_survive_the_round_trip() {
        for bits in 0..32 {
            assert_eq!(from_poll(to_poll(bits)), bits);
        }
        assert_eq!(to_poll(sys::POLL_OUT), POLLOUT);
        assert_eq!(from_poll(POLLNVAL), sys::POLL_ERR);
    }

    #[test]
    fn the_clock_follows_but_never_goes_back() {
        let inbox = Inbox::new(Instant::now());
        inbox.advance(inbox.opened + Duration::from_secs(9));
        let late = inbox.now();
        inbox.advance(inbox.opened + Duration::from_secs(3));
        assert_eq!(inbox.now(), late);
        assert_eq!(late, Duration::from_secs(10));
    }
}
