//! One datagram or netlink socket of a guest's: what its end P receives goes out by the socket of the
//! stack (or, where a rule says so, of the host), and what that receives goes into the queue of the
//! guest's end G. Nothing here touches G: a guest can hold its locks.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use netshunt_lkl::{Kernel, Message, MessageRoom, Name, Socket};
use netshunt_notify::{Notification, TargetAddr};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use tracing::debug;

use super::datagrams::{ErrorMessage, Outgoing, To};
use super::host::{Host, is_nothing};
use super::{LONGEST, Reply, Shared};
use crate::address::{Address, canonical, encode, for_family};
use crate::calls::errno;
use crate::ends::{End, Run};
use crate::options::{StackOption, datagram_from_host, datagram_on_host};
use crate::pending::Pending;
use crate::sockets::Cookie;
use crate::sys;

/// Datagrams moved in one direction before others get their turn.
const BATCH: usize = 64;
/// Room for a datagram's control messages.
pub(super) const CONTROL: usize = 1024;
/// What SIOCOUTQ says of an empty queue is less: the socket's own reference.
const EMPTY: i32 = 256;

/// How many datagrams P's queue holds (unix(7)), and some that are sent at the same moment.
static QUEUE: LazyLock<usize> = LazyLock::new(|| {
    let most = std::fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen");
    // Without /proc, what systemd(1) sets, which is the most that is common.
    most.ok().and_then(|most| most.trim().parse::<usize>().ok()).unwrap_or(512).saturating_add(16)
});

/// A datagram on its way to G.
struct Incoming {
    run: Run,
    data: Vec<u8>,
}

/// One socket.
pub(super) struct Datagram {
    pub(super) end: Arc<End>,
    pub(super) cookie: Cookie,
    pub(super) p: OwnedFd,
    /// The abstract name of G: connecting P to it again tells whether G is still there.
    pub(super) name: Vec<u8>,
    pub(super) stack: Socket,
    host: Option<Host>,
    /// For the host's socket, when it is made.
    options: Vec<StackOption>,
    /// The first port of the host's that it may have.
    first_port: u16,
    peer: Peer,
    /// Who sent the last datagram that came through the stack.
    caller: Option<SocketAddr>,
    /// The last address that is shown for another.
    alias: Option<(SocketAddr, SocketAddr)>,
    /// Came when G's queue had no place for it.
    held: Option<Incoming>,
    /// Calls that wait for room in the stack.
    sends: VecDeque<Stalled>,
    /// From P, oldest first, and still to be sent: for the same, or since an error was to be told.
    waiting: VecDeque<Vec<u8>>,
    /// The host's socket tells when there is room.
    host_full: bool,
    /// It may have a port that others have too (SO_REUSEADDR, SO_REUSEPORT).
    pub(super) shares: bool,
    pub(super) queued: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    Host,
    None,
    Stack,
}

/// A call under way, but for whom to answer.
pub(super) struct Sending {
    /// SO_SNDTIMEO of a call that waits.
    pub(super) limit: Option<Duration>,
    pub(super) messages: VecDeque<Outgoing>,
    pub(super) flags: i32,
    pub(super) many: bool,
    pub(super) sent: Vec<(TargetAddr, usize)>,
}

/// One that waits for room. A signal or its time-out may answer it meanwhile.
struct Stalled {
    pending: Pending,
    sending: Sending,
    /// When the time-out of the message at its front ends.
    until: Option<Instant>,
}

/// Whether G took a datagram.
enum Offered {
    Full,
    Gone,
    Taken,
}

impl Datagram {
    pub(super) fn new(
        end: Arc<End>,
        cookie: Cookie,
        p: OwnedFd,
        name: Vec<u8>,
        stack: Socket,
        first_port: u16,
    ) -> Self {
        // Netlink's peer is the kernel, without a word.
        let peer = if end.is_netlink() { Peer::Stack } else { Peer::None };
        Datagram {
            end,
            cookie,
            p,
            name,
            stack,
            host: None,
            options: Vec::new(),
            first_port,
            peer,
            caller: None,
            alias: None,
            held: None,
            sends: VecDeque::new(),
            waiting: VecDeque::new(),
            host_full: false,
            shares: false,
            queued: false,
        }
    }

    /// Sends what is in P's queue by now, and no more: a guest can fill it as fast as it is emptied.
    pub(super) fn flush(&mut self, kernel: &Kernel, scratch: &mut [u8]) {
        self.outgoing_up_to(self.waiting.len() + *QUEUE, kernel, scratch);
    }

    /// Sends what the guest has put into P's queue; whether there may be more.
    pub(super) fn outgoing(&mut self, kernel: &Kernel, scratch: &mut [u8]) -> bool {
        self.outgoing_up_to(BATCH, kernel, scratch)
    }

    fn outgoing_up_to(&mut self, most: usize, kernel: &Kernel, scratch: &mut [u8]) -> bool {
        for _ in 0..most {
            if let Some(data) = self.waiting.pop_front() {
                if !self.send_to_peer(kernel, &data) {
                    self.waiting.push_front(data);
                    return false;
                }
                continue;
            }
            // Also nothing at all is a datagram.
            let Ok(length) = sys::recv(self.p.as_fd(), scratch) else { return false };
            if !self.send_to_peer(kernel, &scratch[..length]) {
                self.waiting.push_front(scratch[..length].to_vec());
                return false;
            }
        }
        true
    }

    /// Whether that is done with: sent, refused or lost. Not so if there is no room.
    fn send_to_peer(&mut self, kernel: &Kernel, data: &[u8]) -> bool {
        for _ in 0..2 {
            let sent = match self.peer {
                Peer::Stack => kernel.send(self.stack, data).map(drop),
                Peer::Host => match &self.host {
                    Some(host) => host.send(None, data, &[]),
                    None => return true,
                },
                // send(2) would have said EDESTADDRREQ; nobody is there to be told.
                Peer::None => return true,
            };
            match sent {
                Ok(()) => return true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // It was about an earlier one: this one is still to be sent.
                Err(error) => self.signal(errno(&error)),
            }
        }
        true
    }

    /// Tells the guest of an error: an event (EPOLLERR), and the errno for whoever asks.
    ///
    /// An AF_UNIX datagram socket is told ECONNRESET when its peer leaves it with messages unread
    /// (unix_dgram_disconnected() in net/unix/af_unix.c): so P leaves G, gets a message from elsewhere, and
    /// comes back twice. What G has sent would be lost by that, and is taken first.
    fn signal(&mut self, errno: i32) {
        {
            let mut state = self.end.state();
            state.error = Some(errno);
            state.errors += 1;
        }
        let mut data = vec![0; LONGEST];
        for _ in self.waiting.len()..*QUEUE {
            let Ok(length) = sys::recv(self.p.as_fd(), &mut data) else { break };
            self.waiting.push_back(data[..length].to_vec());
        }
        let poison = || -> io::Result<()> {
            sys::disconnect(self.p.as_fd())?;
            // A queue that the guest has filled meanwhile is as good.
            let _ = sys::send_nothing(&sys::unix_name(self.p.as_fd())?);
            sys::connect_unix(self.p.as_fd(), &self.name)?;
            sys::disconnect(self.p.as_fd())?;
            sys::connect_unix(self.p.as_fd(), &self.name)
        };
        if let Err(error) = poison() {
            debug!(%error, "cannot tell a guest of an error");
            // G is gone. That message is nobody's.
            let _ = (0..*QUEUE).find(|_| sys::recv(self.p.as_fd(), &mut data).is_err());
        }
    }

    pub(super) fn look_for_errors(&mut self, kernel: &Kernel) {
        if kernel.readiness(self.stack) & libc::EPOLLERR as u32 != 0
            && let Ok(Some(errno)) = kernel.take_error(self.stack)
        {
            self.signal(errno);
        }
        if let Some(errno) = self.host.as_ref().and_then(Host::take_error) {
            self.signal(errno);
        }
    }

    pub(super) fn send(
        &mut self,
        kernel: &Kernel,
        epoll: &Epoll,
        shared: &Shared,
        notification: Notification,
        mut sending: Sending,
        waits: bool,
    ) {
        if let Err(error) = self.prepare_hosts(epoll, &sending) {
            return notification.fail(errno(&error));
        }
        match self.advance(kernel, &mut sending) {
            Err(libc::EAGAIN) if waits => {
                let until = sending.limit.map(|after| Instant::now() + after);
                self.sends.push_back(sending.stall(shared, notification, until));
            }
            result => sending.finish(shared, notification, result),
        }
    }

    /// Has the host's socket tell when there is room, as long as somebody waits for that.
    pub(super) fn mind_host(&mut self, epoll: &Epoll) {
        let Some(host) = &self.host else { return };
        let full = !self.waiting.is_empty() || !self.sends.is_empty();
        if std::mem::replace(&mut self.host_full, full) == full {
            return;
        }
        let mut flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        // Asking anew tells of room that there is by now.
        flags.set(EpollFlags::EPOLLOUT, full);
        if let Err(error) = epoll.modify(host, &mut EpollEvent::new(flags, self.end.id)) {
            debug!(%error, "cannot wait for the host to send");
        }
    }

    /// Makes the host's socket if one of the messages needs it.
    fn prepare_hosts(&mut self, epoll: &Epoll, sending: &Sending) -> io::Result<()> {
        for message in &sending.messages {
            if let To::Host(to) = message.to {
                self.host(epoll)?.hear(to);
            }
        }
        Ok(())
    }

    pub(super) fn send_waiting(&mut self, kernel: &Kernel, shared: &Shared) {
        while let Some(Stalled { pending, mut sending, until }) = self.sends.pop_front() {
            // From here on a signal or the time-out comes too late.
            let Some(notification) = pending.take().filter(Notification::is_valid) else { continue };
            let before = sending.sent.len();
            match self.advance(kernel, &mut sending) {
                Err(libc::EAGAIN) => {
                    // Each message is waited for anew (net/core/sock.c).
                    let until = match sending.sent.len() == before {
                        true => until,
                        false => sending.limit.map(|after| Instant::now() + after),
                    };
                    return self.sends.push_front(sending.stall(shared, notification, until));
                }
                result => sending.finish(shared, notification, result),
            }
        }
    }

    fn advance(&mut self, kernel: &Kernel, sending: &mut Sending) -> Result<(), i32> {
        while let Some(message) = sending.messages.front() {
            self.send_message(kernel, message, sending.flags).map_err(|e| errno(&e))?;
            sending.sent.push((message.length, message.data.len()));
            sending.messages.pop_front();
        }
        Ok(())
    }

    fn send_message(&mut self, kernel: &Kernel, message: &Outgoing, flags: i32) -> io::Result<()> {
        let Outgoing { to, data, control, .. } = message;
        let name;
        let to = match to {
            To::Host(to) => return self.send_on_host(Some(*to), data, control),
            To::Peer if self.peer == Peer::Host => return self.send_on_host(None, data, control),
            To::Name(name) => name.as_slice(),
            To::Peer => &[],
            To::Stack { shown, to } => {
                self.alias = (shown != to).then_some((*to, *shown)).or(self.alias);
                name = Name::from(for_family(*to, self.end.domain == libc::AF_INET6));
                name.bytes()
            }
        };
        let message = Message { data: &[IoSlice::new(data)], to, control };
        kernel.send_message(self.stack, &message, flags).map(drop)
    }

    fn send_on_host(&self, to: Option<SocketAddr>, data: &[u8], control: &[u8]) -> io::Result<()> {
        let Some(host) = &self.host else { return Err(io::Error::from_raw_os_error(libc::ENOTCONN)) };
        host.send(to, data, control)
    }

    /// As setsockopt(2): what the stack takes the host's socket has, too, if it means something there.
    pub(super) fn set_option(&mut self, kernel: &Kernel, option: StackOption) -> io::Result<()> {
        self.shares |= option.level == libc::SOL_SOCKET
            && matches!(option.name, libc::SO_REUSEADDR | libc::SO_REUSEPORT);
        kernel.set_option(self.stack, option.level, option.name, &option.value)?;
        if !datagram_on_host(option.level, option.name) {
            return Ok(());
        }
        if let Some(host) = &self.host {
            host.set(&option);
        }
        self.options.retain(|other| (other.level, other.name) != (option.level, option.name));
        self.options.push(option);
        Ok(())
    }

    /// As getsockopt(2).
    pub(super) fn option(
        &self,
        kernel: &Kernel,
        level: i32,
        name: i32,
        value: &mut [u8],
    ) -> io::Result<usize> {
        match &self.host {
            Some(host) if self.peer == Peer::Host && datagram_from_host(level, name) => {
                host.option(level, name, value)
            }
            _ => kernel.option(self.stack, level, name, value),
        }
    }

    /// Whether it is bound there by a rule, and not in the stack.
    pub(super) fn is_on_host(&self) -> bool {
        self.host.as_ref().is_some_and(Host::hears_everybody)
    }

    /// Binds the host's socket: a rule lets everybody reach the guest there.
    pub(super) fn bind_on_host(
        &mut self,
        kernel: &Kernel,
        epoll: &Epoll,
        local: SocketAddr,
    ) -> io::Result<()> {
        // A name has it by sending, too.
        let has_port = kernel.local_address(self.stack).is_ok_and(|name| name.port() != 0);
        if has_port || self.host.is_some() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut host = self.new_host()?;
        host.bind(local)?;
        host.hear_everybody();
        self.end.state().bound = host.local_name();
        self.watch_host(epoll, host).map(drop)
    }

    fn new_host(&self) -> io::Result<Host> {
        Host::new(self.end.domain == libc::AF_INET6, self.end.protocol, &self.options)
    }

    fn watch_host(&mut self, epoll: &Epoll, host: Host) -> io::Result<&mut Host> {
        epoll.add(&host, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, self.end.id))?;
        self.host_full = false;
        Ok(self.host.insert(host))
    }

    /// The host's socket, made when it is first needed. It has the port that the guest bound.
    fn host(&mut self, epoll: &Epoll) -> io::Result<&mut Host> {
        if self.host.is_none() {
            let host = self.new_host()?;
            if let Some(bound) = self.end.state().bound
                && bound.port() != 0
                && self.peer == Peer::None
            {
                // In the stack it may have any. The privilege to have it here is ours, not the guest's.
                if bound.port() < self.first_port {
                    return Err(io::Error::from_raw_os_error(libc::EACCES));
                }
                let any: SocketAddr = match self.end.domain == libc::AF_INET6 {
                    true => ([0u16; 8], bound.port()).into(),
                    false => ([0u8; 4], bound.port()).into(),
                };
                host.bind(any)?;
            }
            self.watch_host(epoll, host)?;
        }
        self.host.as_mut().ok_or_else(|| io::Error::from_raw_os_error(libc::ENOBUFS))
    }

    pub(super) fn connect(&mut self, kernel: &Kernel, epoll: &Epoll, to: To) -> io::Result<()> {
        let v6 = self.end.domain == libc::AF_INET6;
        let (shown, peer) = match to {
            To::Host(to) => {
                let host = self.host(epoll)?;
                host.hear(to);
                host.connect(to)?;
                (Some(to), Peer::Host)
            }
            To::Name(name) => {
                kernel.connect_name(self.stack, &name)?;
                (None, Peer::Stack)
            }
            To::Peer => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
            To::Stack { shown, to } => {
                self.choose_port(kernel, || kernel.connect(self.stack, for_family(to, v6)))?;
                self.alias = (shown != to).then_some((to, shown)).or(self.alias);
                (Some(shown), Peer::Stack)
            }
        };
        self.peer = peer;
        let bound = kernel.local_address(self.stack).ok().filter(|_| !self.is_on_host());
        let mut state = self.end.state();
        state.peer = shown;
        state.bound = bound.or(state.bound);
        Ok(())
    }

    /// Runs what has the stack choose a port, unless it is bound: to one that no other socket has.
    ///
    /// For a socket that may share, Linux may choose one that another has. dig(1) closes that other one before it sends
    /// anything, but we would learn that too late, and it would get the answer.
    pub(super) fn choose_port(
        &self,
        kernel: &Kernel,
        choose: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut allowed = Vec::new();
        if self.shares && kernel.local_address(self.stack).is_ok_and(|name| name.port() == 0) {
            for name in [libc::SO_REUSEADDR, libc::SO_REUSEPORT] {
                let mut value = [0; 4];
                kernel.option(self.stack, libc::SOL_SOCKET, name, &mut value)?;
                kernel.set_option(self.stack, libc::SOL_SOCKET, name, &[0; 4])?;
                allowed.push((name, value));
            }
        }
        let chosen = choose();
        for (name, value) in allowed {
            kernel.set_option(self.stack, libc::SOL_SOCKET, name, &value)?;
        }
        chosen
    }

    pub(super) fn disconnect(&mut self, kernel: &Kernel) -> io::Result<()> {
        if self.peer == Peer::Host {
            match self.host.take() {
                Some(host) if host.hears_everybody() => {
                    host.disconnect()?;
                    self.host = Some(host);
                }
                _ => {}
            }
        }
        self.peer = Peer::None;
        self.end.state().peer = None;
        kernel.connect_name(self.stack, &[0; 16])
    }

    pub(super) fn local_name(&self, kernel: &Kernel) -> io::Result<Vec<u8>> {
        if let Some(host) = &self.host
            && (self.peer == Peer::Host || host.hears_everybody())
            && let Some(name) = host.local_name()
        {
            return Ok(encode(name, self.end.domain == libc::AF_INET6));
        }
        Ok(kernel.local_name(self.stack)?.bytes().to_vec())
    }

    /// Gives G what has come, as far as it has room; whether there may be more. `None`: G is gone.
    pub(super) fn incoming(&mut self, kernel: &Kernel, epoll: &Epoll, scratch: &mut [u8]) -> Option<bool> {
        let was_held = self.held.is_some();
        if let Some(incoming) = self.held.take() {
            match self.offer(&incoming.run, &incoming.data) {
                Offered::Full => {
                    self.held = Some(incoming);
                    return Some(false);
                }
                Offered::Gone => return None,
                Offered::Taken => {}
            }
        }
        for _ in 0..BATCH {
            let Some((run, length)) = self.receive(kernel, scratch) else {
                if was_held {
                    self.listen_for_room(epoll, false);
                }
                return Some(false);
            };
            match self.offer(&run, &scratch[..length]) {
                Offered::Full => {
                    self.held = Some(Incoming { run, data: scratch[..length].to_vec() });
                    if !was_held {
                        self.listen_for_room(epoll, true);
                    }
                    return Some(false);
                }
                Offered::Gone => return None,
                Offered::Taken => {}
            }
        }
        if was_held {
            self.listen_for_room(epoll, false);
        }
        Some(true)
    }

    /// Whether to be woken whenever G's queue gets shorter.
    fn listen_for_room(&self, epoll: &Epoll, wanted: bool) {
        let mut flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        flags.set(EpollFlags::EPOLLOUT, wanted);
        if let Err(error) = epoll.modify(&self.p, &mut EpollEvent::new(flags, self.end.id)) {
            debug!(%error, "cannot wait for a guest to receive");
        }
    }

    /// The next datagram of the stack's socket or the host's.
    fn receive(&mut self, kernel: &Kernel, scratch: &mut [u8]) -> Option<(Run, usize)> {
        let (mut from, mut control) = ([0; 128], [0; CONTROL]);
        let data = &mut [IoSliceMut::new(scratch)];
        let mut room = MessageRoom { data, from: &mut from, control: &mut control };
        match kernel.receive_message(self.stack, &mut room, 0) {
            Ok(got) => {
                let from = self.shown(&from[..got.from.min(from.len())]);
                if let Some(Address::Inet(caller)) = Address::parse(&from)
                    && self.caller != Some(caller)
                {
                    self.caller = Some(caller);
                    self.end.state().is_called(canonical(caller));
                }
                return Some((Run { from, control: control[..got.control].to_vec() }, got.data));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.signal(errno(&error)),
        }
        loop {
            let host = self.host.as_ref()?;
            match host.receive(scratch) {
                Ok((run, from, length)) => {
                    if host.hears_everybody() {
                        self.end.state().hear(from);
                    }
                    return Some((run, length));
                }
                Err(error) if is_nothing(&error) => return None,
                Err(error) => self.signal(errno(&error)),
            }
        }
    }

    /// An address as the guest knows it.
    fn shown(&self, name: &[u8]) -> Vec<u8> {
        if let Some((real, shown)) = self.alias
            && let Some(Address::Inet(from)) = Address::parse(name)
            && canonical(from) == real
        {
            return encode(shown, self.end.domain == libc::AF_INET6);
        }
        name.to_vec()
    }

    /// Puts a datagram into G's queue if it belongs to what is there.
    fn offer(&self, run: &Run, data: &[u8]) -> Offered {
        // Whoever receives at this moment says when it has.
        let Some(mut current) = self.end.try_run() else { return Offered::Full };
        if *current != *run {
            match sys::unread(self.p.as_fd()) {
                Ok(..EMPTY) => current.clone_from(run),
                _ => return Offered::Full,
            }
        }
        match sys::send(self.p.as_fd(), data) {
            Ok(_) => Offered::Taken,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Offered::Full,
            Err(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) => Offered::Gone,
            Err(error) => {
                debug!(%error, "a datagram is lost");
                Offered::Taken
            }
        }
    }

    /// What the error queue has (ip(7), IP_RECVERR).
    pub(super) fn errors(&self, kernel: &Kernel, flags: i32, room: usize) -> io::Result<ErrorMessage> {
        let (mut from, mut control, mut data) = ([0; 128], [0; CONTROL], vec![0; room]);
        let pieces = &mut [IoSliceMut::new(&mut data)];
        let mut room = MessageRoom { data: pieces, from: &mut from, control: &mut control };
        let got = match (kernel.receive_message(self.stack, &mut room, flags), &self.host) {
            (Err(error), Some(host)) if is_nothing(&error) => {
                let (run, length, flags) = host.errors(&mut data, flags)?;
                data.truncate(length);
                return Ok(ErrorMessage { run, data, flags, last: self.no_more_errors(kernel) });
            }
            (got, _) => got?,
        };
        data.truncate(got.data);
        let run =
            Run { from: from[..got.from.min(from.len())].to_vec(), control: control[..got.control].to_vec() };
        Ok(ErrorMessage { run, data, flags: got.flags, last: self.no_more_errors(kernel) })
    }

    fn no_more_errors(&self, kernel: &Kernel) -> Option<u64> {
        let more = kernel.readiness(self.stack) & libc::EPOLLERR as u32 != 0
            || self.host.as_ref().is_some_and(Host::has_errors);
        (!more).then(|| self.end.state().errors)
    }
}

impl Sending {
    /// It waits from now on, and is watched over.
    fn stall(self, shared: &Shared, notification: Notification, until: Option<Instant>) -> Stalled {
        let pending = Pending::new(notification);
        shared.reply(Reply::Stalled { pending: pending.clone(), until, sent: self.sent.clone() });
        Stalled { pending, sending: self, until }
    }

    /// Answers: messages that were sent count, whatever came then.
    fn finish(self, shared: &Shared, notification: Notification, result: Result<(), i32>) {
        let Sending { many, sent, .. } = self;
        match result {
            Err(errno) if sent.is_empty() => notification.fail(errno),
            _ if many => {
                let value = sent.len() as i64;
                let length = |(at, length): (TargetAddr, usize)| (at, (length as u32).to_ne_bytes().to_vec());
                let pieces = Ok(sent.into_iter().map(length).collect());
                shared.reply(Reply::Write { notification, pieces, value });
            }
            _ => notification.succeed(sent.first().map_or(0, |&(_, length)| length as i64)),
        }
    }
}
