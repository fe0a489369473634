//! ioctl(2) with a socket's requests. Interfaces are the stack's, whatever socket they are asked by
//! (netdevice(7)); nothing can be set.

use netshunt_notify::{Fault, Notification, TargetAddr};

use super::arguments::Arguments;
use super::{Calls, Kind};
use crate::stack::{Command, Interfaces};
use crate::sys;

/// `struct ifreq`; `struct ifconf`, and where its pointer is (include/uapi/linux/if.h).
const IFREQ: usize = 40;
const IFCONF: usize = 16;
const IFCONF_BUFFER: usize = 8;

/// What becomes of a request (include/uapi/asm-generic/sockios.h, include/uapi/linux/sockios.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    /// About the socket's own queues and signals: native. The request is in a register.
    Socket,
    /// Something that only drivers of real devices know, by a pointer in the request: the stack's have none.
    Driver,
    Interface,
    InterfaceList,
    /// Would change interfaces or routes.
    Sets,
    Unknown,
}

fn asks(request: u32) -> Asks {
    match request {
        // The owner of SIGIO; SIOCATMARK; time stamps; SIOCOUTQNSD.
        0x8901..=0x8907 | 0x894b => Asks::Socket,
        0x8912 => Asks::InterfaceList,
        // SIOCGIF…: NAME, FLAGS, ADDR, DSTADDR, BRDADDR, NETMASK, METRIC, HWADDR, INDEX, TXQLEN, MAP, MTU.
        0x8910 | 0x8913 | 0x8915 | 0x8917 | 0x8919 | 0x891b | 0x891d | 0x8927 | 0x8933 | 0x8942 | 0x8970
        | 0x8921 => Asks::Interface,
        // SIOCETHTOOL, SIOCWANDEV, SIOCBONDINFOQUERY, SIOCGHWTSTAMP, SIOCDEVPRIVATE.
        0x8946 | 0x894a | 0x8994 | 0x89b1 | 0x89f0..=0x89ff => Asks::Driver,
        // SIOCADDRT, SIOCDELRT, and what else sets something or takes the same privilege (SIOCGMIIPHY).
        0x890b
        | 0x890c
        | 0x8911
        | 0x8914
        | 0x8916
        | 0x8918
        | 0x891a
        | 0x891c
        | 0x891e
        | 0x8922..=0x8924
        | 0x8926
        | 0x8930
        | 0x8931
        | 0x8932
        | 0x8936
        | 0x8937
        | 0x8943
        | 0x8947..=0x8949
        | 0x8953
        | 0x8955
        | 0x8971
        | 0x8990..=0x8993
        | 0x8995
        | 0x89a2
        | 0x89a3
        | 0x89b0 => Asks::Sets,
        _ => Asks::Unknown,
    }
}

impl Calls {
    pub(super) fn ioctl(&self, notification: Notification) {
        let asked = asks(notification.int_arg(1) as u32);
        if asked == Asks::Socket {
            return notification.proceed();
        }
        let subject = match self.subject(&notification) {
            Ok(subject) => subject,
            // No socket: ENOTTY is what files say to these.
            Err(libc::ENOTSOCK) => return notification.fail(libc::ENOTTY),
            Err(errno) => return notification.fail(errno),
        };
        // The network of a namespace that the guest made is its own affair. Whatever descriptor a racing
        // thread puts there instead, the request stays; and setting takes a capability that no guest has.
        if subject.kind == Kind::Foreign {
            return notification.proceed();
        }
        let read = match asked {
            Asks::Driver => read_driver as Read,
            Asks::Interface => read_request as Read,
            Asks::InterfaceList => read_list as Read,
            Asks::Sets => return notification.fail(libc::EPERM),
            _ => return self.fail(notification, "interface and route ioctls", libc::ENOTTY),
        };
        let domain = match &subject.end {
            Some(end) => Ok(end.domain),
            None => sys::int_option(subject.fd(), libc::SOL_SOCKET, libc::SO_DOMAIN),
        };
        let inet = domain.is_ok_and(|domain| domain == libc::AF_INET);
        match read(&notification, notification.addr_arg(2)) {
            Ok(asked) => {
                self.stack.ask(Command::Interfaces(Box::new(Interfaces { notification, inet, asked })));
            }
            Err(errno) => notification.fail(errno),
        }
    }
}

/// What a guest asks of the stack's interfaces, and where it wants the answer.
#[derive(Debug)]
pub(crate) enum Asked {
    /// What its driver could say: nothing, if there is such an interface.
    Driver { argument: [u8; IFREQ] },
    /// One: a request and its `struct ifreq`.
    One { request: u32, argument: [u8; IFREQ], at: TargetAddr },
    /// All of them: the `struct ifconf` is `at`, its buffer of `room` bytes elsewhere.
    All { at: TargetAddr, buffer: TargetAddr, room: usize },
}

/// Copies a request's argument.
type Read = fn(&Notification, TargetAddr) -> Result<Asked, i32>;

fn read_request(notification: &Notification, at: TargetAddr) -> Result<Asked, i32> {
    let argument = read_argument(notification, at)?;
    Ok(Asked::One { request: notification.int_arg(1) as u32, argument, at })
}

fn read_driver(notification: &Notification, at: TargetAddr) -> Result<Asked, i32> {
    Ok(Asked::Driver { argument: read_argument(notification, at)? })
}

fn read_argument(notification: &Notification, at: TargetAddr) -> Result<[u8; IFREQ], i32> {
    let mut argument = [0; IFREQ];
    notification.read(at, &mut argument).map_err(Fault::errno)?;
    Ok(argument)
}

fn read_list(notification: &impl Arguments, at: TargetAddr) -> Result<Asked, i32> {
    let mut list = [0; IFCONF];
    notification.read(at, &mut list).map_err(Fault::errno)?;
    let [a, b, c, d, ..] = list;
    // Less than nothing has room for nothing (inet_gifconf() in net/ipv4/devinet.c).
    let room = usize::try_from(i32::from_ne_bytes([a, b, c, d])).unwrap_or_default();
    let mut buffer = [0; 8];
    buffer.copy_from_slice(&list[IFCONF_BUFFER..]);
    Ok(Asked::All { at, buffer: TargetAddr(u64::from_ne_bytes(buffer)), room })
}

impl Asked {
    /// What is to be written, and where: a request's argument as it is now, or the list cut to whole
    /// records as dev_ifconf() in net/core/dev_ioctl.c does.
    pub(crate) fn answer(&self, bytes: &[u8]) -> Vec<(TargetAddr, Vec<u8>)> {
        match *self {
            Asked::Driver { .. } => Vec::new(),
            Asked::One { at, .. } => vec![(at, bytes.to_vec())],
            Asked::All { at, buffer, room } => {
                let length = |n: usize| (at, (n as i32).to_ne_bytes().to_vec());
                if buffer.is_null() {
                    return vec![length(bytes.len())];
                }
                let records = &bytes[..bytes.len().min(room / IFREQ * IFREQ)];
                vec![(buffer, records.to_vec()), length(records.len())]
            }
        }
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_cut_to_whole_records() {
        let (at, buffer) = (TargetAddr(1000), TargetAddr(2000));
        let two = [7; 2 * IFREQ];
        for (room, kept) in [(0, 0), (39, 0), (40, 40), (79, 40), (80, 80), (4000, 80)] {
            let length = (at, i32::to_ne_bytes(kept as i32).to_vec());
            let wanted = vec![(buffer, two[..kept].to_vec()), length];
            assert_eq!(Asked::All { at, buffer, room }.answer(&two), wanted, "{room}");
        }
        let asked = Asked::All { at, buffer: TargetAddr(0), room: 0 };
        assert_eq!(asked.answer(&two), [(at, 80_i32.to_ne_bytes().to_vec())]);
    }

    #[test]
    fn every_request_of_the_c_library_has_its_meaning() {
        assert_eq!(asks(libc::SIOCGIFCONF as u32), Asks::InterfaceList);
        let interface: &[libc::Ioctl] = &[
            libc::SIOCGIFNAME,
            libc::SIOCGIFFLAGS,
            libc::SIOCGIFADDR,
            libc::SIOCGIFDSTADDR,
            libc::SIOCGIFBRDADDR,
            libc::SIOCGIFNETMASK,
            libc::SIOCGIFMETRIC,
            libc::SIOCGIFHWADDR,
            libc::SIOCGIFINDEX,
            libc::SIOCGIFTXQLEN,
            libc::SIOCGIFMAP,
            libc::SIOCGIFMTU,
        ];
        let sets: &[libc::Ioctl] = &[
            libc::SIOCADDRT,
            libc::SIOCDELRT,
            libc::SIOCSIFFLAGS,
            libc::SIOCSIFADDR,
            libc::SIOCSIFDSTADDR,
            libc::SIOCSIFBRDADDR,
            libc::SIOCSIFNETMASK,
            libc::SIOCSIFMETRIC,
            libc::SIOCSIFMTU,
            libc::SIOCSIFHWADDR,
            libc::SIOCSIFSLAVE,
            libc::SIOCADDMULTI,
            libc::SIOCDELMULTI,
            libc::SIOCSIFTXQLEN,
            libc::SIOCSIFMAP,
        ];
        let driver: &[libc::Ioctl] = &[libc::SIOCETHTOOL, libc::SIOCGHWTSTAMP];
        let meanings = [(interface, Asks::Interface), (sets, Asks::Sets), (driver, Asks::Driver)];
        for (requests, meaning) in meanings {
            for &request in requests {
                assert_eq!(asks(request as u32), meaning, "{request:#x}");
            }
        }
        assert_eq!(asks(libc::SIOCGARP as u32), Asks::Unknown);
    }
}
