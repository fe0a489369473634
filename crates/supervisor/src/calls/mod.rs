//! What a guest's system calls become. Every notified call is answered here, by whoever handles
//! it; what nobody handles is refused and logged.

mod accept;
mod arguments;
mod connect;
mod ends;
mod inet;
mod ioctl;
mod listen;
mod names;
mod options;
mod receive;
mod refuse;
mod send;
mod unix;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use netshunt_backend::Backend;
use netshunt_notify::{Duplicate, Fault, Features, GuestThread, Handler, Notification, TargetAddr};
use netshunt_policy::Policy;
use tracing::trace;

use crate::FlowSink;
use crate::ends::{End, Ends};
use crate::heirlooms::Heirlooms;
use crate::inet_diag::Diag;
use crate::park::Lot;
use crate::points::NOTIFICATION;
use crate::routes::Routes;
use crate::sockets::{Cookie, Sockets};
use crate::stack::{Reply, Stack};
use crate::sys;
use crate::waits::Waits;

/// Everything the handlers share.
#[derive(Debug)]
pub(crate) struct Calls {
    pub(crate) features: Features,
    pub(crate) policy: RwLock<Policy>,
    pub(crate) routes: Routes,
    pub(crate) sends: Arc<Sends>,
    pub(crate) unix: Arc<Gate>,
    pub(crate) sockets: Arc<Sockets>,
    pub(crate) ends: Arc<Ends>,
    pub(crate) resolver: Option<Resolver>,
    pub(crate) accepts: Accepts,
    pub(crate) heirlooms: Heirlooms,
    pub(crate) stack: Stack,
    pub(crate) shunt: Option<Arc<dyn Backend>>,
    pub(crate) flows: Option<Arc<dyn FlowSink>>,
    pub(crate) waits: Arc<Waits>,
    /// The first port of the host's that guests may bind.
    pub(crate) first_port: u16,
    pub(crate) runtime: tokio::runtime::Handle,
    /// The stack's own addresses, and where the link itself answers: the host's routes say nothing about them.
    pub(crate) near: Vec<ipnet::IpNet>,
    /// Our own network namespace: its cookie (SO_NETNS_COOKIE) and its inode in /proc.
    pub(crate) namespace: u64,
    pub(crate) namespace_inode: u64,
    /// Of sockets that guests named lately.
    pub(crate) kinds: Mutex<HashMap<Cookie, Kind>>,
    pub(crate) lot: Mutex<Lot>,
    /// For whoever asks about a parked socket, if the kernel can tell.
    pub(crate) diag: OnceLock<Option<Mutex<Diag>>>,
    pub(crate) counts: Mutex<BTreeMap<&'static str, u64>>,
    pub(crate) reported: Mutex<HashSet<String>>,
    /// Calls that wait on threads of their own.
    pub(crate) waiting: Arc<AtomicUsize>,
}

pub(crate) use accept::Accepts;
#[cfg(test)]
pub(crate) use arguments::Arguments;
pub(crate) use ends::Resolver;
pub(crate) use ioctl::Asked;
pub(crate) use receive::{Call as ReceiveCall, Receive};
pub(crate) use send::Sends;
pub(crate) use unix::Gate;

/// The socket that a call is about: a duplicate of the guest's descriptor.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) fd: Duplicate,
    pub(crate) thread: GuestThread,
    pub(crate) cookie: Cookie,
    pub(crate) kind: Kind,
    /// Of [`Kind::End`].
    pub(crate) end: Option<Arc<End>>,
}

/// How many [`Calls::kinds`] are remembered: nothing is told when a socket is closed.
const KINDS: usize = 1024;

/// What netshunt has to do with a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A datagram or netlink socket of ours: one of a pair of AF_UNIX ones.
    End,
    /// Of another network namespace, which the guest made: its own affair.
    Foreign,
    /// Not mediated.
    Other,
    /// A TCP socket of ours.
    Tcp {
        v6: bool,
    },
    Unix,
}

impl Subject {
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The families whose sockets stay within their network namespace.
pub(crate) fn has_namespace(domain: i32) -> bool {
    matches!(domain, libc::AF_INET | libc::AF_INET6 | libc::AF_NETLINK | libc::AF_PACKET)
}

/// The errno of a failed call of our own.
pub(crate) fn errno(error: &std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// What a guest is told when something of its own could not be looked at: `otherwise`, unless it is we who are short of
/// something. A program that hears EBADF of a descriptor of its own takes it for closed.
fn or_shortage(error: &std::io::Error, otherwise: i32) -> i32 {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => libc::ENOBUFS,
        _ => otherwise,
    }
}

impl Calls {
    /// Takes the socket named by the call's first argument.
    pub(crate) fn subject(&self, notification: &Notification) -> Result<Subject, i32> {
        let taken = notification.descriptor(notification.fd_arg(0));
        let (thread, fd) = taken.map_err(|error| or_shortage(&error, libc::EBADF))?;
        let (cookie, kind) = self.identify(fd.as_fd()).map_err(|e| errno(&e))?;
        if kind == Kind::Unix
            && !self.ends.is_empty()
            && let Some(end) = self.ends.find(cookie)
        {
            return Ok(Subject { fd, thread, cookie, kind: Kind::End, end: Some(end) });
        }
        Ok(Subject { fd, thread, cookie, kind, end: None })
    }

    /// What a socket is does not change: the kernel is asked once for each.
    fn identify(&self, fd: BorrowedFd<'_>) -> std::io::Result<(Cookie, Kind)> {
        let cookie = Cookie(sys::cookie(fd, libc::SO_COOKIE)?);
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kind) = kinds.get(&cookie) {
            return Ok((cookie, *kind));
        }
        let kind = self.kind(fd)?;
        if kinds.len() >= KINDS {
            kinds.clear();
        }
        kinds.insert(cookie, kind);
        Ok((cookie, kind))
    }

    fn kind(&self, fd: BorrowedFd<'_>) -> std::io::Result<Kind> {
        let domain = sys::int_option(fd, libc::SOL_SOCKET, libc::SO_DOMAIN)?;
        if domain == libc::AF_UNIX {
            return Ok(Kind::Unix);
        }
        // Other families may know no network namespaces, and lead out from every one.
        if !has_namespace(domain) {
            return Ok(Kind::Other);
        }
        // By the socket, never by the caller: a child may carry one into a namespace of its own.
        if sys::cookie(fd, libc::SO_NETNS_COOKIE)? != self.namespace {
            return Ok(Kind::Foreign);
        }
        let v6 = match domain {
            libc::AF_INET => false,
            libc::AF_INET6 => true,
            _ => return Ok(Kind::Other),
        };
        let protocol = sys::int_option(fd, libc::SOL_SOCKET, libc::SO_PROTOCOL)?;
        Ok(if protocol == libc::IPPROTO_TCP { Kind::Tcp { v6 } } else { Kind::Other })
    }

    fn count(&self, call: &'static str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(call).or_default() += 1;
    }

    fn dispatch(&self, notification: Notification) {
        match notification.call() {
            libc::SYS_accept | libc::SYS_accept4 => self.accept(notification),
            libc::SYS_bind => self.bind(notification),
            libc::SYS_connect => self.connect(notification),
            libc::SYS_getpeername => self.peer_name(notification),
            libc::SYS_getsockname => self.local_name(notification),
            libc::SYS_getsockopt => self.get_option(notification),
            libc::SYS_ioctl => self.ioctl(notification),
            libc::SYS_listen => self.listen(notification),
            libc::SYS_recvfrom | libc::SYS_recvmmsg | libc::SYS_recvmsg => self.receive(notification),
            libc::SYS_sendmmsg | libc::SYS_sendmsg | libc::SYS_sendto => self.send(notification),
            libc::SYS_setsockopt => self.set_option(notification),
            libc::SYS_socket | libc::SYS_socketpair if notification.int_arg(0) == libc::AF_UNIX => {
                self.make_datagram(notification);
            }
            _ => self.refuse(notification),
        }
    }
}

/// Runs a call on a guest's socket. Its lock is the guest's to hold: by a send from a page that never comes
/// (tcp_sendmsg() in net/ipv4/tcp.c copies with the socket locked), or a receive into one.
fn guarded<T>(notification: &Notification, call: impl FnOnce() -> std::io::Result<T>) -> Result<T, i32> {
    match notification.guard(call) {
        Ok(result) => result.map_err(|e| errno(&e)),
        Err(_) => Err(libc::EFAULT),
    }
}

/// Writes the answer of a call to where the guest wants it.
fn write_all(notification: Notification, pieces: Result<Vec<(TargetAddr, Vec<u8>)>, i32>, value: i64) {
    let write = |(at, bytes): (TargetAddr, Vec<u8>)| notification.write(at, &bytes).map_err(Fault::errno);
    match pieces.and_then(|pieces| pieces.into_iter().try_for_each(write)) {
        Ok(()) => notification.succeed(value),
        Err(errno) => notification.fail(errno),
    }
}

impl Handler for Calls {
    fn handle(&self, notification: Notification) {
        trace!(call = notification.call_name(), "{NOTIFICATION}");
        self.count(notification.call_name());
        self.dispatch(notification);
    }

    fn woken(&self) {
        self.sends.woken();
        self.send_again();
        while let Some(reply) = self.stack.next_reply() {
            match reply {
                Reply::Errors { notification, receive, got } => receive.reply(notification, got),
                Reply::Accept { listener } => self.accept_waiting(listener),
                Reply::Arrived(end) => self.arrived(&end),
                Reply::Inject { notification, guest, cloexec } => {
                    // A failure is the guest's to see; its end is then missed by the next sweep.
                    let _ = notification.inject(guest.as_fd(), cloexec);
                }
                Reply::Name { notification, name } => ends::reply_name(notification, name),
                Reply::Write { notification, pieces, value } => write_all(notification, pieces, value),
                Reply::LocalName { question, result } => names::reply(question, result),
                Reply::Read { question, result } => options::reply(question, result),
                Reply::Stalled { pending, until, sent } => self.send_stalled(pending, until, sent),
            }
        }
    }
}
