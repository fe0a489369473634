//! Connections that guests open: from connect(2), by way of a parked socket, to the end of the relay.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use netshunt_lkl::{Kernel, Socket};
use nix::sys::epoll::{EpollEvent, EpollFlags};
use tracing::{debug, warn};

use super::direct::Direct;
use super::looks::MISSES;
use super::relay::{Relay, Step};
use super::thread::{Id, Machine};
use super::{Connect, Question, Reply};
use crate::address::{canonical, for_family};
use crate::holders::Sought;
use crate::options::StackOption;
use crate::park::Space;
use crate::pending::Pending;
use crate::points::{ABANDONED, CONNECTING, JOINED, REFUSED, RELAY_ENDED};
use crate::sockets::{Cookie, State, Table};
use crate::sys;

/// What is to be told of P, each time that it happens.
pub(super) const EDGES: EpollFlags = EpollFlags::EPOLLIN
    .union(EpollFlags::EPOLLOUT)
    .union(EpollFlags::EPOLLPRI)
    .union(EpollFlags::EPOLLRDHUP)
    .union(EpollFlags::EPOLLET);

/// One connection of a guest.
pub(super) enum Connection {
    /// `misses`: how many times in a row nobody had the guest's socket.
    Opening {
        request: Box<Connect>,
        stack: Socket,
        misses: u8,
    },
    Open {
        cookie: Cookie,
        relay: Relay,
        stack: Socket,
        names: (SocketAddr, SocketAddr),
        queued: bool,
    },
    /// One end of a connection between guests.
    Direct(Direct),
}

impl Machine {
    /// Has the sockets looked for whose turn it is; returns how long until the next one's.
    pub(super) fn look(&mut self, now: Instant) -> Option<Duration> {
        let is_opening = |cookie| {
            let id = self.current.get(&cookie);
            id.is_some_and(|id| matches!(self.connections.get(id), Some(Connection::Opening { .. })))
        };
        let wait = self.looks.wait(now, is_opening)?;
        if !wait.is_zero() {
            return Some(wait);
        }
        let mut sought = Vec::new();
        for cookie in self.looks.take(now) {
            let Some(id) = self.current.get(&cookie) else { continue };
            let Some(Connection::Opening { request, .. }) = self.connections.get(id) else { continue };
            // A thread in connect(2) has the socket, whatever becomes of the descriptor.
            let waits = request.waiting.iter().any(Pending::is_open);
            match sys::inode(request.guest.as_fd()) {
                Ok(inode) if !waits => sought.push(Sought { caller: request.caller, cookie, inode }),
                _ => self.looks.add(cookie, now),
            }
        }
        if !sought.is_empty() {
            self.looks.look(sought, &self.shared);
        }
        None
    }

    pub(super) fn looked(&mut self, looked: &[Cookie], missing: &[Cookie]) {
        let now = Instant::now();
        for &cookie in looked {
            let Some(&id) = self.current.get(&cookie) else { continue };
            let Some(Connection::Opening { misses, .. }) = self.connections.get_mut(&id) else { continue };
            *misses = if missing.contains(&cookie) { *misses + 1 } else { 0 };
            match *misses {
                MISSES => self.abandon(id),
                _ => self.looks.add(cookie, now),
            }
        }
    }

    /// Nobody has the guest's socket any more.
    fn abandon(&mut self, id: Id) {
        let Some(Connection::Opening { request, stack, .. }) = self.connections.remove(&id) else { return };
        let Connect { cookie, guest, v6, space, destination, flow, .. } = *request;
        self.give_up(stack, destination);
        self.current.remove(&cookie);
        // Should it be in flight after all (SCM_RIGHTS): whoever receives it finds that it failed.
        self.sockets.lock().set(cookie, State::Failed { errno: libc::ECONNABORTED });
        if self.is_waiting(cookie, space) {
            let _ = self.closed.refuse(guest.as_fd(), v6);
        }
        debug!(dst = %destination, "{ABANDONED}");
        flow.close(Ok(()));
    }

    /// Ends a stack socket that was to be connected, also on the far side of the link.
    fn give_up(&self, stack: Socket, destination: SocketAddr) {
        let local = self.kernel.local_address(stack);
        self.kernel.abort(stack);
        if let Ok(local) = local {
            self.wire.link.borrow_mut().abandon(local, destination);
        }
    }

    /// Connects another socket in the place of one whose SYN is lost: Linux would repeat that only after a
    /// second (RFC 6298, section 2).
    pub(super) fn begin_again(&mut self, id: Id) {
        let Some(Connection::Opening { mut request, stack, .. }) = self.connections.remove(&id) else {
            return;
        };
        // The guest may have asked for its name already.
        request.bound = request.bound.or(self.kernel.local_address(stack).ok());
        self.kernel.abort(stack);
        match self.start(id, &request) {
            Ok(stack) => {
                self.connections.insert(id, Connection::Opening { request, stack, misses: 0 });
                self.progress(id, stack);
            }
            Err(error) => {
                self.current.remove(&request.cookie);
                self.refuse(*request, error.raw_os_error().unwrap_or(libc::EIO));
            }
        }
    }

    /// Puts a relay in the line, once.
    pub(super) fn enqueue(&mut self, id: Id) {
        match self.connections.get_mut(&id) {
            Some(Connection::Open { queued, .. }) => {
                if !std::mem::replace(queued, true) {
                    self.runnable.push_back(id);
                }
            }
            Some(Connection::Opening { .. } | Connection::Direct(_)) => {}
            None => self.enqueue_datagram(id),
        }
    }

    pub(super) fn turn(&mut self, id: Id) {
        let Some(Connection::Open { relay, queued, .. }) = self.connections.get_mut(&id) else {
            return self.turn_datagram(id);
        };
        *queued = false;
        match relay.step(&self.kernel, &mut self.scratch) {
            Step::Done => self.end(id),
            Step::More => self.enqueue(id),
            Step::Wait => {}
        }
    }

    /// A relay is over: its socket's names stay known.
    pub(super) fn end(&mut self, id: Id) {
        let Some(Connection::Open { cookie, names: (local, peer), .. }) = self.connections.remove(&id) else {
            return;
        };
        if self.current.get(&cookie) == Some(&id) {
            self.current.remove(&cookie);
            self.sockets.lock().end(cookie, local, peer);
        }
        debug!(dst = %peer, "{RELAY_ENDED}");
    }

    /// Looks whether an opening connection is up or has failed.
    pub(super) fn progress(&mut self, id: Id, stack: Socket) {
        match self.kernel.take_error(stack) {
            // A reset without a connection is a refusal: this one was up for a moment.
            Ok(Some(libc::ECONNRESET)) => self.up_and_reset(id),
            Ok(Some(errno)) => self.fail(id, errno),
            Ok(None) if self.kernel.readiness(stack) & libc::EPOLLOUT as u32 != 0 => self.up(id),
            Ok(None) => {}
            Err(error) => self.fail(id, error.raw_os_error().unwrap_or(libc::EIO)),
        }
    }

    pub(super) fn connect(&mut self, request: Box<Connect>) {
        // What it was bound to is bound again, by a socket of the destination's family.
        self.let_go(request.cookie);
        self.sweep_for(request.destination);
        let id = self.next;
        self.next += 1;
        match self.start(id, &request) {
            Ok(stack) => {
                debug!(dst = %request.destination, "{CONNECTING}");
                self.current.insert(request.cookie, id);
                self.looks.add(request.cookie, Instant::now());
                self.connections.insert(id, Connection::Opening { request, stack, misses: 0 });
                // Over the stack's own loopback it may be decided already.
                self.progress(id, stack);
            }
            Err(error) => {
                self.refuse(*request, error.raw_os_error().unwrap_or(libc::EIO));
            }
        }
    }

    /// Opens the stack's socket and starts to connect it.
    fn start(&self, id: Id, request: &Connect) -> io::Result<Socket> {
        let v6 = request.destination.is_ipv6();
        let domain = if v6 { libc::AF_INET6 } else { libc::AF_INET };
        let stack = self.kernel.socket(domain, libc::SOCK_STREAM, 0, id)?;
        let started =
            self.prepare(stack, request).and_then(|()| self.kernel.connect(stack, request.destination));
        match started {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => {
                self.kernel.close(stack);
                Err(error)
            }
            _ => Ok(stack),
        }
    }

    fn prepare(&self, stack: Socket, request: &Connect) -> io::Result<()> {
        for StackOption { level, name, value } in &request.options {
            if let Err(error) = self.kernel.set_option(stack, *level, *name, value) {
                debug!(level, name, %error, "the stack does not take an option");
            }
        }
        if request.bound.is_some() {
            self.share(stack, &request.guest)?;
        }
        match request.bound {
            // A dual-stack socket's wildcard is that of both families; this socket is of one.
            Some(local) if local.ip().is_unspecified() && request.destination.is_ipv4() => {
                self.kernel.bind(stack, (Ipv4Addr::UNSPECIFIED, local.port()).into())
            }
            // A socket that is bound to an address of IPv6 is of that family only (inet6_bind() of net/ipv6/af_inet6.c).
            Some(local) if canonical(local).is_ipv6() && request.destination.is_ipv4() => {
                Err(io::Error::from_raw_os_error(libc::ENETUNREACH))
            }
            Some(local) => self.kernel.bind(stack, for_family(local, request.destination.is_ipv6())),
            None => Ok(()),
        }
    }

    /// The stack's connection is up: join the guest's socket and start the relay.
    fn up(&mut self, id: Id) {
        let Some(Connection::Opening { request, stack, .. }) = self.connections.remove(&id) else { return };
        let Connect { cookie, space, destination, shown, ref waiting, ref guest, .. } = *request;
        let met = self.meet(stack, destination);
        let v6 = met.as_ref().is_some_and(|met| self.listeners.is_v6(met.listener));
        // Locked: from the join on the guest has its event, and may ask who its peer is.
        let mut sockets = self.sockets.lock();
        let joined = self.kernel.local_address(stack).and_then(|local| {
            if !self.is_at(cookie, space, guest.as_fd(), &sockets) {
                return Err(io::Error::from_raw_os_error(libc::ECONNABORTED));
            }
            let p = space.join(v6)?;
            // It may have left in between, and somebody else have come.
            if !self.is_at(cookie, space, guest.as_fd(), &sockets) {
                sys::reset_when_closed(p.as_fd());
                return Err(io::Error::from_raw_os_error(libc::ECONNABORTED));
            }
            if met.is_none() {
                // It is joined already: a close in order would be the end of a stream.
                let added = self.epoll.add(p.as_fd(), EpollEvent::new(EDGES, id));
                added.inspect_err(|_| sys::reset_when_closed(p.as_fd()))?;
            }
            sockets.set(cookie, State::Connected { local, peer: shown });
            // From here on a guest can hold the socket's lock, by a send that waited for this: it is not called.
            let entry = sockets.entry(cookie);
            entry.told = waiting.iter().any(Pending::is_open);
            entry.direct = met.is_some();
            Ok((local, p))
        });
        let waits = joined.is_err() && self.is_at(cookie, space, guest.as_fd(), &sockets);
        drop(sockets);
        let (local, p) = match joined {
            Ok(joined) => joined,
            Err(error) => {
                self.kernel.abort(stack);
                if let Some(met) = met {
                    self.kernel.abort(met.stack);
                }
                if waits {
                    // We are short of something: who waits without a call waiting would never hear of it.
                    warn!(dst = %destination, %error, "a connection that is up cannot be brought to its socket");
                    self.current.remove(&cookie);
                    return self.refuse(*request, error.raw_os_error().unwrap_or(libc::EIO));
                }
                // The guest closed its socket meanwhile, or took it elsewhere; or it was joined and reset.
                debug!(dst = %destination, %error, "nobody waits for this connection any more");
                self.give_back(cookie, space, id);
                answer_all(waiting, Err(libc::ECONNABORTED));
                return request.flow.close(Ok(()));
            }
        };
        answer_all(waiting, Ok(()));
        request.flow.close(Ok(()));
        debug!(dst = %destination, "{JOINED}");
        let names = (local, shown);
        if let Some(met) = met {
            self.begin_direct(id, Direct { cookie, stack, names, places: space.ends() });
            return self.introduce(p, &met, space);
        }
        let relay = Relay::new(p, stack, &self.kernel);
        self.connections.insert(id, Connection::Open { cookie, relay, stack, names, queued: false });
        self.enqueue(id);
    }

    /// Whether the guest's socket is still where it was parked. Nobody tells us of a shutdown(2), which dissolves it
    /// (inet_shutdown() in net/ipv4/af_inet.c), nor that it has timed out: its port may be anybody's then, also a service's of
    /// the host. Asked without its lock, which the guest can hold once it is joined.
    fn is_at(&self, cookie: Cookie, space: Space, guest: BorrowedFd<'_>, sockets: &Table) -> bool {
        let is_parked = matches!(sockets.state(cookie), State::Connecting { space: at, .. } if at == space);
        let (own, other) = space.ends();
        is_parked
            && match self.listeners.diag() {
                Some(diag) => {
                    diag.connection(own, other).is_ok_and(|f| f.is_some_and(|f| f.cookie == cookie))
                }
                // Without tcp_diag: what has left has hung up. So has who is shut down as soon as he is connected.
                None => sys::poll_now(guest, 0) & libc::POLLHUP == 0,
            }
    }

    /// Whether nobody else has made anything of a parked socket, and holds its lock.
    fn is_waiting(&self, cookie: Cookie, space: Space) -> bool {
        self.listeners.diag().is_none_or(|diag| diag.is_opening(cookie, space.ends()))
    }

    fn up_and_reset(&mut self, id: Id) {
        self.up(id);
        if let Some(Connection::Open { relay, .. }) = self.connections.get(&id) {
            relay.cut(&self.kernel);
            self.end(id);
        }
    }

    fn fail(&mut self, id: Id, errno: i32) {
        let Some(Connection::Opening { request, stack, .. }) = self.connections.remove(&id) else { return };
        self.give_up(stack, request.destination);
        self.current.remove(&request.cookie);
        self.refuse(*request, errno);
    }

    /// Tells the guest that its connection failed.
    fn refuse(&mut self, request: Connect, errno: i32) {
        let Connect { cookie, guest, v6, space, waiting, flow, .. } = request;
        let blocking = waiting.iter().any(Pending::is_open);
        // Known before the guest can see an event. A blocking call has its errno as answer, and
        // SO_ERROR is then 0, as natively.
        let state = if blocking { State::Idle } else { State::Failed { errno } };
        // Locked: the guest may ask for SO_ERROR as soon as it has its event, and half-way through
        // there would be another error to come.
        let mut sockets = self.sockets.lock();
        // Not if the guest has dissolved it meanwhile, and perhaps begun another attempt.
        let is_this = matches!(sockets.state(cookie), State::Connecting { space: at, .. } if at == space);
        if is_this {
            sockets.set(cookie, state);
        }
        let is_waiting = is_this && self.is_waiting(cookie, space);
        let ended = match blocking {
            true => {
                let ended = if is_waiting { sys::disconnect(guest.as_fd()) } else { Ok(()) };
                // tcp_disconnect() leaves ECONNRESET behind.
                ended
                    .and_then(|()| sys::int_option(guest.as_fd(), libc::SOL_SOCKET, libc::SO_ERROR).map(drop))
            }
            false if is_waiting => self.closed.refuse(guest.as_fd(), v6),
            false => Ok(()),
        };
        drop(sockets);
        debug!(errno, "{REFUSED}");
        if let Err(error) = ended {
            debug!(%error, "cannot end a parked socket");
        }
        flow.close(Err(errno));
        answer_all(&waiting, Err(errno));
    }

    /// An attempt came to nothing that the guest has given up, and perhaps begun another.
    fn give_back(&mut self, cookie: Cookie, space: Space, id: Id) {
        if self.current.get(&cookie) == Some(&id) {
            self.current.remove(&cookie);
        }
        let mut sockets = self.sockets.lock();
        if matches!(sockets.state(cookie), State::Connecting { space: at, .. } if at == space) {
            sockets.set(cookie, State::Idle);
        }
    }

    pub(super) fn drop_connection(&mut self, cookie: Cookie) {
        self.let_go(cookie);
        let Some(id) = self.current.remove(&cookie) else { return };
        match self.connections.remove(&id) {
            Some(Connection::Opening { request, stack, .. }) => {
                self.give_up(stack, request.destination);
                answer_all(&request.waiting, Err(libc::ECONNABORTED));
            }
            Some(Connection::Open { stack, .. } | Connection::Direct(Direct { stack, .. })) => {
                self.kernel.abort(stack);
            }
            None => {}
        }
    }

    pub(super) fn wait_for(&mut self, cookie: Cookie, pending: Pending) {
        let opening = self.current.get(&cookie).and_then(|id| self.connections.get_mut(id));
        match opening {
            Some(Connection::Opening { request, .. }) => request.waiting.push(pending),
            Some(Connection::Open { .. } | Connection::Direct(_)) => pending.answer(Ok(())),
            None => {
                let mut sockets = self.sockets.lock();
                let errno = match sockets.state(cookie) {
                    State::Failed { errno } => {
                        sockets.set(cookie, State::Idle);
                        if errno == 0 { libc::ECONNABORTED } else { errno }
                    }
                    _ => libc::ECONNABORTED,
                };
                drop(sockets);
                pending.answer(Err(errno));
            }
        }
    }

    fn stack_of(&self, cookie: Cookie) -> Option<Socket> {
        let id = *self.current.get(&cookie)?;
        match self.connections.get(&id) {
            Some(
                Connection::Open { stack, .. }
                | Connection::Opening { stack, .. }
                | Connection::Direct(Direct { stack, .. }),
            ) => Some(*stack),
            None => self.listeners.stack_of(id),
        }
    }

    pub(super) fn local_name(&self, cookie: Cookie, question: Question) {
        let result = self.on_stack(cookie, Kernel::local_address);
        self.shared.reply(Reply::LocalName { question, result });
    }

    pub(super) fn read(&self, cookie: Cookie, level: i32, name: i32, size: usize, question: Question) {
        let result = self.on_stack(cookie, |kernel, stack| {
            let mut value = vec![0; size];
            let len = kernel.option(stack, level, name, &mut value)?;
            value.truncate(len);
            Ok(value)
        });
        self.shared.reply(Reply::Read { question, result });
    }

    pub(super) fn set(&self, cookie: Cookie, option: &StackOption) -> Result<(), i32> {
        self.on_stack(cookie, |kernel, stack| {
            kernel.set_option(stack, option.level, option.name, &option.value)
        })
    }

    fn on_stack<T>(
        &self,
        cookie: Cookie,
        call: impl FnOnce(&Kernel, Socket) -> io::Result<T>,
    ) -> Result<T, i32> {
        let stack = self.stack_of(cookie).ok_or(libc::ENOTCONN)?;
        call(&self.kernel, stack).map_err(|e| e.raw_os_error().unwrap_or(libc::EIO))
    }
}

fn answer_all(waiting: &[Pending], result: Result<(), i32>) {
    for pending in waiting {
        pending.answer(result);
    }
}
