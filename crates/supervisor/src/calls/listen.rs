//! bind(2) and listen(2) of TCP sockets: in the stack, or on the host where an `in:` rule says so.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::PoisonError;
use std::time::Instant;

use netshunt_notify::Notification;
use netshunt_policy::{Destination, Direction, Proto, Verdict};

use super::connect::set_deferred;
use super::{Calls, Subject, guarded};
use crate::address::{canonical, for_family, of_family};
use crate::flows::{Asked, Open};
use crate::park;
use crate::pending::answer;
use crate::places;
use crate::sockets::{Cookie, Entry, State};
use crate::stack::{Bind, Command};
use crate::sys;

impl Calls {
    /// Only where it may listen is known now, not whether it will: a bound socket may connect.
    pub(super) fn bind_tcp(&self, notification: Notification, subject: Subject, address: &[u8], v6: bool) {
        let local = match of_family(address, v6) {
            Ok(local) => canonical(local),
            // Old programs bind so to any address (inet_bind_sk()).
            Err(libc::EAFNOSUPPORT) if !v6 && address[..2] == [0, 0] && address[4..8] == [0; 4] => {
                let port = u16::from_be_bytes([address[2], address[3]]);
                SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)
            }
            Err(errno) => return notification.fail(errno),
        };
        let cookie = match self.unbound(&subject) {
            Ok(cookie) => cookie,
            Err(errno) => return notification.fail(errno),
        };
        if self.inbound(local, Proto::Tcp).0 == Verdict::Bypass {
            let bound = guarded(&notification, || self.bind_on_host(&subject, cookie, local, v6));
            return answer(notification, bound);
        }
        // The stack's thread must not wait for the lock of a connected socket, which the guest can hold.
        match guarded(&notification, || sys::peer_name(subject.fd())) {
            Ok(_) => return notification.fail(libc::EINVAL),
            Err(libc::ENOTCONN) => {}
            Err(errno) => return notification.fail(errno),
        }
        let Subject { fd: guest, .. } = subject;
        // A server that was killed in accept(2) must not keep its port.
        self.waits.sweep();
        self.stack.ask(Command::Bind(Box::new(Bind { notification, cookie, guest, v6, local })));
    }

    /// Whether the guest itself might bind that port of the host, we being the one that does:
    /// CAP_NET_BIND_SERVICE was taken from it, not from us. A rule that lets it be reached there does.
    pub(super) fn may_bind(&self, local: SocketAddr) -> Result<(), i32> {
        let free = local.port() == 0 || local.port() >= self.first_port;
        if free || self.inbound(local, Proto::Tcp).0 == Verdict::Bypass { Ok(()) } else { Err(libc::EACCES) }
    }

    /// The socket's cookie, if it can be bound as far as we know.
    fn unbound(&self, subject: &Subject) -> Result<Cookie, i32> {
        let cookie = subject.cookie;
        let sockets = self.sockets.lock();
        let Some(entry) = sockets.find(cookie) else { return Ok(cookie) };
        let free = entry.bound.is_none() && matches!(entry.state, State::Idle | State::Failed { .. });
        free.then_some(cookie).ok_or(libc::EINVAL)
    }

    /// What it has of the options that so far were only remembered goes with it.
    fn bind_on_host(&self, subject: &Subject, cookie: Cookie, local: SocketAddr, v6: bool) -> io::Result<()> {
        // Before its options are touched: by one of them it is known.
        if park::is_at_one(subject.fd())? {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let (v6only, options) = match self.sockets.lock().find(cookie) {
            Some(entry) => (entry.v6only, entry.options.clone()),
            None => (None, Vec::new()),
        };
        if let Some(on) = v6only {
            let on = i32::from(on).to_ne_bytes();
            let _ = sys::set_option(subject.fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &on);
        }
        set_deferred(subject, &options, Some(local))?;
        sys::bind(subject.fd(), for_family(local, v6))?;
        // From now on the host's own socket has it all.
        self.sockets.lock().forget(cookie);
        Ok(())
    }

    /// The verdict on being reached at that address of one's own.
    pub(super) fn inbound(&self, local: SocketAddr, proto: Proto) -> (Verdict, Option<String>) {
        let policy = self.policy.read().unwrap_or_else(PoisonError::into_inner);
        let of = Destination { address: local, proto, direction: Direction::In };
        let decision = policy.judge(&of);
        (decision.verdict, decision.rule.map(ToString::to_string))
    }

    pub(super) fn listen_tcp(&self, notification: Notification, subject: Subject, v6: bool) {
        let since = Instant::now();
        let look = || Ok((sys::local_name(subject.fd())?, park::is_at_one(subject.fd())?));
        let host = match guarded(&notification, look) {
            Ok((_, true)) => return notification.fail(libc::EINVAL),
            Ok((name, false)) => name.map(canonical).filter(|name| name.port() != 0),
            Err(errno) => return notification.fail(errno),
        };
        let cookie = subject.cookie;
        let (bound, held, state) = {
            let sockets = self.sockets.lock();
            let known = |entry: &Entry| (entry.bound, entry.is_on_stack(), entry.state);
            sockets.find(cookie).map_or((None, false, State::Idle), known)
        };
        // One whose attempt has failed is still about to connect, until connect(2) has said so.
        if !matches!(state, State::Idle | State::Listening) {
            return notification.fail(libc::EINVAL);
        }
        let any =
            SocketAddr::new(if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }, 0);
        // What is bound on the host, which only a rule does, listens there or not at all.
        let on_host = host.filter(|_| !held);
        let local = on_host.or(bound).unwrap_or(any);
        let (verdict, rule) = self.inbound(local, Proto::Tcp);
        let (pid, comm) = (subject.thread.process().unwrap_or(notification.tid().0), subject.thread.comm());
        let asked = Asked { pid, comm, proto: "tcp", destination: local, since };
        let backlog = notification.int_arg(1);
        let flow = |verdict| Open::new(asked, verdict, rule, self.flows.clone()).inbound(None);
        match verdict {
            Verdict::Bypass if !held => {
                let unbound = on_host.is_none().then_some((cookie, v6));
                let result = guarded(&notification, || self.listen_on_host(&subject, backlog, unbound));
                flow(verdict).close(result);
                answer(notification, result);
            }
            Verdict::Stack if on_host.is_none() => {
                let Subject { fd: guest, .. } = subject;
                if !self.begin_listening(cookie) {
                    return notification.fail(libc::EINVAL);
                }
                self.waits.sweep();
                let request = Box::new(Bind { notification, cookie, guest, v6, local });
                self.stack.ask(Command::Listen { request, backlog });
            }
            Verdict::Deny(errno) => {
                flow(verdict).close(Err(errno.raw()));
                self.report("listening, for which there is no rule", &notification);
                notification.fail(errno.raw());
            }
            // Bound where it may not be reached.
            Verdict::Bypass | Verdict::Stack => {
                flow(verdict).close(Err(libc::EACCES));
                notification.fail(libc::EACCES);
            }
        }
    }

    /// From now on the socket is neither bound nor connected anew, unless it is dissolved first.
    fn begin_listening(&self, cookie: Cookie) -> bool {
        let mut sockets = self.sockets.lock();
        let free = matches!(sockets.state(cookie), State::Idle | State::Listening);
        if free {
            sockets.set(cookie, State::Listening);
        }
        free
    }

    /// `unbound`: any port will do, and the rule has not said which.
    fn listen_on_host(
        &self,
        subject: &Subject,
        backlog: i32,
        unbound: Option<(Cookie, bool)>,
    ) -> io::Result<()> {
        if let Some((cookie, v6)) = unbound {
            let any = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
            self.bind_on_host(subject, cookie, SocketAddr::new(any, 0), v6)?;
        }
        sys::listen(subject.fd(), backlog)?;
        // A guest may have dissolved and bound it anew meanwhile, and listen(2) binds by itself: what
        // counts is where it listens.
        let name = sys::local_name(subject.fd())?.map(canonical);
        let allowed = name.is_some_and(|name| self.inbound(name, Proto::Tcp).0 == Verdict::Bypass);
        if !allowed {
            let _ = sys::disconnect(subject.fd());
            return Err(io::Error::from_raw_os_error(libc::EACCES));
        }
        Ok(())
    }

    /// Takes a bound socket from the stack, so that it can be bound on the host.
    pub(super) fn let_go(&self, cookie: Cookie, guest: BorrowedFd<'_>) -> io::Result<()> {
        self.stack.ask(Command::Drop { cookie });
        places::leave(guest)
    }
}
