//! bind(2) and listen(2).

use std::net::SocketAddr;
use std::os::fd::AsFd;

use netshunt_notify::Notification;

use super::connect::read_address;
use super::{Calls, Kind, Subject, errno};
use crate::address::{Address, canonical};
use crate::pending::answer;
use crate::sockets::State;
use crate::sys;

impl Calls {
    pub(super) fn bind(&self, notification: Notification) {
        let subject = match self.subject(&notification) {
            Ok(subject) => subject,
            Err(errno) => return notification.fail(errno),
        };
        if subject.kind == Kind::Unix {
            return self.bind_unix(notification, subject);
        }
        if let Some(end) = subject.end {
            return self.bind_end(notification, end);
        }
        let result = read_address(&notification, 1, 2).and_then(|address| match subject.kind {
            Kind::Foreign => sys::bind_raw(subject.fd(), &address).map_err(|e| errno(&e)),
            Kind::Tcp { v6 } => self.bind_tcp(&subject, &address, v6),
            Kind::End | Kind::Other | Kind::Unix => Err(libc::EACCES),
        });
        answer(notification, result);
    }

    /// A verdict is not known before connect(2): remember what was asked.
    fn bind_tcp(&self, subject: &Subject, address: &[u8], v6: bool) -> Result<(), i32> {
        let local = match Address::parse(address).ok_or(libc::EINVAL)? {
            Address::Inet(local) if local.is_ipv6() == v6 => canonical(local),
            _ => return Err(libc::EAFNOSUPPORT),
        };
        if self.stack.is_none() {
            // Then the host is the only place it can be bound on, and nothing can listen.
            return sys::bind_raw(subject.fd.as_fd(), address).map_err(|e| errno(&e));
        }
        if !self.is_local(local) {
            return Err(libc::EADDRNOTAVAIL);
        }
        let cookie = subject.cookie()?;
        let mut sockets = self.sockets.lock();
        let entry = sockets.entry(cookie);
        if entry.bound.is_some() || !matches!(entry.state, State::Idle | State::Failed { .. }) {
            return Err(libc::EINVAL);
        }
        entry.bound = Some(local);
        Ok(())
    }

    fn is_local(&self, address: SocketAddr) -> bool {
        address.ip().is_unspecified() || self.local.iter().any(|net| net.contains(&address.ip()))
    }

    /// Never continued, for any family: a racing dup2(2) would turn a continued AF_UNIX listen
    /// into an open port of the host, and Landlock does not see listen(2) bind by itself.
    pub(super) fn listen(&self, notification: Notification) {
        let subject = match self.subject(&notification) {
            Ok(subject) => subject,
            Err(errno) => return notification.fail(errno),
        };
        match subject.kind {
            Kind::End => notification.fail(libc::EOPNOTSUPP),
            Kind::Unix => {
                let result = self.unix.listen(&subject, notification.int_arg(1));
                answer(notification, result);
            }
            Kind::Foreign => {
                let result = sys::listen(subject.fd(), notification.int_arg(1)).map_err(|e| errno(&e));
                answer(notification, result);
            }
            Kind::Other | Kind::Tcp { .. } => {
                self.report("listen on an internet socket is not mediated yet", &notification);
                notification.fail(libc::EOPNOTSUPP);
            }
        }
    }
}
