//! Guests' datagram and netlink sockets: what the handlers of calls and the stack's thread share.
//!
//! Such a socket of a guest's, G, is one of a pair of AF_UNIX datagram sockets; the stack's thread has
//! the other, P, and beside it a socket of the stack's of the kind that was asked for. A pair carries no
//! addresses, so G's queue holds datagrams of one [`Run`] at a time, and a receive that wants to know the
//! sender learns it from here.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};

use netshunt_notify::Duplicate;
use netshunt_policy::Proto;
use tracing::debug;

use crate::calls::Receive;
use crate::sockets::Cookie;
use crate::sys;

/// Destinations of one socket that are remembered as reported.
const TOLD: usize = 256;
/// Those that may be answered, on the host or through the stack.
const HEARD: usize = 4096;

/// One socket.
#[derive(Debug)]
pub(crate) struct End {
    /// The stack thread's number for it.
    pub(crate) id: u64,
    pub(crate) domain: i32,
    pub(crate) protocol: i32,
    run: Mutex<Run>,
    /// Somebody is taking a datagram out of G's queue.
    taking: AtomicBool,
    /// The stack's thread wanted `run` while somebody had it.
    wanted: AtomicBool,
    state: Mutex<State>,
    receives: Mutex<VecDeque<Receive>>,
}

/// What all datagrams in G's queue have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Run {
    /// The sender: a `struct sockaddr_*`.
    pub(crate) from: Vec<u8>,
    /// Control messages (cmsg(3)).
    pub(crate) control: Vec<u8>,
}

/// What the guest made of it.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// As connect(2) was told.
    pub(crate) peer: Option<SocketAddr>,
    /// Where it is bound in the stack.
    pub(crate) bound: Option<SocketAddr>,
    /// An error of the network's that is still to be told (`SO_ERROR`).
    pub(crate) error: Option<i32>,
    /// How many there have been.
    pub(crate) errors: u64,
    told: HashSet<SocketAddr>,
    /// Who has sent to it on the host, where a rule lets it be reached.
    heard: HashSet<SocketAddr>,
    /// Who has sent to it through the stack: over the link to a published port, if it is not who was asked.
    callers: HashSet<SocketAddr>,
}

impl End {
    pub(crate) fn new(id: u64, domain: i32, protocol: i32) -> Self {
        End {
            id,
            domain,
            protocol,
            run: Mutex::default(),
            taking: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
            state: Mutex::default(),
            receives: Mutex::default(),
        }
    }

    pub(crate) fn is_netlink(&self) -> bool {
        self.domain == libc::AF_NETLINK
    }

    /// Of the internet's. Rules treat UDP-Lite as they do UDP.
    pub(crate) fn proto(&self) -> Proto {
        match self.protocol {
            libc::IPPROTO_UDP | libc::IPPROTO_UDPLITE => Proto::Udp,
            _ => Proto::Icmp,
        }
    }

    /// Whether it is of that protocol and bound to that port.
    pub(crate) fn has_port(&self, protocol: i32, port: u16) -> bool {
        self.protocol == protocol && self.state().bound.is_some_and(|bound| bound.port() == port)
    }

    /// Whether it is reached at `local`, once it is bound there.
    pub(crate) fn serves(&self, local: SocketAddr) -> bool {
        let domain = if local.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
        (self.domain, self.protocol) == (domain, libc::IPPROTO_UDP)
    }

    /// Takes a datagram out of G's queue, by `receive`, together with its sender. Says, too, whether the
    /// stack's thread must be told that it is over.
    ///
    /// The guest can make `receive` wait for ever, by a receive of its own into a page that never comes. Only the
    /// watch calls this: whoever is in it already was given up, and will not be waited for. `None` then.
    pub(crate) fn take<T>(&self, receive: impl FnOnce() -> T) -> Option<(T, Run, bool)> {
        if self.taking.swap(true, Ordering::SeqCst) {
            return None;
        }
        let run = self.run.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = receive();
        let from = run.clone();
        drop(run);
        self.taking.store(false, Ordering::SeqCst);
        Some((taken, from, self.wanted.swap(false, Ordering::SeqCst)))
    }

    /// For a datagram to be put into G's queue; `None` while one is being taken out.
    pub(crate) fn try_run(&self) -> Option<MutexGuard<'_, Run>> {
        let run = || match self.run.try_lock() {
            Ok(run) => Some(run),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        // Tried again after saying so: it may have been given up in between.
        run().or_else(|| {
            self.wanted.store(true, Ordering::SeqCst);
            run()
        })
    }

    /// The last message of the error queue has been taken: nothing is announced any more, at G neither, unless there have
    /// been more errors than that. SO_ERROR takes no lock that a guest could hold (net/core/sock.c).
    pub(crate) fn forget_error(&self, g: &Duplicate, errors: u64) {
        let mut state = self.state();
        if state.errors == errors {
            state.error = None;
            if let Err(error) = sys::int_option(g.as_fd(), libc::SOL_SOCKET, libc::SO_ERROR) {
                debug!(%error, "cannot take back an error");
            }
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls that wait for a datagram, in their order.
    pub(crate) fn receives(&self) -> MutexGuard<'_, VecDeque<Receive>> {
        self.receives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether a flow to `destination` is yet to be reported.
    pub(crate) fn is_news(&mut self, destination: SocketAddr) -> bool {
        if self.told.len() >= TOLD {
            self.told.clear();
        }
        self.told.insert(destination)
    }

    /// Somebody has sent to it on the host.
    pub(crate) fn hear(&mut self, from: SocketAddr) {
        if self.heard.len() >= HEARD {
            self.heard.clear();
        }
        self.heard.insert(from);
    }

    pub(crate) fn has_heard(&self, from: SocketAddr) -> bool {
        self.heard.contains(&from)
    }

    /// Somebody has sent to it through the stack.
    pub(crate) fn is_called(&mut self, from: SocketAddr) {
        if self.callers.len() >= HEARD {
            self.callers.clear();
        }
        self.callers.insert(from);
    }
}

/// All of them, by the cookies of G.
#[derive(Debug, Default)]
pub(crate) struct Ends(RwLock<HashMap<Cookie, Arc<End>>>);

impl Ends {
    pub(crate) fn find(&self, cookie: Cookie) -> Option<Arc<End>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&cookie).cloned()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    pub(crate) fn insert(&self, cookie: Cookie, end: Arc<End>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(cookie, end);
    }

    pub(crate) fn remove(&self, cookie: Cookie) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&cookie);
    }

    /// Whether one of that protocol is bound to that port.
    pub(crate) fn has_port(&self, protocol: i32, port: u16) -> bool {
        let ends = self.0.read().unwrap_or_else(PoisonError::into_inner);
        ends.values().any(|end| end.has_port(protocol, port))
    }

    /// Whether that one has sent through the stack to this socket, or to another of its port: servers answer by sockets
    /// of their own for each.
    pub(crate) fn was_called(&self, end: &End, from: SocketAddr) -> bool {
        let port = {
            let state = end.state();
            if state.callers.contains(&from) {
                return true;
            }
            state.bound.map_or(0, |bound| bound.port())
        };
        let ends = self.0.read().unwrap_or_else(PoisonError::into_inner);
        port != 0
            && ends
                .values()
                .any(|other| other.has_port(end.protocol, port) && other.state().callers.contains(&from))
    }
}
