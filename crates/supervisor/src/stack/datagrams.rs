//! Guests' datagram and netlink sockets on the stack's thread: made, asked and closed here; `pump.rs` moves
//! what they carry.
//!
//! P's queue holds what a guest sends natively, to the socket's peer. What has an address comes as
//! [`Ask::Send`], judged.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use netshunt_notify::{Notification, TargetAddr};
use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::pump::{Datagram, Sending};
use super::thread::{Id, Machine};
use super::{Question, Reply};
use crate::calls::{Receive, ReceiveCall as Call, errno};
use crate::ends::{End, Run};
use crate::options::StackOption;
use crate::pending::answer;
use crate::sockets::Cookie;
use crate::sys;

/// No datagram is longer: UDP's have 64 KiB, and those of netlink are made for a buffer of 32.
pub(crate) const LONGEST: usize = 128 << 10;

/// A socket to be made (socket(2)).
#[derive(Debug)]
pub(crate) struct Make {
    pub(crate) notification: Notification,
    pub(crate) domain: i32,
    pub(crate) kind: i32,
    pub(crate) protocol: i32,
    pub(crate) nonblocking: bool,
    pub(crate) cloexec: bool,
}

/// Something about a socket that is there.
#[derive(Debug)]
pub(crate) struct Asking {
    pub(crate) notification: Notification,
    pub(crate) end: Arc<End>,
    pub(crate) ask: Ask,
}

#[derive(Debug)]
pub(crate) enum Ask {
    /// To a `struct sockaddr_*`.
    Bind(Vec<u8>),
    /// A rule lets it be reached there.
    BindOnHost(SocketAddr),
    /// Judged.
    Connect(To),
    /// connect(2) with AF_UNSPEC.
    Disconnect,
    /// recvmsg(2) with MSG_ERRQUEUE: the answer is made of what the stack's socket has.
    Errors {
        flags: i32,
        receive: Call,
    },
    LocalName,
    Option {
        level: i32,
        name: i32,
        size: usize,
    },
    PeerName,
    Send {
        messages: VecDeque<Outgoing>,
        flags: i32,
        many: bool,
        waits: bool,
        /// SO_SNDTIMEO, of a call that waits.
        limit: Option<Duration>,
    },
    SetOption(StackOption),
}

/// A message of the error queue, for whoever may write into the guest.
#[derive(Debug)]
pub(crate) struct ErrorMessage {
    pub(crate) run: Run,
    pub(crate) data: Vec<u8>,
    /// `msg_flags`.
    pub(crate) flags: i32,
    /// If it was the last: how many errors the guest's end had been told of.
    pub(crate) last: Option<u64>,
}

/// Where a datagram goes.
#[derive(Clone, Debug)]
pub(crate) enum To {
    /// Straight from the host.
    Host(SocketAddr),
    /// Through the stack: a `struct sockaddr_*`.
    Name(Vec<u8>),
    /// Where connect(2) said.
    Peer,
    /// Through the stack; what comes back shows the first address in the place of the second.
    Stack { shown: SocketAddr, to: SocketAddr },
}

#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) to: To,
    pub(crate) data: Vec<u8>,
    pub(crate) control: Vec<u8>,
    /// Where its `msg_len` stands (sendmmsg(2)).
    pub(crate) length: TargetAddr,
}

impl Machine {
    pub(super) fn make(&mut self, make: Make) {
        let Make { notification, domain, kind, protocol, nonblocking, cloexec } = make;
        if self.datagrams.len() >= 2 * self.swept + 64 {
            self.sweep();
        }
        self.datagram_room.resize(LONGEST, 0);
        let id = self.next;
        self.next += 1;
        match self.pair(id, domain, kind, protocol, nonblocking) {
            Ok(guest) => {
                self.sweep_soon();
                self.shared.reply(Reply::Inject { notification, guest, cloexec });
            }
            Err(error) => notification.fail(errno(&error)),
        }
    }

    /// G of a new pair.
    fn pair(
        &mut self,
        id: Id,
        domain: i32,
        kind: i32,
        protocol: i32,
        nonblocking: bool,
    ) -> io::Result<OwnedFd> {
        let (guest, p) = sys::datagram_pair(nonblocking)?;
        let cookie = sys::cookie(guest.as_fd(), libc::SO_COOKIE).map(Cookie)?;
        let name = sys::unix_name(guest.as_fd())?;
        self.epoll.add(&p, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, id))?;
        let stack = self.kernel.user_socket(domain, kind, protocol, id)?;
        // As it was asked for, or 17 for 0.
        let mut known = [0; 4];
        self.kernel.option(stack, libc::SOL_SOCKET, libc::SO_PROTOCOL, &mut known)?;
        let end = Arc::new(End::new(id, domain, i32::from_ne_bytes(known)));
        self.ends.insert(cookie, end.clone());
        let datagram = Datagram::new(end, cookie, p, name, stack, self.first_port);
        self.datagrams.insert(id, datagram);
        Ok(guest)
    }

    /// Forgets the sockets that no guest has any more, once all is out that they sent.
    pub(super) fn sweep(&mut self) {
        let ids: Vec<Id> = self.datagrams.keys().copied().collect();
        for id in ids {
            self.close_if_gone(id);
        }
        self.swept = self.datagrams.len();
    }

    fn close_if_gone(&mut self, id: Id) {
        let Some(datagram) = self.datagrams.get_mut(&id) else { return };
        // One that a time-out or a signal has ended holds a duplicate.
        datagram.end.receives().retain(Receive::is_open);
        if sys::connect_unix(datagram.p.as_fd(), &datagram.name).is_err() {
            datagram.flush(&self.kernel, &mut self.datagram_room);
            self.close_datagram(id);
        }
    }

    /// Sends what guests have sent and nobody has looked at yet.
    pub(super) fn flush_datagrams(&mut self) {
        for datagram in self.datagrams.values_mut() {
            datagram.flush(&self.kernel, &mut self.datagram_room);
        }
    }

    fn close_datagram(&mut self, id: Id) {
        let Some(datagram) = self.datagrams.remove(&id) else { return };
        self.ends.remove(datagram.cookie);
        self.kernel.close(datagram.stack);
    }

    /// Puts a socket in the line, once.
    pub(super) fn enqueue_datagram(&mut self, id: Id) {
        let Some(datagram) = self.datagrams.get_mut(&id) else { return };
        if !std::mem::replace(&mut datagram.queued, true) {
            self.runnable.push_back(id);
        }
    }

    pub(super) fn turn_datagram(&mut self, id: Id) {
        let Some(datagram) = self.datagrams.get_mut(&id) else { return };
        datagram.queued = false;
        datagram.look_for_errors(&self.kernel);
        let more = datagram.outgoing(&self.kernel, &mut self.datagram_room);
        datagram.send_waiting(&self.kernel, &self.shared);
        datagram.mind_host(&self.epoll);
        match datagram.incoming(&self.kernel, &self.epoll, &mut self.datagram_room) {
            None => return self.close_datagram(id),
            Some(incoming) if more || incoming => self.enqueue_datagram(id),
            Some(_) => {}
        }
        let Some(datagram) = self.datagrams.get(&id) else { return };
        if !datagram.end.receives().is_empty() {
            self.shared.reply(Reply::Arrived(datagram.end.clone()));
        }
    }

    pub(super) fn ask_datagram(&mut self, asking: Asking) {
        let Asking { notification, end, ask } = asking;
        let Some(datagram) = self.datagrams.get_mut(&end.id) else { return notification.fail(libc::EBADF) };
        let result = match ask {
            Ask::Bind(_) if datagram.is_on_host() => Err(io::Error::from_raw_os_error(libc::EINVAL)),
            Ask::Bind(name) => self.bind_datagram(&end, &name),
            Ask::BindOnHost(local) => datagram.bind_on_host(&self.kernel, &self.epoll, local),
            Ask::Connect(to) => {
                datagram.flush(&self.kernel, &mut self.datagram_room);
                datagram.connect(&self.kernel, &self.epoll, to)
            }
            Ask::Disconnect => datagram.disconnect(&self.kernel),
            Ask::Errors { flags, receive } => {
                let got = datagram.errors(&self.kernel, flags, receive.room()).map_err(|e| errno(&e));
                return self.shared.reply(Reply::Errors { notification, receive, got });
            }
            Ask::LocalName => {
                let name = datagram.local_name(&self.kernel).map_err(|e| errno(&e));
                return self.shared.reply(Reply::Name { notification, name });
            }
            Ask::PeerName => {
                let name = self.kernel.peer_name(datagram.stack).map(|name| name.bytes().to_vec());
                return self.shared.reply(Reply::Name { notification, name: name.map_err(|e| errno(&e)) });
            }
            Ask::Option { level, name, size } => {
                let mut value = vec![0; size];
                let result = datagram.option(&self.kernel, level, name, &mut value).map(|length| {
                    value.truncate(length);
                    value
                });
                let question = Question { notification, v6: false };
                return self.shared.reply(Reply::Read { question, result: result.map_err(|e| errno(&e)) });
            }
            Ask::Send { messages, flags, many, waits, limit } => {
                // What was sent before goes before.
                datagram.flush(&self.kernel, &mut self.datagram_room);
                let sending = Sending { limit, messages, flags, many, sent: Vec::new() };
                datagram.send(&self.kernel, &self.epoll, &self.shared, notification, sending, waits);
                return datagram.mind_host(&self.epoll);
            }
            Ask::SetOption(option) => datagram.set_option(&self.kernel, option),
        };
        answer(notification, result.map_err(|e| errno(&e)));
    }

    fn bind_datagram(&mut self, end: &Arc<End>, name: &[u8]) -> io::Result<()> {
        // Where the port is, of either family.
        let any_port = matches!(name, [_, _, 0, 0, ..]);
        let bind = |machine: &Self| match machine.datagrams.get(&end.id) {
            Some(datagram) if any_port => datagram
                .choose_port(&machine.kernel, || machine.kernel.bind_name(datagram.stack, name))
                .map(|()| datagram.stack),
            Some(datagram) => machine.kernel.bind_name(datagram.stack, name).map(|()| datagram.stack),
            None => Err(io::Error::from_raw_os_error(libc::EBADF)),
        };
        let stack = match bind(self) {
            // Its port may still be held for a socket that was closed a moment ago.
            Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => {
                self.sweep();
                bind(self)?
            }
            result => result?,
        };
        end.state().bound = self.kernel.local_address(stack).ok();
        self.take_over_port(end);
        Ok(())
    }

    /// A socket that may share its port must not share it with one that its guest has closed, which would get some
    /// of the datagrams.
    fn take_over_port(&mut self, end: &End) {
        if !self.datagrams.get(&end.id).is_some_and(|datagram| datagram.shares) {
            return;
        }
        let Some(port) = end.state().bound.map(|bound| bound.port()) else { return };
        let has_it = |other: &&Datagram| other.end.id != end.id && other.end.has_port(end.protocol, port);
        let sharing: Vec<Id> =
            self.datagrams.values().filter(has_it).map(|datagram| datagram.end.id).collect();
        for id in sharing {
            self.close_if_gone(id);
        }
    }
}
