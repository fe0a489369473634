//! Connections that have arrived at guests' listeners and that nobody has accepted yet.
//!
//! Shared by the thread that brings them and the one that serves accept(2). Locked while P connects, so that an
//! accept(2) which finds P finds its entry too, and one that waits is either seen here or sees P.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use netshunt_notify::Duplicate;

use super::thread::Id;
use crate::sockets::Cookie;

/// One connection.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// The listener that it came to.
    pub(crate) listener: Cookie,
    /// The stack's addresses.
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) stage: Stage,
}

/// How far it has come.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Its own P waits in the listener's queue.
    Fresh { id: Id },
    /// P is the connection itself, to a guest's own socket: it is what is accepted. A P that only stands for it waits in
    /// the queue.
    Direct { id: Id, accepted: OwnedFd },
    /// It was accepted for a guest that could not take it (EMFILE, a signal): this is the accepted socket. A P
    /// that only stands for it waits in the queue.
    Returned { accepted: Duplicate, _stand_in: OwnedFd },
}

#[derive(Debug, Default)]
pub(crate) struct Arrivals(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// By P's address and the listener: P's port is chosen by connect(2), for one place at a time, so that two which
    /// come to different listeners may have the same.
    waiting: HashMap<(SocketAddr, Cookie), Arrival>,
    /// Listeners on which somebody waits in accept(2).
    wanted: HashSet<Cookie>,
}

impl Arrivals {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a connection, which `connect` makes and places; returns what that returned, and whether
    /// somebody waits for it.
    pub(crate) fn enter<T>(
        &self,
        connect: impl FnOnce() -> io::Result<(SocketAddr, T, Arrival)>,
    ) -> io::Result<(T, bool)> {
        let mut inner = self.lock();
        let (at, made, arrival) = connect()?;
        let wanted = inner.wanted.contains(&arrival.listener);
        inner.waiting.insert((at, arrival.listener), arrival);
        Ok((made, wanted))
    }

    /// Takes the connection whose P is at that address.
    pub(crate) fn take(&self, at: SocketAddr, listener: Cookie) -> Option<Arrival> {
        self.lock().waiting.remove(&(at, listener))
    }

    /// A listener is gone, and with it what waited for it.
    pub(crate) fn forget(&self, listener: Cookie) {
        let mut inner = self.lock();
        inner.waiting.retain(|_, arrival| arrival.listener != listener);
        inner.wanted.remove(&listener);
    }

    /// From now on, or no longer, somebody waits on that listener.
    pub(crate) fn want(&self, listener: Cookie, wanted: bool) {
        let mut inner = self.lock();
        match wanted {
            true => inner.wanted.insert(listener),
            false => inner.wanted.remove(&listener),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Among a thousand servers, one was never told of its connection.
    #[test]
    fn two_that_come_to_different_listeners_from_the_same_port_are_two() {
        let (arrivals, at) = (Arrivals::default(), "127.0.0.1:1".parse().unwrap());
        for listener in [Cookie(1), Cookie(2)] {
            let stage = Stage::Fresh { id: listener.0 };
            arrivals.enter(|| Ok((at, (), Arrival { listener, local: at, peer: at, stage }))).unwrap();
        }
        for listener in [Cookie(1), Cookie(2)] {
            assert!(
                matches!(arrivals.take(at, listener).unwrap().stage, Stage::Fresh { id } if id == listener.0)
            );
        }
    }

    #[test]
    fn only_the_listener_that_it_came_to_gets_a_connection() {
        let (arrivals, at) = (Arrivals::default(), "127.0.0.1:1".parse().unwrap());
        let arrive = || {
            let stage = Stage::Fresh { id: 1 };
            Ok((at, (), Arrival { listener: Cookie(1), local: at, peer: at, stage }))
        };
        assert!(!arrivals.enter(arrive).unwrap().1);
        assert!(arrivals.take(at, Cookie(2)).is_none());
        assert!(arrivals.take(at, Cookie(1)).is_some());
        assert!(arrivals.take(at, Cookie(1)).is_none());
        arrivals.want(Cookie(1), true);
        assert!(arrivals.enter(arrive).unwrap().1);
        arrivals.forget(Cookie(1));
        assert!(arrivals.take(at, Cookie(1)).is_none());
    }
}
