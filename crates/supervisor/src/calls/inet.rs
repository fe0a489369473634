//! bind(2) and listen(2).

use netshunt_notify::Notification;

use super::connect::read_address;
use super::{Calls, Kind, guarded};
use crate::pending::answer;
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
        let address = match read_address(&notification, 1, 2) {
            Ok(address) => address,
            Err(errno) => return notification.fail(errno),
        };
        match subject.kind {
            Kind::Foreign => {
                let result = guarded(&notification, || sys::bind_raw(subject.fd(), &address));
                answer(notification, result);
            }
            Kind::Tcp { v6 } => self.bind_tcp(notification, subject, &address, v6),
            Kind::End | Kind::Other | Kind::Unix => notification.fail(libc::EACCES),
        }
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
                let result = guarded(&notification, || sys::listen(subject.fd(), notification.int_arg(1)));
                answer(notification, result);
            }
            Kind::Tcp { v6 } => self.listen_tcp(notification, subject, v6),
            Kind::Other => {
                self.report("listen on a socket that is not mediated", &notification);
                notification.fail(libc::EOPNOTSUPP);
            }
        }
    }
}
