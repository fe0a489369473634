//! What the supervisor remembers of guests' sockets, by their cookie (`SO_COOKIE`, socket(7)).
//!
//! A socket appears here when a guest says something about it that the host's own socket cannot
//! hold, and stays out of it otherwise: a bypassed socket has no entry. Nothing is told when a
//! guest closes a socket, so entries that nothing waits for are forgotten, oldest first, beyond a
//! bound.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use netshunt_notify::Duplicate;

use crate::options::StackOption;
use crate::park::Space;

/// The kernel's number for a socket: never reused while the machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Cookie(pub(crate) u64);

/// Entries of sockets that are not connecting or connected that are kept at most.
const IDLE: usize = 16 * 1024;

/// One socket.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    /// What the guest bound it to, before a verdict says on which side that counts.
    pub(crate) bound: Option<SocketAddr>,
    /// The port in `bound` was of the kernel's choice.
    pub(crate) any_port: bool,
    /// The stack has a socket that is bound for this one.
    pub(crate) held: bool,
    /// Options for the stack's socket, in the order they were set.
    pub(crate) options: Vec<StackOption>,
    /// The guest's IPV6_V6ONLY; its socket itself must be dual-stack to be parked.
    pub(crate) v6only: Option<bool>,
    pub(crate) state: State,
    /// A connect(2) that waited has said that it is connected: the next one says EISCONN. The host's socket, whose
    /// connect(2) did not wait, would say 0 once.
    pub(crate) told: bool,
    /// While it is being connected: the duplicate that is held for that.
    pub(crate) guest: Weak<Duplicate>,
    /// Connected to another guest's own socket, without a relay.
    pub(crate) direct: bool,
}

/// Where a socket is on the stack path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// Joined with a relay.
    Connected { local: SocketAddr, peer: SocketAddr },
    /// Parked until the stack's connection is up.
    Connecting { space: Space, peer: SocketAddr },
    /// The connection is over; its names stay.
    Ended { local: SocketAddr, peer: SocketAddr },
    /// The last connect(2) failed; `SO_ERROR` says so once, after which the errno is 0.
    Failed { errno: i32 },
    #[default]
    Idle,
    /// As the stack's own socket does.
    Listening,
}

impl State {
    fn is_live(self) -> bool {
        matches!(self, State::Connected { .. } | State::Connecting { .. } | State::Listening)
    }
}

impl Entry {
    /// Whether there is a socket of the stack for it.
    pub(crate) fn is_on_stack(&self) -> bool {
        self.held || self.state.is_live()
    }

    /// What the guest set it to.
    pub(crate) fn option(&self, which: (i32, i32)) -> Option<&StackOption> {
        self.options.iter().find(|option| (option.level, option.name) == which)
    }

    /// Keeps an option for the next socket of the stack. One that is connected has no other after it.
    pub(crate) fn remember(&mut self, option: StackOption) {
        if self.state.is_live() && !self.held {
            return;
        }
        self.options.retain(|o| (o.level, o.name) != (option.level, option.name));
        self.options.push(option);
    }
}

/// All of them. Locked for moments only, never across an access to guest memory.
#[derive(Debug, Default)]
pub(crate) struct Sockets(Mutex<Table>);

#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: HashMap<Cookie, Entry>,
    /// Cookies in the order in which they became idle; some are live again or gone.
    idle: VecDeque<Cookie>,
}

impl Sockets {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing panics half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    pub(crate) fn find(&self, cookie: Cookie) -> Option<&Entry> {
        self.entries.get(&cookie)
    }

    pub(crate) fn find_mut(&mut self, cookie: Cookie) -> Option<&mut Entry> {
        self.entries.get_mut(&cookie)
    }

    pub(crate) fn state(&self, cookie: Cookie) -> State {
        self.find(cookie).map_or(State::Idle, |e| e.state)
    }

    /// Whether one listens on that port in the stack.
    pub(crate) fn listens(&self, port: u16) -> bool {
        let here = |entry: &Entry| {
            entry.state == State::Listening && entry.bound.is_some_and(|bound| bound.port() == port)
        };
        self.entries.values().any(here)
    }

    /// The entry of that socket, made if there is none.
    pub(crate) fn entry(&mut self, cookie: Cookie) -> &mut Entry {
        if !self.entries.contains_key(&cookie) {
            self.idle.push_back(cookie);
            self.shrink();
        }
        self.entries.entry(cookie).or_default()
    }

    /// The stack has no bound socket for it any more.
    pub(crate) fn let_go(&mut self, cookie: Cookie) {
        let Some(entry) = self.entries.get_mut(&cookie) else { return };
        entry.held = false;
        if entry.state == State::Listening {
            entry.state = State::Idle;
        }
        self.idle.push_back(cookie);
        self.shrink();
    }

    /// Moves a socket to another state; one that ends up idle may be forgotten later.
    pub(crate) fn set(&mut self, cookie: Cookie, state: State) {
        let entry = self.entry(cookie);
        let was_live = entry.state.is_live();
        entry.state = state;
        if was_live && !state.is_live() {
            self.idle.push_back(cookie);
            self.shrink();
        }
    }

    /// A connection is over: its names stay known, unless the guest has dissolved it meanwhile and perhaps begun another.
    pub(crate) fn end(&mut self, cookie: Cookie, local: SocketAddr, peer: SocketAddr) {
        if self.state(cookie) == (State::Connected { local, peer }) {
            self.set(cookie, State::Ended { local, peer });
        }
    }

    /// Forgets a socket: it is the host kernel's alone, or gone.
    pub(crate) fn forget(&mut self, cookie: Cookie) -> Option<Entry> {
        self.entries.remove(&cookie)
    }

    fn shrink(&mut self) {
        while self.idle.len() > IDLE {
            let Some(oldest) = self.idle.pop_front() else { return };
            if !self.find(oldest).is_some_and(Entry::is_on_stack) {
                self.entries.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: State = State::Failed { errno: libc::ECONNREFUSED };

    #[test]
    fn the_end_of_a_connection_says_nothing_of_the_next() {
        let sockets = Sockets::default();
        let mut table = sockets.lock();
        let [local, peer, other] = [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let next = State::Connected { local: other, peer };
        for state in [State::Idle, FAILED, State::Listening, next] {
            table.set(Cookie(1), state);
            table.end(Cookie(1), local, peer);
            assert_eq!(table.state(Cookie(1)), state);
        }
        table.set(Cookie(1), State::Connected { local, peer });
        table.end(Cookie(1), local, peer);
        assert_eq!(table.state(Cookie(1)), State::Ended { local, peer });
    }

    #[test]
    fn idle_entries_are_bounded_and_live_ones_are_kept() {
        let sockets = Sockets::default();
        let mut table = sockets.lock();
        let peer = "192.0.2.1:80".parse().unwrap();
        table.set(Cookie(0), State::Connected { local: peer, peer });
        for n in 1..=2 * IDLE as u64 {
            table.set(Cookie(n), FAILED);
        }
        assert!(table.entries.len() <= IDLE + 1);
        assert_eq!(table.state(Cookie(0)), State::Connected { local: peer, peer });
        assert_eq!(table.state(Cookie(1)), State::Idle);
        assert_eq!(table.state(Cookie(2 * IDLE as u64)), FAILED);
    }
}
