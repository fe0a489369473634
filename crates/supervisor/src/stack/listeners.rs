//! Servers: the stack's sockets that are bound for guests, and what comes in on those that listen.
//!
//! bind(2) makes the stack's socket at once: its port is known then, and EADDRINUSE said. Nothing tells us when a
//! guest closes its own socket G, and a duplicate of it would keep it open. So G's place (`places.rs`) is looked at
//! when it makes a difference: when a port is in use, when a guest connects to one of its own, and when there
//! have come to be twice as many as after the last look.

use std::collections::HashMap;
use std::hash::RandomState;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};

use netshunt_lkl::Socket;
use netshunt_notify::{Duplicate, Notification};
use nix::sys::epoll::{EpollEvent, EpollFlags};
use tracing::{debug, warn};

use super::Reply;
use super::arrivals::{Arrival, Stage};
use super::connections::{Connection, EDGES};
use super::direct::{Direct, Met};
use super::relay::Relay;
use super::thread::{Id, Machine};
use crate::address::{canonical, for_family};
use crate::inet_diag::Diag;
use crate::options::StackOption;
use crate::park::random_loopback;
use crate::pending::answer;
use crate::places;
use crate::sockets::{Cookie, State};
use crate::sys;

/// Places are looked at when this many are held at the earliest.
const FEW: usize = 64;

/// How many connections are brought to a listener at most before it accepts some: each takes a descriptor of ours.
/// More wait in the stack.
const ROOM: usize = 256;

/// From how many addresses connections arrive. Each has some 28,000 ports for each place.
const ORIGINS: u64 = 64;

/// bind(2), and listen(2), of a guest.
#[derive(Debug)]
pub(crate) struct Bind {
    pub(crate) notification: Notification,
    pub(crate) cookie: Cookie,
    /// A duplicate of the guest's socket, held until the call is answered.
    pub(crate) guest: Duplicate,
    pub(crate) v6: bool,
    /// Where to; for listen(2), where to if it is not bound yet.
    pub(crate) local: SocketAddr,
}

/// A socket of the stack that is bound for a guest.
#[derive(Debug)]
struct Held {
    cookie: Cookie,
    stack: Socket,
    v6: bool,
    port: u16,
    place: SocketAddrV4,
    /// How many may wait in G's queue; 0 while it does not listen.
    room: usize,
    waiting: usize,
}

/// A connection that waits in the queue of a guest's listener.
#[derive(Debug)]
struct Arrived {
    listener: Id,
    /// P, or what stands for it.
    visitor: OwnedFd,
    at: SocketAddr,
    stack: Socket,
    names: (SocketAddr, SocketAddr),
    /// Of a P that is connected to another guest's own socket: where it is on the host, and where that is.
    direct: Option<(SocketAddrV4, SocketAddrV4)>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Listeners {
    hasher: RandomState,
    held: HashMap<Id, Held>,
    arrived: HashMap<Id, Arrived>,
    /// When there are this many, it is time to look which are gone.
    many: usize,
    diag: Option<Diag>,
}

impl Listeners {
    pub(super) fn new() -> Self {
        let diag = Diag::new().inspect_err(|error| {
            warn!(%error, "no tcp_diag: the port of a closed server stays in use while its connections last");
        });
        let (held, arrived) = (HashMap::new(), HashMap::new());
        Listeners { hasher: RandomState::new(), held, arrived, many: FEW, diag: diag.ok() }
    }

    pub(super) fn know(&self, id: Id) -> bool {
        self.held.contains_key(&id) || self.arrived.contains_key(&id)
    }

    pub(super) fn stack_of(&self, id: Id) -> Option<Socket> {
        self.held.get(&id).map(|held| held.stack)
    }

    /// Those that listen there.
    pub(super) fn at_port(&self, port: u16) -> Vec<Id> {
        let listening = |(_, held): &(&Id, &Held)| held.port == port && held.room > 0;
        self.held.iter().filter(listening).map(|(&id, _)| id).collect()
    }

    pub(super) fn is_v6(&self, id: Id) -> bool {
        self.held.get(&id).is_some_and(|held| held.v6)
    }

    pub(super) fn diag(&self) -> Option<&Diag> {
        self.diag.as_ref()
    }

    /// Whether anybody still has G.
    fn is_there(&self, held: &Held) -> bool {
        let listener = match &self.diag {
            Some(diag) if held.room > 0 => diag.listener(held.place),
            _ => return places::is_taken(held.place),
        };
        // In doubt it is. Another's socket may have taken a place that was left.
        listener.map_or(true, |found| found == Some(held.cookie))
    }
}

impl Machine {
    pub(super) fn bind(&mut self, request: Bind) {
        let Bind { notification, cookie, guest, v6, local } = request;
        let held = self.hold(cookie, &guest, v6, local);
        // Given up before the guest can hear of it and close its own.
        drop(guest);
        answer(notification, held.map(drop));
    }

    /// Binds a socket of the stack for a guest's, and that one to its place.
    fn hold(&mut self, cookie: Cookie, guest: &Duplicate, v6: bool, local: SocketAddr) -> Result<Id, i32> {
        if self.current.contains_key(&cookie) {
            return Err(libc::EINVAL);
        }
        if self.listeners.held.len() >= self.listeners.many {
            self.sweep_places(|_| true);
            self.listeners.many = (2 * self.listeners.held.len()).max(FEW);
        }
        let id = self.next;
        self.next += 1;
        let in_use = |error: &io::Error| error.raw_os_error() == Some(libc::EADDRINUSE);
        let bound = match self.bound(id, cookie, guest, v6, local) {
            Err(error) if in_use(&error) && self.sweep_port(local.port(), cookie) => {
                self.bound(id, cookie, guest, v6, local)
            }
            other => other,
        };
        let any_port = local.port() == 0;
        let (stack, local) = bound.map_err(|e| errno(&e))?;
        let ip = random_loopback(&self.listeners.hasher, id as usize);
        let place = match places::occupy(guest.as_fd(), v6, ip) {
            Ok(place) => place,
            Err(error) => {
                self.kernel.close(stack);
                return Err(errno(&error));
            }
        };
        let held = Held { cookie, stack, v6, port: local.port(), place, room: 0, waiting: 0 };
        self.listeners.held.insert(id, held);
        self.current.insert(cookie, id);
        let mut sockets = self.sockets.lock();
        let entry = sockets.entry(cookie);
        (entry.bound, entry.any_port, entry.held) = (Some(local), any_port, true);
        Ok(id)
    }

    fn bound(
        &self,
        id: Id,
        cookie: Cookie,
        guest: &Duplicate,
        v6: bool,
        local: SocketAddr,
    ) -> io::Result<(Socket, SocketAddr)> {
        let (options, v6only) = {
            let mut sockets = self.sockets.lock();
            let entry = sockets.entry(cookie);
            (entry.options.clone(), entry.v6only)
        };
        let stack =
            self.kernel.socket(if v6 { libc::AF_INET6 } else { libc::AF_INET }, libc::SOCK_STREAM, 0, id)?;
        for StackOption { level, name, value } in &options {
            if let Err(error) = self.kernel.set_option(stack, *level, *name, value) {
                debug!(level, name, %error, "the stack does not take an option");
            }
        }
        let bind = || {
            if v6 {
                let only = i32::from(v6only == Some(true)).to_ne_bytes();
                self.kernel.set_option(stack, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &only)?;
            }
            self.share(stack, guest)?;
            self.kernel.bind(stack, for_family(local, v6))?;
            self.kernel.local_address(stack).map(canonical)
        };
        match bind() {
            Ok(local) => Ok((stack, local)),
            Err(error) => {
                self.kernel.close(stack);
                Err(error)
            }
        }
    }

    /// SO_REUSEADDR is set on G alone, without a notification.
    pub(super) fn share(&self, stack: Socket, guest: &Duplicate) -> io::Result<()> {
        let shared = sys::int_option(guest.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
        self.kernel.set_option(stack, libc::SOL_SOCKET, libc::SO_REUSEADDR, &shared.to_ne_bytes())
    }

    pub(super) fn listen(&mut self, request: Bind, backlog: i32) {
        let Bind { notification, cookie, guest, v6, local } = request;
        let started = self.start_listening(cookie, &guest, v6, local, backlog);
        drop(guest);
        if started.is_err() {
            self.undo_listening(cookie);
        }
        let taking = started.as_ref().ok().copied();
        answer(notification, started.map(drop));
        if let Some(id) = taking {
            self.take(id);
        }
    }

    fn start_listening(
        &mut self,
        cookie: Cookie,
        guest: &Duplicate,
        v6: bool,
        local: SocketAddr,
        backlog: i32,
    ) -> Result<Id, i32> {
        let id = match self.current.get(&cookie) {
            Some(&id) if self.listeners.held.contains_key(&id) => id,
            // Connected, or about to be.
            Some(_) => return Err(libc::EINVAL),
            None => self.hold(cookie, guest, v6, local)?,
        };
        let (stack, place) = {
            let held = &self.listeners.held[&id];
            (held.stack, held.place)
        };
        let listen = |machine: &Self| {
            machine.share(stack, guest)?;
            machine.kernel.listen(stack, backlog)
        };
        let mut listening = listen(self);
        if listening.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EADDRINUSE)) {
            let port = self.listeners.held[&id].port;
            if self.sweep_port(port, cookie) {
                listening = listen(self);
            }
        }
        // Then it is bound still.
        listening.map_err(|e| errno(&e))?;
        let listening = self.listen_on_host(cookie, guest, backlog).and_then(|()| {
            // A guest may unbind G at any moment, and listen(2) then binds by itself, to a port of the same
            // address: G never leaves the loopback, but the place may be another.
            let at = places::of(guest.as_fd())?;
            match at.ip() == place.ip() {
                true => Ok(at),
                false => Err(io::Error::from_raw_os_error(libc::EINVAL)),
            }
        });
        let place = match listening {
            Ok(place) => place,
            Err(error) => {
                self.close_listener(id);
                let _ = sys::disconnect(guest.as_fd());
                return Err(errno(&error));
            }
        };
        let held = self.listeners.held.get_mut(&id).expect("found or made above");
        held.place = place;
        // As the kernel has it: a negative one is very large.
        held.room = usize::try_from(backlog).unwrap_or(usize::MAX).clamp(1, ROOM);
        debug!(port = held.port, %place, "listening");
        Ok(id)
    }

    /// Locked: from the moment that a guest has dissolved G it may be bound on the host, where it must not listen.
    fn listen_on_host(&self, cookie: Cookie, guest: &Duplicate, backlog: i32) -> io::Result<()> {
        let sockets = self.sockets.lock();
        if sockets.state(cookie) != State::Listening {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        sys::listen(guest.as_fd(), backlog)
    }

    /// It was said to be listening when the guest asked for it. It still is if it was before.
    fn undo_listening(&self, cookie: Cookie) {
        let id = self.current.get(&cookie);
        let listens = id.and_then(|id| self.listeners.held.get(id)).is_some_and(|held| held.room > 0);
        let mut sockets = self.sockets.lock();
        if !listens && sockets.state(cookie) == State::Listening {
            sockets.set(cookie, State::Idle);
        }
    }

    /// Brings what the stack has accepted to the guest, as far as its queue has room.
    pub(super) fn take(&mut self, listener: Id) {
        // There is none from nowhere.
        self.take_until(listener, None);
    }

    /// The same, up to the connection from the first of these addresses to the second, which is given to the caller instead.
    pub(super) fn take_until(
        &mut self,
        listener: Id,
        wanted: Option<(SocketAddr, SocketAddr)>,
    ) -> Option<Met> {
        loop {
            let held = self.listeners.held.get(&listener)?;
            if held.waiting >= held.room {
                return None;
            }
            let id = self.next;
            let (stack, peer) = match self.kernel.accept_from(held.stack, id) {
                Ok(accepted) => accepted,
                Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => continue,
                // Nobody more; or no memory, and then the next one brings us back.
                Err(_) => return None,
            };
            self.next += 1;
            match peer.internet().map(canonical) {
                Ok(peer) if wanted.is_some_and(|ends| self.is_between(stack, peer, ends)) => {
                    return Some(Met { listener, id, stack, peer });
                }
                Ok(peer) if !self.arrive(listener, id, stack, peer, None) => return None,
                Ok(_) => {}
                Err(_) => self.kernel.abort(stack),
            }
        }
    }

    /// Whether an accepted connection from `peer` is the one from the first of those addresses to the second.
    fn is_between(&self, stack: Socket, peer: SocketAddr, (from, to): (SocketAddr, SocketAddr)) -> bool {
        peer == from && self.kernel.local_address(stack).is_ok_and(|local| canonical(local) == to)
    }

    /// Returns whether the listener is still there. `direct`: P is connected already, to a guest's socket.
    pub(super) fn arrive(
        &mut self,
        listener: Id,
        id: Id,
        stack: Socket,
        peer: SocketAddr,
        direct: Option<(OwnedFd, (SocketAddrV4, SocketAddrV4))>,
    ) -> bool {
        let held = self.listeners.held.get_mut(&listener).expect("the caller's");
        let (place, cookie) = (held.place, held.cookie);
        let from = random_loopback(&self.listeners.hasher, usize::MAX - (id % ORIGINS) as usize);
        let entered = self.kernel.local_address(stack).map(canonical).and_then(|local| {
            let entered = self.shared.arrivals.enter(|| {
                let (visitor, at) = places::visit(place, from)?;
                let (stage, direct) = match direct {
                    Some((accepted, places)) => (Stage::Direct { id, accepted }, Some(places)),
                    None => (Stage::Fresh { id }, None),
                };
                let arrival = Arrival { listener: cookie, local, peer, stage };
                Ok((at, Arrived { listener, visitor, at, stack, names: (local, peer), direct }, arrival))
            })?;
            let flags =
                EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
            if let Err(error) = self.epoll.add(entered.0.visitor.as_fd(), EpollEvent::new(flags, id)) {
                // Nobody will come for it; and P of a direct one is closed, which its guest hears.
                drop(self.shared.arrivals.take(entered.0.at, cookie));
                return Err(error.into());
            }
            Ok(entered)
        });
        match entered {
            Ok((arrived, wanted)) => {
                debug!(peer = %arrived.names.1, local = %arrived.names.0, "arrived");
                held.waiting += 1;
                self.listeners.arrived.insert(id, arrived);
                if wanted {
                    self.shared.reply(Reply::Accept { listener: cookie });
                }
                true
            }
            Err(error) => {
                self.kernel.abort(stack);
                // Nobody listens there: the guest has closed its socket.
                let gone = error.raw_os_error() == Some(libc::ECONNREFUSED);
                if gone {
                    self.close_listener(listener);
                } else {
                    debug!(%error, "a connection cannot be brought to its listener");
                }
                !gone
            }
        }
    }

    /// A guest has accepted a connection: from now on bytes flow. Not before, so that nobody but a guest
    /// ever gets one, whoever takes a place that was left.
    pub(super) fn accepted(&mut self, id: Id, cookie: Cookie) {
        let Some(Arrived { listener, visitor, stack, names, direct, .. }) =
            self.listeners.arrived.remove(&id)
        else {
            // It was over before.
            let mut sockets = self.sockets.lock();
            if let State::Connected { local, peer } = sockets.state(cookie) {
                sockets.set(cookie, State::Ended { local, peer });
            }
            return;
        };
        self.current.insert(cookie, id);
        if let Some(places) = direct {
            self.begin_direct(id, Direct { cookie, stack, names, places });
        } else {
            // What happened before is told again: nobody has noted it.
            let told = self.epoll.modify(&visitor, &mut EpollEvent::new(EDGES, id));
            let mut relay = Relay::new(visitor, stack, &self.kernel);
            if told.is_err() {
                relay.noted(EDGES);
            }
            self.connections.insert(id, Connection::Open { cookie, relay, stack, names, queued: false });
            self.enqueue(id);
        }
        if let Some(held) = self.listeners.held.get_mut(&listener) {
            held.waiting -= 1;
            self.take(listener);
        }
    }

    /// Something happened to a P or to a socket of the stack.
    pub(super) fn listener_event(&mut self, id: Id) {
        if self.listeners.held.contains_key(&id) {
            return self.take(id);
        }
        // What the peer does before it is accepted is for the guest to find out. That P is reset means
        // that the listener was closed.
        let reset = |arrived: &Arrived| sys::poll_now(arrived.visitor.as_fd(), 0) & libc::POLLHUP != 0;
        if self.listeners.arrived.get(&id).is_some_and(reset) {
            let Some(arrived) = self.listeners.arrived.remove(&id) else { return };
            self.lose(&arrived);
            // Those that wait in the stack find out that nobody listens.
            self.take(arrived.listener);
        }
    }

    fn lose(&mut self, arrived: &Arrived) {
        self.kernel.abort(arrived.stack);
        let Some(held) = self.listeners.held.get_mut(&arrived.listener) else { return };
        held.waiting -= 1;
        drop(self.shared.arrivals.take(arrived.at, held.cookie));
    }

    /// The link has forgotten every connection.
    pub(super) fn lose_arrived(&mut self) {
        let over_it = self.listeners.arrived.extract_if(|_, arrived| arrived.direct.is_none());
        for (_, arrived) in over_it.collect::<Vec<_>>() {
            self.lose(&arrived);
        }
    }

    /// A guest connects to that address: were it one of the guest's own whose listener is gone, it must be refused.
    pub(super) fn sweep_for(&mut self, destination: SocketAddr) {
        // What only has the same port is looked at for nothing: that takes no longer than to ask for whom it is.
        self.sweep_places(|held| held.port == destination.port());
    }

    /// Looks who has gone of those that use a port, but for that one; returns whether there were any.
    fn sweep_port(&mut self, port: u16, but: Cookie) -> bool {
        let places = self.sweep_places(|held| held.port == port && held.cookie != but);
        self.sweep_directs(|direct| direct.names.0.port() == port) || places
    }

    /// Closes those that nobody has any more; returns whether there were any.
    fn sweep_places(&mut self, of: impl Fn(&Held) -> bool) -> bool {
        let gone = |held: &Held| of(held) && !self.listeners.is_there(held);
        let gone: Vec<Id> = self.listeners.held.iter().filter(|(_, h)| gone(h)).map(|(id, _)| *id).collect();
        for &id in &gone {
            self.close_listener(id);
        }
        !gone.is_empty()
    }

    /// Lets the bound socket of a guest go, if it has one: it is dissolved, or connects.
    pub(super) fn let_go(&mut self, cookie: Cookie) {
        if let Some(&id) = self.current.get(&cookie)
            && self.listeners.held.contains_key(&id)
        {
            self.close_listener(id);
        }
    }

    fn close_listener(&mut self, id: Id) {
        let Some(held) = self.listeners.held.remove(&id) else { return };
        self.kernel.close(held.stack);
        self.current.remove(&held.cookie);
        self.sockets.lock().let_go(held.cookie);
        self.shared.arrivals.forget(held.cookie);
        let of_it = self.listeners.arrived.extract_if(|_, arrived| arrived.listener == id);
        for (_, arrived) in of_it.collect::<Vec<_>>() {
            self.kernel.abort(arrived.stack);
        }
    }
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}
