//! What netshunt does not mediate: refused with the errno that a kernel without it would give,
//! and reported once.

use std::os::fd::RawFd;
use std::sync::PoisonError;

use netshunt_notify::Notification;
use tracing::warn;

use super::{Calls, errno, has_namespace};
use crate::options::StackOption;

/// What socket(2), or the first half of socketpair(2), is refused with; `None` for a kind that a kernel has at least.
fn refused(notification: &Notification) -> Option<(&'static str, i32)> {
    const KNOWN: i32 = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC | 0xf;
    let (domain, word, protocol) =
        (notification.int_arg(0), notification.int_arg(1), notification.int_arg(2));
    // In the order of __sys_socket_create(), __sock_create() and inet_create().
    Some(match (domain, word & 0xf) {
        _ if word & !KNOWN != 0 => ("types of sockets that do not exist", libc::EINVAL),
        // AF_MAX of include/linux/socket.h, Linux 6.12.
        (0..46, 11..) => ("types of sockets that do not exist", libc::EINVAL),
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_RAW | SOCK_PACKET) | (libc::AF_PACKET, _) => {
            ("raw and packet sockets", libc::EPERM)
        }
        (libc::AF_INET, libc::SOCK_DGRAM)
            if matches!(protocol, 0 | libc::IPPROTO_UDP | libc::IPPROTO_ICMP) =>
        {
            return None;
        }
        (libc::AF_INET6, libc::SOCK_DGRAM)
            if matches!(protocol, 0 | libc::IPPROTO_UDP | libc::IPPROTO_ICMPV6) =>
        {
            return None;
        }
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM) if matches!(protocol, 0 | libc::IPPROTO_TCP) => {
            return None;
        }
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_DGRAM | libc::SOCK_STREAM) => {
            ("internet sockets other than TCP and UDP", libc::EPROTONOSUPPORT)
        }
        (libc::AF_INET | libc::AF_INET6, _) => {
            ("internet sockets other than TCP and UDP", libc::ESOCKTNOSUPPORT)
        }
        (libc::AF_NETLINK, _) => ("netlink sockets", libc::EPROTONOSUPPORT),
        _ => ("sockets of this family", libc::EAFNOSUPPORT),
    })
}

/// Of packet(7), long obsolete.
const SOCK_PACKET: i32 = 10;

impl Calls {
    /// Everything that has no handler of its own.
    pub(super) fn refuse(&self, notification: Notification) {
        match notification.call() {
            // The supervisor must be able to read its guests; that they believe themselves
            // unreadable is the lesser evil.
            libc::SYS_prctl => notification.succeed(0),
            // A network namespace that the guest did not make may lead out.
            libc::SYS_setns => self.fail(notification, "setns into a network namespace", libc::EPERM),
            libc::SYS_socket => self.socket(notification),
            libc::SYS_socketpair => {
                let errno = match refused(&notification) {
                    // Both sockets are made before the family says that it has no pairs.
                    None => libc::EOPNOTSUPP,
                    Some((_, errno)) => errno,
                };
                self.fail(notification, "socket pairs other than AF_UNIX", errno);
            }
            libc::SYS_prlimit64 => self.prlimit(notification),
            _ => {
                let name = notification.call_name();
                self.fail(notification, &format!("system call {name}"), libc::ENOSYS);
            }
        }
    }

    /// A socket that is neither AF_UNIX nor TCP: of datagrams or netlink, or refused.
    fn socket(&self, notification: Notification) {
        let own = notification.thread().and_then(|thread| thread.net_namespace());
        match own {
            // What has no namespace leads out from each.
            Ok(inode) if inode != self.namespace_inode && !has_namespace(notification.int_arg(0)) => {}
            // socket(2) carries no pointer, so nothing can be swapped under a continued call.
            Ok(inode) if inode != self.namespace_inode => return notification.proceed(),
            Ok(_) => {}
            Err(error) => return notification.fail(errno(&error)),
        }
        let (domain, kind) = (notification.int_arg(0), notification.int_arg(1) & 0xf);
        if self.is_end(domain, kind, notification.int_arg(2)) {
            return self.make_end(notification);
        }
        let (what, errno) = refused(&notification).unwrap_or(("datagram sockets", libc::EPROTONOSUPPORT));
        self.fail(notification, what, errno);
    }

    /// Limits of other processes, by their ids in a register: continued, but for the supervisor's and its
    /// parent's, which may be a front end that lives and dies with it.
    fn prlimit(&self, notification: Notification) {
        let target = notification.int_arg(0);
        let ours = std::path::Path::new(&format!("/proc/self/task/{target}")).exists();
        if ours || target == nix::unistd::getppid().as_raw() {
            return self.fail(notification, "prlimit on the supervisor", libc::EPERM);
        }
        notification.proceed();
    }

    pub(super) fn fail(&self, notification: Notification, what: &str, errno: RawFd) {
        self.report(what, &notification);
        notification.fail(errno);
    }

    /// One line per kind of thing and run: programs try such calls often, and go on without.
    pub(super) fn report(&self, what: &str, notification: &Notification) {
        if self.is_new(what) {
            let comm = notification.thread().map(|t| t.comm()).unwrap_or_default();
            warn!(pid = notification.tid().0, comm, "refused: {what}");
        }
    }

    pub(super) fn report_option(&self, option: &StackOption) {
        let what = format!("socket option {} of level {}", option.name, option.level);
        if self.is_new(&what) {
            warn!("refused: {what}");
        }
    }

    fn is_new(&self, what: &str) -> bool {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner).insert(what.to_owned())
    }
}
