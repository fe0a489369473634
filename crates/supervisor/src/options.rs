//! Socket options: which side of a mediated socket each one belongs to.

/// An option for the stack's socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StackOption {
    pub(crate) level: i32,
    pub(crate) name: i32,
    pub(crate) value: Vec<u8>,
}

/// Where setsockopt(2) takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// On the guest's socket and on the stack's.
    Both,
    /// On the guest's socket only: it shapes what the guest's own calls do.
    Guest,
    /// Accepted and not applied: a hint that changes nothing a program can see.
    Ignored,
    /// Refused with this errno.
    Refused(i32),
    /// On the stack's socket only: it shapes what goes over the wire, and some of it would break
    /// a parked socket (TCP_USER_TIMEOUT kills one).
    Stack,
    /// IPV6_V6ONLY: remembered, as the guest's socket must stay dual-stack to be parked.
    V6Only,
}

/// `IPV6_ADDR_PREFERENCES`, `TCP_MD5SIG_EXT` and their like are from the kernel's own headers.
const IPV6_ADDR_PREFERENCES: i32 = 72;
const IPV6_AUTOFLOWLABEL: i32 = 70;
const IPV6_FLOWINFO_SEND: i32 = 33;
const IP_BIND_ADDRESS_NO_PORT: i32 = 24;
const IP_LOCAL_PORT_RANGE: i32 = 51;

/// The allow-list. What is not in it does not exist for a guest: `ENOPROTOOPT`.
pub(crate) fn side(level: i32, name: i32) -> Side {
    match level {
        libc::SOL_SOCKET => socket(name),
        libc::IPPROTO_TCP => tcp(name),
        libc::IPPROTO_IP => ip(name),
        libc::IPPROTO_IPV6 => ipv6(name),
        _ => Side::Refused(libc::ENOPROTOOPT),
    }
}

fn socket(name: i32) -> Side {
    match name {
        libc::SO_KEEPALIVE | libc::SO_LINGER | libc::SO_OOBINLINE | libc::SO_RCVBUF | libc::SO_SNDBUF => {
            Side::Both
        }
        libc::SO_BUSY_POLL
        | libc::SO_INCOMING_CPU
        | libc::SO_PASSCRED
        | libc::SO_PREFER_BUSY_POLL
        | libc::SO_RCVLOWAT
        | libc::SO_RCVTIMEO
        | libc::SO_REUSEADDR
        | libc::SO_REUSEPORT
        | libc::SO_SNDTIMEO
        | libc::SO_TIMESTAMP
        | libc::SO_TIMESTAMPNS
        | libc::SO_ZEROCOPY => Side::Guest,
        libc::SO_MAX_PACING_RATE | libc::SO_PRIORITY => Side::Stack,
        // The socket would leave by a route, a mark or a device of its own choice.
        libc::SO_BINDTODEVICE
        | libc::SO_BINDTOIFINDEX
        | libc::SO_MARK
        | libc::SO_RCVBUFFORCE
        | libc::SO_SNDBUFFORCE => Side::Refused(libc::EPERM),
        _ => Side::Refused(libc::ENOPROTOOPT),
    }
}

fn tcp(name: i32) -> Side {
    match name {
        libc::TCP_CORK | libc::TCP_KEEPCNT | libc::TCP_KEEPIDLE | libc::TCP_KEEPINTVL | libc::TCP_NODELAY => {
            Side::Both
        }
        libc::TCP_QUICKACK | libc::TCP_ULP => Side::Guest,
        // With TCP_FASTOPEN_CONNECT a later write would connect.
        libc::TCP_DEFER_ACCEPT | libc::TCP_FASTOPEN | libc::TCP_FASTOPEN_CONNECT => Side::Ignored,
        libc::TCP_CONGESTION
        | libc::TCP_LINGER2
        | libc::TCP_MAXSEG
        | libc::TCP_MD5SIG
        | libc::TCP_NOTSENT_LOWAT
        | libc::TCP_SYNCNT
        | libc::TCP_THIN_DUPACK
        | libc::TCP_THIN_LINEAR_TIMEOUTS
        | libc::TCP_USER_TIMEOUT
        | libc::TCP_WINDOW_CLAMP => Side::Stack,
        libc::TCP_REPAIR => Side::Refused(libc::EPERM),
        _ => Side::Refused(libc::ENOPROTOOPT),
    }
}

fn ip(name: i32) -> Side {
    match name {
        libc::IP_MTU_DISCOVER | libc::IP_TOS | libc::IP_TTL => Side::Stack,
        libc::IP_RECVERR | libc::IP_RECVTOS => Side::Guest,
        IP_BIND_ADDRESS_NO_PORT | IP_LOCAL_PORT_RANGE => Side::Ignored,
        // A source route would lead a packet past the verdict.
        libc::IP_OPTIONS => Side::Refused(libc::EPERM),
        libc::IP_FREEBIND | libc::IP_TRANSPARENT => Side::Refused(libc::EPERM),
        _ => Side::Refused(libc::ENOPROTOOPT),
    }
}

fn ipv6(name: i32) -> Side {
    match name {
        libc::IPV6_MTU_DISCOVER | libc::IPV6_TCLASS | libc::IPV6_UNICAST_HOPS => Side::Stack,
        libc::IPV6_RECVERR | libc::IPV6_RECVTCLASS => Side::Guest,
        libc::IPV6_V6ONLY => Side::V6Only,
        IPV6_ADDR_PREFERENCES | IPV6_AUTOFLOWLABEL | IPV6_FLOWINFO_SEND => Side::Ignored,
        libc::IPV6_RTHDR
        | libc::IPV6_HOPOPTS
        | libc::IPV6_DSTOPTS
        | libc::IPV6_FREEBIND
        | libc::IPV6_TRANSPARENT => Side::Refused(libc::EPERM),
        _ => Side::Refused(libc::ENOPROTOOPT),
    }
}

/// Whether getsockopt(2) on a connected or connecting socket is the stack's to answer.
pub(crate) fn read_from_stack(level: i32, name: i32) -> bool {
    match level {
        libc::IPPROTO_TCP => {
            matches!(tcp(name), Side::Stack) || matches!(name, libc::TCP_INFO | libc::TCP_CC_INFO)
        }
        libc::IPPROTO_IP => matches!(ip(name), Side::Stack) || name == libc::IP_MTU,
        libc::IPPROTO_IPV6 => matches!(ipv6(name), Side::Stack) || name == libc::IPV6_MTU,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_redirects_a_packet_is_accepted() {
        for (level, name) in [
            (libc::IPPROTO_IP, libc::IP_OPTIONS),
            (libc::IPPROTO_IP, libc::IP_TRANSPARENT),
            (libc::IPPROTO_IPV6, libc::IPV6_RTHDR),
            (libc::SOL_SOCKET, libc::SO_BINDTODEVICE),
            (libc::SOL_SOCKET, libc::SO_MARK),
            (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER),
            (libc::IPPROTO_TCP, libc::TCP_REPAIR),
            (libc::IPPROTO_RAW, 1),
        ] {
            assert!(matches!(side(level, name), Side::Refused(_)), "level {level} option {name}");
        }
    }

    #[test]
    fn a_user_timeout_never_reaches_a_parked_socket() {
        assert_eq!(side(libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT), Side::Stack);
        assert_eq!(side(libc::IPPROTO_TCP, libc::TCP_SYNCNT), Side::Stack);
        assert_eq!(side(libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT), Side::Ignored);
    }
}
