//! The table itself.

use super::Action::{Allow, Errno, Notify};
use super::{Rule, When};

/// The calls that are not simply allowed. Order matters only to the reader: rules do not overlap.
#[must_use]
pub fn table() -> &'static [Rule] {
    TABLE
}

const ALL: u32 = u32::MAX;

/// `SOCK_NONBLOCK | SOCK_CLOEXEC` share the word with the type of a socket.
const TYPE: u32 = !((libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) as u32);

/// `SIOC*` (include/uapi/linux/sockios.h): the second byte is 0x89.
const IOCTL_GROUP: u32 = 0xff00;
const SIOC: u32 = 0x8900;
/// Terminals' (include/uapi/asm-generic/ioctls.h), among others.
const TERMINAL: u32 = 0x5400;
const TYPED: &[u32] = &[libc::TIOCSTI as u32, TIOCLINUX];
/// linux/tiocl.h, of the console: pastes what is selected.
const TIOCLINUX: u32 = 0x541c;

const CLONE_NEWTIME: u32 = 0x80;
const NAMESPACES: u32 = CLONE_NEWTIME
    | (libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWUTS) as u32;

/// `UFFD_USER_MODE_ONLY` (5.11).
const USER_MODE_ONLY: u32 = 1;

/// The timeouts of 64 bits (5.1); the C library picks by the width of its `time_t`.
const SO_RCVTIMEO_NEW: i32 = 66;
const SO_SNDTIMEO_NEW: i32 = 67;

const fn is(arg: u8, values: &'static [u32]) -> When {
    When::OneOf { arg, mask: ALL, values }
}

const fn is_not(arg: u8, values: &'static [u32]) -> When {
    When::NoneOf { arg, mask: ALL, values }
}

const fn rule(call: &'static str, when: &'static [When], action: super::Action, why: &'static str) -> Rule {
    Rule { call, when, action, why }
}

const INTERNET: &[u32] = &[libc::AF_INET as u32, libc::AF_INET6 as u32];
const SOL_SOCKET: &[u32] = &[libc::SOL_SOCKET as u32];
/// What the guest's own end of a mediated socket does not know.
const STACKS_OPTIONS: &[u32] = &[
    libc::SO_BINDTODEVICE as u32,
    libc::SO_BINDTOIFINDEX as u32,
    libc::SO_BROADCAST as u32,
    libc::SO_DOMAIN as u32,
    libc::SO_ERROR as u32,
    libc::SO_PROTOCOL as u32,
    libc::SO_REUSEADDR as u32,
    libc::SO_REUSEPORT as u32,
    libc::SO_TYPE as u32,
];
const STACKS_LEVELS: &[u32] = &[
    libc::IPPROTO_IP as u32,
    libc::IPPROTO_IPV6 as u32,
    libc::IPPROTO_TCP as u32,
    libc::IPPROTO_UDP as u32,
    libc::IPPROTO_UDPLITE as u32,
    libc::SOL_NETLINK as u32,
];
/// Those and SOL_SOCKET.
const LEVELS: &[u32] = &[
    libc::IPPROTO_IP as u32,
    libc::IPPROTO_IPV6 as u32,
    libc::IPPROTO_TCP as u32,
    libc::IPPROTO_UDP as u32,
    libc::IPPROTO_UDPLITE as u32,
    libc::SOL_NETLINK as u32,
    libc::SOL_SOCKET as u32,
];
const FASTOPEN: u32 = libc::MSG_FASTOPEN as u32;

/// A send that does not connect.
const fn plain(flags: u8) -> When {
    When::OneOf { arg: flags, mask: FASTOPEN, values: &[0] }
}

/// A send that does.
const fn fast_open(flags: u8) -> When {
    When::SomeBit { arg: flags, bits: FASTOPEN, without: 0 }
}

/// A receive of data, and one of errors (IP_RECVERR).
const QUEUED_DATA: When = When::OneOf { arg: 3, mask: libc::MSG_ERRQUEUE as u32, values: &[0] };
const QUEUED_ERRORS: When = When::SomeBit { arg: 3, bits: libc::MSG_ERRQUEUE as u32, without: 0 };

const UNIX: When = is(0, &[libc::AF_UNIX as u32]);
/// AF_UNIX sockets that send to their peer only (net/unix/af_unix.c).
const TIED_TYPES: &[u32] = &[libc::SOCK_STREAM as u32, libc::SOCK_SEQPACKET as u32];
const TIED: When = When::OneOf { arg: 1, mask: TYPE, values: TIED_TYPES };
const LOOSE: When = When::NoneOf { arg: 1, mask: TYPE, values: TIED_TYPES };

#[rustfmt::skip]
static TABLE: &[Rule] = &[
    // Making sockets.
    rule("socket", &[UNIX, TIED], Allow, "carries no internet address"),
    rule("socket", &[UNIX, LOOSE], Notify, "takes an address with each send: from now on sends are looked at"),
    rule("socket", &[
        is(0, INTERNET),
        When::OneOf { arg: 1, mask: TYPE, values: &[libc::SOCK_STREAM as u32] },
        is(2, &[0, libc::IPPROTO_TCP as u32]),
    ], Allow, "a TCP socket is harmless until connect, bind or listen, and those are mediated"),
    rule("socketpair", &[UNIX, TIED], Allow, "carries no internet address"),
    rule("socketpair", &[UNIX, LOOSE], Notify, "as socket(2): an end takes other addresses as well"),
    rule("socketpair", &[is_not(0, &[libc::AF_UNIX as u32])], Notify, "no other family is mediated: refused"),
    rule("socket", &[is_not(0, &[libc::AF_UNIX as u32, libc::AF_INET as u32, libc::AF_INET6 as u32])], Notify,
        "refused with the errno of a kernel that lacks the family"),

    // Where an internet address is given, or must be told.
    rule("connect", &[], Notify, "the destination is judged"),
    rule("bind", &[], Notify, "the address is judged"),
    rule("listen", &[], Notify, "binds an unbound socket by itself; never continued, for any family"),
    rule("accept", &[], Notify, "a listener's queue is on the host's loopback: others than the stack's are dropped"),
    rule("accept4", &[], Notify, "a listener's queue is on the host's loopback: others than the stack's are dropped"),
    rule("getsockname", &[], Notify, "the guest's addresses are the stack's"),
    rule("getpeername", &[], Notify, "the guest's addresses are the stack's"),

    // Options. Those of the guest's own end are native.
    rule("setsockopt", &[is(1, SOL_SOCKET), is(2, &[
        libc::SO_PASSCRED as u32, libc::SO_RCVLOWAT as u32,
        libc::SO_RCVTIMEO as u32, libc::SO_SNDTIMEO as u32, SO_RCVTIMEO_NEW as u32, SO_SNDTIMEO_NEW as u32,
    ])], Allow, "touches only the guest's own end"),
    rule("setsockopt", &[is_not(1, SOL_SOCKET)], Notify, "the stack's end may need it, or it must be refused"),
    rule("getsockopt", &[is(1, SOL_SOCKET), is_not(2, STACKS_OPTIONS)], Allow,
        "the guest's own end tells the truth"),
    rule("getsockopt", &[is_not(1, LEVELS)], Allow,
        "no level of an internet socket"),
    rule("getsockopt", &[is(1, SOL_SOCKET), is(2, STACKS_OPTIONS)], Notify,
        "the error of a parked or failed connection is the stack's, a shared port, and what a datagram socket is"),
    rule("getsockopt", &[is(1, STACKS_LEVELS)], Notify, "the stack's end knows the answer"),

    // An address beside the data, or in a message, which the filter cannot see. A TCP socket ignores
    // it but for MSG_FASTOPEN, which connects; EOPNOTSUPP is the answer of net.ipv4.tcp_fastopen=0.
    rule("sendto", &[plain(3), When::Null { arg: 4 }], Allow, "send(2)"),
    rule("sendto", &[plain(3), When::NotNull { arg: 4 }], Notify, "the destination is judged"),
    rule("sendto", &[fast_open(3)], Errno(libc::EOPNOTSUPP), "connects"),
    rule("sendmsg", &[plain(2)], Notify, "a destination may stand in the message"),
    rule("sendmsg", &[fast_open(2)], Errno(libc::EOPNOTSUPP), "connects"),
    rule("sendmmsg", &[plain(3)], Notify, "destinations may stand in the messages"),
    rule("sendmmsg", &[fast_open(3)], Errno(libc::EOPNOTSUPP), "connects"),

    // Who sent it: only for those who ask.
    rule("recvfrom", &[QUEUED_DATA, When::Null { arg: 4 }], Allow, "recv(2)"),
    rule("recvfrom", &[QUEUED_ERRORS, When::Null { arg: 4 }], Notify, "the stack has the queue of errors"),
    rule("recvfrom", &[When::NotNull { arg: 4 }], Notify, "a datagram's sender is known to the stack"),
    rule("recvmsg", &[], Notify, "a datagram's sender is known to the stack; continued for other sockets"),
    rule("recvmmsg", &[], Notify, "a datagram's sender is known to the stack; continued for other sockets"),

    // Interfaces and routes.
    rule("ioctl", &[When::NoneOf { arg: 1, mask: IOCTL_GROUP, values: &[SIOC, TERMINAL] }], Allow,
        "not of a socket"),
    rule("ioctl", &[When::NoneOfGroup { arg: 1, mask: IOCTL_GROUP, group: TERMINAL, values: TYPED }], Allow,
        "not of a socket"),
    rule("ioctl", &[is(1, TYPED)], Errno(libc::EIO),
        "types into the terminal, for whoever reads it after us; EIO is what dev.tty.legacy_tiocsti=0 answers"),
    rule("ioctl", &[When::OneOf { arg: 1, mask: IOCTL_GROUP, values: &[SIOC] }], Notify,
        "interfaces and routes are the stack's"),

    // Ways around the filter.
    rule("io_uring_setup", &[], Errno(libc::ENOSYS), "the filter cannot see inside; programs fall back"),
    rule("io_uring_enter", &[], Errno(libc::ENOSYS), "the filter cannot see inside; programs fall back"),
    rule("io_uring_register", &[], Errno(libc::ENOSYS), "the filter cannot see inside; programs fall back"),
    rule("setns", &[When::SomeBit { arg: 1, bits: NAMESPACES, without: libc::CLONE_NEWNET as u32 }], Allow,
        "not a network namespace"),
    rule("setns", &[When::OneOf { arg: 1, mask: ALL, values: &[0] }], Notify,
        "may be a network namespace that the guest did not make, which may lead out"),
    rule("request_key", &[When::Null { arg: 2 }], Allow, "looks in the caller's own keyrings"),
    rule("request_key", &[When::NotNull { arg: 2 }], Errno(libc::ENOKEY),
        "has the kernel start a program outside, which asks name servers for what the guest says \
         (dns_resolver); ENOKEY is the answer of a system without that program's key types"),
    rule("bpf", &[], Errno(libc::EPERM),
        "programs on sockets and control groups rewrite addresses; EPERM is an unprivileged process's answer"),

    // Ways to stop the supervisor from answering.
    rule("prlimit64", &[is(0, &[0])], Allow, "the guest's own limits"),
    rule("prlimit64", &[is_not(0, &[0])], Notify, "without descriptors the supervisor could not answer"),
    rule("prctl", &[is_not(0, &[libc::PR_SET_DUMPABLE as u32])], Allow, "does not concern us"),
    rule("prctl", &[is(0, &[libc::PR_SET_DUMPABLE as u32])], Notify,
        "a guest that is not dumpable cannot be read: success is answered and nothing done"),
    rule("userfaultfd", &[When::SomeBit { arg: 0, bits: USER_MODE_ONLY, without: 0 }], Allow,
        "cannot hold a fault that another process takes"),
    rule("userfaultfd", &[When::OneOf { arg: 0, mask: USER_MODE_ONLY, values: &[0] }], Errno(libc::EPERM),
        "a page could hold whoever reads it for ever; EPERM is what vm.unprivileged_userfaultfd=0 answers, \
         so programs know it (root has other ways, which the watch survives)"),
];
