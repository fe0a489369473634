//! accept(2) and accept4(2).
//!
//! Those of listeners on the stack are performed here, on the duplicate: only so is it known that what was accepted came
//! from the stack, and not from somebody else on the host's loopback; and the peer's address can be told. A connection
//! that the guest cannot take after all (EMFILE, a signal that came first) is brought to the listener once more.
//!
//! Those of all other sockets are continued. They carry nothing in, and a guest that swaps the descriptor meanwhile
//! gets a socket whose bytes nobody relays.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use netshunt_notify::{Duplicate, Notification};
use netshunt_policy::Verdict;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tracing::{Level, debug, enabled};

use super::connect::timeout;
use super::names::write_sized;
use super::{Calls, Kind, errno};
use crate::address::{canonical, encode};
use crate::flows::{Asked, Open};
use crate::options::{REUSE_PORT, StackOption};
use crate::pending::Pending;
use crate::places;
use crate::sockets::{Cookie, State};
use crate::stack::{Arrival, Command, Stage};
use crate::sys;
use crate::waits::Held;

/// Where the P that stands for a returned connection comes from.
const STAND_IN: Ipv4Addr = Ipv4Addr::new(127, 127, 255, 1);

/// A guest's listener.
#[derive(Debug)]
struct Listener {
    /// A duplicate.
    fd: Duplicate,
    cookie: Cookie,
    v6: bool,
}

/// What one call asks for.
#[derive(Clone, Copy, Debug)]
struct Terms {
    /// Of accept4(2).
    flags: i32,
    /// Until when it waits.
    limit: Option<Instant>,
}

/// An accept(2) that waits. The duplicate of its listener is with the wait, which ends with the guest.
#[derive(Debug)]
struct Blocked {
    pending: Pending,
    held: Weak<Held>,
    v6: bool,
    terms: Terms,
}

/// All of them, by listener, in the order they came.
#[derive(Debug, Default)]
pub(crate) struct Accepts(Mutex<HashMap<Cookie, VecDeque<Blocked>>>);

impl Accepts {
    fn lock(&self) -> MutexGuard<'_, HashMap<Cookie, VecDeque<Blocked>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Calls {
    pub(super) fn accept(&self, notification: Notification) {
        let flags = if notification.call() == libc::SYS_accept4 { notification.int_arg(3) } else { 0 };
        let subject = match self.subject(&notification) {
            Ok(subject) => subject,
            Err(errno) => return notification.fail(errno),
        };
        let Kind::Tcp { v6 } = subject.kind else { return notification.proceed() };
        let cookie = subject.cookie;
        if self.sockets.lock().state(cookie) != State::Listening {
            return notification.proceed();
        }
        if flags & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) != 0 {
            return notification.fail(libc::EINVAL);
        }
        let blocks = match fcntl(subject.fd(), FcntlArg::F_GETFL) {
            Ok(status) => status & OFlag::O_NONBLOCK.bits() == 0,
            Err(error) => return notification.fail(error as i32),
        };
        let limit = blocks.then(|| timeout(subject.fd(), libc::SO_RCVTIMEO)).flatten();
        let terms = Terms { flags, limit: limit.map(|after| Instant::now() + after) };
        let listener = Listener { fd: subject.fd, cookie, v6 };
        match self.try_accept(notification, &listener, flags) {
            // Others may wait for what was brought back.
            None => self.accept_waiting(cookie),
            Some(notification) if blocks => self.wait_for_arrival(notification, listener, terms),
            Some(notification) => notification.fail(libc::EAGAIN),
        }
    }

    fn wait_for_arrival(&self, notification: Notification, listener: Listener, terms: Terms) {
        let thread = match notification.thread() {
            Ok(thread) => thread,
            Err(error) => return notification.fail(errno(&error)),
        };
        let Listener { fd, cookie, v6 } = listener;
        let (pending, held) = (Pending::new(notification), Held::new(fd));
        let blocked = Blocked { pending: pending.clone(), held: Arc::downgrade(&held), v6, terms };
        self.waits.add_accept(pending, thread, terms.limit.map(|at| (at, libc::EAGAIN)), held);
        self.accepts.lock().entry(cookie).or_default().push_back(blocked);
        // From here on an arrival is told; one that came before is there already.
        self.stack.arrivals().want(cookie, true);
        self.accept_waiting(cookie);
    }

    /// Somebody may have come to a listener on which guests wait.
    pub(super) fn accept_waiting(&self, cookie: Cookie) {
        while let Some((pending, listener, terms)) = self.next_waiting(cookie) {
            let Some(notification) = pending.take() else { continue };
            if let Some(notification) = self.try_accept(notification, &listener, terms.flags) {
                // It was somebody else after all.
                return self.wait_for_arrival(notification, listener, terms);
            }
        }
    }

    /// The first that waits on that listener, if there is something to accept.
    fn next_waiting(&self, cookie: Cookie) -> Option<(Pending, Listener, Terms)> {
        let mut accepts = self.accepts.lock();
        let queue = accepts.get_mut(&cookie)?;
        queue.retain(|blocked| blocked.pending.is_open());
        let Some(held) = queue.front().and_then(|first| first.held.upgrade()) else {
            accepts.remove(&cookie);
            self.stack.arrivals().want(cookie, false);
            return None;
        };
        let first = if held.poll(libc::POLLIN) != 0 { queue.pop_front() } else { None }?;
        let listener = Listener { fd: held.take()?, cookie, v6: first.v6 };
        Some((first.pending, listener, first.terms))
    }

    /// Accepts what the stack has brought; gives the notification back if there is nothing.
    fn try_accept(
        &self,
        notification: Notification,
        listener: &Listener,
        flags: i32,
    ) -> Option<Notification> {
        let since = Instant::now();
        loop {
            if sys::poll_now(listener.fd.as_fd(), libc::POLLIN) == 0 {
                return Some(notification);
            }
            // Guarded: a guest that got hold of what was there, by a continued call, makes this one wait.
            let accepting = || sys::accept(listener.fd.as_fd(), flags & libc::SOCK_NONBLOCK);
            let Ok(accepted) = notification.guard(accepting) else {
                notification.fail(libc::EFAULT);
                return None;
            };
            // It has the listener's SO_LINGER, and the last close of it may be ours.
            let (socket, from) = match accepted {
                Ok((socket, from)) => (Duplicate::from(socket), from),
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => return Some(notification),
                Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => continue,
                Err(error) => {
                    notification.fail(errno(&error));
                    return None;
                }
            };
            let from = from.map(canonical);
            match from.and_then(|from| self.stack.arrivals().take(from, listener.cookie)) {
                Some(arrival) => self.hand_over(notification, listener, socket, arrival, flags, since),
                None => {
                    debug!(?from, "somebody else connected to a guest's listener: dropped");
                    continue;
                }
            }
            return None;
        }
    }

    fn hand_over(
        &self,
        notification: Notification,
        listener: &Listener,
        socket: Duplicate,
        arrival: Arrival,
        flags: i32,
        since: Instant,
    ) {
        let Arrival { local, peer, stage, .. } = arrival;
        let (id, accepted) = match stage {
            Stage::Fresh { id } => (Some((id, false)), socket),
            Stage::Direct { id, accepted } => {
                let accepted = Duplicate::from(accepted);
                // What stood for it was made by the kernel, of its listener.
                self.heirlooms.hand_down(socket.as_fd(), accepted.as_fd(), listener.v6);
                let status =
                    if flags & libc::SOCK_NONBLOCK != 0 { OFlag::O_NONBLOCK } else { OFlag::empty() };
                if let Err(error) = fcntl(accepted.as_fd(), FcntlArg::F_SETFL(status)) {
                    sys::reset_when_closed(accepted.as_fd());
                    return notification.fail(error as i32);
                }
                (Some((id, true)), accepted)
            }
            Stage::Returned { accepted, .. } => (None, accepted),
        };
        if let Some((id, direct)) = id {
            if let Err(errno) = self.enter(accepted.as_fd(), listener.cookie, id, (local, peer), direct) {
                // Its far side is not to take that for an end in order.
                sys::reset_when_closed(accepted.as_fd());
                return notification.fail(errno);
            }
            self.log_inbound(&notification, local, peer, since);
        }
        if notification.arg(1) != 0 {
            let name = encode(peer, listener.v6);
            match write_sized(&notification, 1, 2, &name, name.len()) {
                Ok(()) => {}
                // We are short of something, which is not the guest's fault.
                Err(libc::ENOBUFS) => {
                    self.bring_back(listener, accepted, local, peer);
                    return notification.fail(libc::ENOBUFS);
                }
                // As natively: the connection is lost.
                Err(errno) => return notification.fail(errno),
            }
        }
        if notification.inject(accepted.as_fd(), flags & libc::SOCK_CLOEXEC != 0).is_err() {
            self.bring_back(listener, accepted, local, peer);
        }
    }

    /// Makes an accepted socket a connected one of ours, and lets its bytes flow.
    fn enter(
        &self,
        socket: BorrowedFd<'_>,
        listener: Cookie,
        id: u64,
        (local, peer): (SocketAddr, SocketAddr),
        direct: bool,
    ) -> Result<(), i32> {
        let cookie = sys::cookie(socket, libc::SO_COOKIE).map(Cookie).map_err(|e| errno(&e))?;
        let mut sockets = self.sockets.lock();
        let v6only = sockets.find(listener).and_then(|entry| entry.v6only);
        let shared = sockets.find(listener).and_then(|entry| entry.option(REUSE_PORT)).cloned();
        sockets.set(cookie, State::Connected { local, peer });
        let entry = sockets.entry(cookie);
        (entry.v6only, entry.direct) = (v6only, direct);
        if direct {
            // Its own is ours, who have joined it.
            let (level, name) = REUSE_PORT;
            entry.options =
                vec![shared.unwrap_or(StackOption { level, name, value: 0i32.to_ne_bytes().to_vec() })];
        }
        drop(sockets);
        self.stack.ask(Command::Accepted { id, cookie });
        Ok(())
    }

    /// The listener's queue gets another P, by which the accepted socket is found again.
    fn bring_back(&self, listener: &Listener, accepted: Duplicate, local: SocketAddr, peer: SocketAddr) {
        let brought = places::of(listener.fd.as_fd()).and_then(|place| {
            self.stack.arrivals().enter(|| {
                let (stand_in, at) = places::visit(place, STAND_IN)?;
                let stage = Stage::Returned { accepted, _stand_in: stand_in };
                Ok((at, (), Arrival { listener: listener.cookie, local, peer, stage }))
            })
        });
        if let Err(error) = brought {
            debug!(%error, "a connection that could not be handed over is lost");
        }
    }

    fn log_inbound(&self, notification: &Notification, local: SocketAddr, peer: SocketAddr, since: Instant) {
        // Reading /proc costs more than the rest of the call: only for somebody who is told.
        if self.flows.is_none() && !enabled!(Level::DEBUG) {
            return;
        }
        let tid = notification.tid().0;
        let (pid, comm) = notification
            .thread()
            .map_or((tid, String::new()), |thread| (thread.process().unwrap_or(tid), thread.comm()));
        let asked = Asked { pid, comm, proto: "tcp", destination: local, since };
        Open::new(asked, Verdict::Stack, None, self.flows.clone()).inbound(Some(peer)).close(Ok(()));
    }
}
