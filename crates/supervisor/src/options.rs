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

/// Where setsockopt(2) takes effect on a datagram or netlink socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Datagrams {
    /// On the guest's end and in the stack: sizes of queues.
    Both,
    Refused(i32),
    /// In the stack, which knows what an ordinary user may.
    Stack,
}

/// Everything concerns the stack's socket only, but for what would lead a packet past the verdict.
pub(crate) fn datagram(level: i32, name: i32) -> Datagrams {
    match (level, name) {
        // getsockopt(2) asks the guest's own end.
        (
            libc::SOL_SOCKET,
            libc::SO_DONTROUTE
            | libc::SO_KEEPALIVE
            | libc::SO_LINGER
            | libc::SO_NO_CHECK
            | libc::SO_OOBINLINE
            | libc::SO_PRIORITY
            | libc::SO_RCVBUF
            | libc::SO_RXQ_OVFL
            | libc::SO_SNDBUF
            | libc::SO_TIMESTAMP
            | libc::SO_TIMESTAMPNS,
        ) => Datagrams::Both,
        (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER..=libc::SO_DETACH_FILTER) => {
            Datagrams::Refused(libc::ENOPROTOOPT)
        }
        (libc::IPPROTO_IP, libc::IP_FREEBIND | libc::IP_OPTIONS | libc::IP_TRANSPARENT) => {
            Datagrams::Refused(libc::EPERM)
        }
        (
            libc::IPPROTO_IPV6,
            libc::IPV6_2292DSTOPTS
            | libc::IPV6_2292HOPOPTS
            | libc::IPV6_2292PKTOPTIONS
            | libc::IPV6_2292RTHDR
            | libc::IPV6_DSTOPTS
            | libc::IPV6_FREEBIND
            | libc::IPV6_HOPOPTS
            | libc::IPV6_RTHDR
            | libc::IPV6_RTHDRDSTOPTS
            | libc::IPV6_TRANSPARENT,
        ) => Datagrams::Refused(libc::EPERM),
        _ => Datagrams::Stack,
    }
}

/// Whether an option that the stack has taken is set on a datagram socket of the host's, too: it neither chooses a
/// way, nor a group or an interface, and its value is plain.
pub(crate) fn datagram_on_host(level: i32, name: i32) -> bool {
    match level {
        libc::SOL_SOCKET => matches!(
            name,
            libc::SO_BROADCAST
                | libc::SO_NO_CHECK
                | libc::SO_PRIORITY
                | libc::SO_RCVBUF
                | libc::SO_REUSEADDR
                | libc::SO_REUSEPORT
                | libc::SO_RXQ_OVFL
                | libc::SO_SNDBUF
                | libc::SO_TIMESTAMP
                | libc::SO_TIMESTAMPNS
        ),
        libc::IPPROTO_IP => matches!(
            name,
            libc::IP_MTU_DISCOVER
                | libc::IP_PKTINFO
                | libc::IP_RECVERR
                | libc::IP_RECVTOS
                | libc::IP_RECVTTL
                | libc::IP_TOS
                | libc::IP_TTL
        ),
        libc::IPPROTO_IPV6 => matches!(
            name,
            libc::IPV6_DONTFRAG
                | libc::IPV6_MTU_DISCOVER
                | libc::IPV6_RECVERR
                | libc::IPV6_RECVHOPLIMIT
                | libc::IPV6_RECVPKTINFO
                | libc::IPV6_RECVTCLASS
                | libc::IPV6_TCLASS
                | libc::IPV6_UNICAST_HOPS
                | libc::IPV6_V6ONLY
        ),
        libc::IPPROTO_UDP => matches!(name, libc::UDP_GRO | libc::UDP_SEGMENT),
        _ => false,
    }
}

/// What a datagram socket that is connected on the host says there.
pub(crate) fn datagram_from_host(level: i32, name: i32) -> bool {
    matches!((level, name), (libc::IPPROTO_IP, libc::IP_MTU) | (libc::IPPROTO_IPV6, libc::IPV6_MTU))
}

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
        libc::SO_KEEPALIVE | libc::SO_LINGER | libc::SO_RCVBUF | libc::SO_SNDBUF => Side::Both,
        // Of those that make no difference to TCP, SO_BROADCAST, SO_NO_CHECK and SO_RXQ_OVFL, programs are told
        // that they are set.
        libc::SO_BROADCAST
        | libc::SO_BUSY_POLL
        | libc::SO_DONTROUTE
        | libc::SO_INCOMING_CPU
        | libc::SO_NO_CHECK
        | libc::SO_OOBINLINE
        | libc::SO_PASSCRED
        | libc::SO_PREFER_BUSY_POLL
        | libc::SO_RCVLOWAT
        | libc::SO_RCVTIMEO
        | libc::SO_REUSEADDR
        | libc::SO_RXQ_OVFL
        | libc::SO_SNDTIMEO
        | libc::SO_TIMESTAMP
        | libc::SO_TIMESTAMPNS
        | libc::SO_ZEROCOPY => Side::Guest,
        // With SO_REUSEPORT another program of the same user could join a guest's place (places.rs).
        libc::SO_MAX_PACING_RATE | libc::SO_PRIORITY | libc::SO_REUSEPORT => Side::Stack,
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
        libc::IP_MULTICAST_LOOP
        | libc::IP_MULTICAST_TTL
        | libc::IP_PKTINFO
        | libc::IP_RECVERR
        | libc::IP_RECVTOS
        | libc::IP_RECVTTL => Side::Guest,
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
        libc::IPV6_MULTICAST_HOPS
        | libc::IPV6_MULTICAST_LOOP
        | libc::IPV6_RECVERR
        | libc::IPV6_RECVHOPLIMIT
        | libc::IPV6_RECVPKTINFO
        | libc::IPV6_RECVTCLASS => Side::Guest,
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

/// Whether an option may be set by the supervisor on a socket that is not mediated: of AF_UNIX, or
/// of a network namespace that the guest made.
///
/// It is performed in our address space, so a value that holds a pointer or a descriptor would
/// give the guest ours (AF_XDP's XDP_UMEM_REG, iptables' tables, BPF programs). Only options known
/// to hold none are let through.
pub(crate) fn is_plain(level: i32, name: i32) -> bool {
    const IPPROTO_RAW_FILTER: i32 = 1;
    const PACKET_FANOUT_DATA: i32 = 22;
    const PACKET_LAST: i32 = 24;
    const SO_PASSRIGHTS: i32 = 83;
    match level {
        libc::SOL_SOCKET => {
            !matches!(socket(name), Side::Refused(_))
                || matches!(
                    name,
                    libc::SO_BINDTODEVICE
                        | libc::SO_BINDTOIFINDEX
                        | libc::SO_BROADCAST
                        | libc::SO_MARK
                        | libc::SO_PASSPIDFD
                        | libc::SO_PASSSEC
                        | libc::SO_PEEK_OFF
                        | libc::SO_RCVBUFFORCE
                        | libc::SO_RXQ_OVFL
                        | libc::SO_SNDBUFFORCE
                        | libc::SO_TIMESTAMPING
                        | SO_PASSRIGHTS
                )
        }
        libc::IPPROTO_TCP => !matches!(tcp(name), Side::Refused(_)),
        // Below 64 are ip(7)'s and ipv6(7)'s own, all plain; from 64 on netfilter's.
        libc::IPPROTO_IP => (0..64).contains(&name),
        libc::IPPROTO_IPV6 => (0..64).contains(&name) || matches!(name, 66 | 67 | 70 | 72..=80),
        libc::IPPROTO_UDP | libc::IPPROTO_UDPLITE => matches!(name, 1 | 10 | 11 | 100..=104),
        libc::IPPROTO_RAW | libc::IPPROTO_ICMPV6 => name == IPPROTO_RAW_FILTER,
        libc::SOL_NETLINK => (1..=12).contains(&name),
        libc::SOL_PACKET => (1..=PACKET_LAST).contains(&name) && name != PACKET_FANOUT_DATA,
        _ => false,
    }
}

/// Whether the guest's own socket gets a [`Side::Stack`] option only when it is connected on the
/// host: it would suffer while parked (time-outs), or may know less than the stack (congestion control).
pub(crate) fn is_deferred(level: i32, name: i32) -> bool {
    let deferred = [libc::TCP_CONGESTION, libc::TCP_SYNCNT, libc::TCP_USER_TIMEOUT];
    level == libc::IPPROTO_TCP && deferred.contains(&name) || (level, name) == REUSE_PORT
}

pub(crate) const REUSE_PORT: (i32, i32) = (libc::SOL_SOCKET, libc::SO_REUSEPORT);

/// Whether getsockopt(2) on a connected or connecting socket is the stack's to answer.
pub(crate) fn read_from_stack(level: i32, name: i32) -> bool {
    match level {
        libc::IPPROTO_TCP => {
            matches!(tcp(name), Side::Stack) || matches!(name, libc::TCP_INFO | libc::TCP_CC_INFO)
        }
        libc::IPPROTO_IP => matches!(ip(name), Side::Stack) || name == libc::IP_MTU,
        libc::IPPROTO_IPV6 => matches!(ipv6(name), Side::Stack) || name == libc::IPV6_MTU,
        _ => (level, name) == REUSE_PORT,
    }
}

/// The same of a connection between guests, whose bytes the stack does not see (stack/direct.rs).
pub(crate) fn read_from_stand_in(level: i32, name: i32) -> bool {
    match (level, name) {
        (libc::IPPROTO_TCP, libc::TCP_INFO) => false,
        // Those of what was accepted are not the usual ones, and cannot be set (tcp_v4_syn_recv_sock()).
        (libc::IPPROTO_IP, libc::IP_MULTICAST_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS) => true,
        _ => read_from_stack(level, name),
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
    fn an_option_with_a_pointer_is_never_performed() {
        const SOL_XDP: i32 = 283;
        for (level, name) in [
            (SOL_XDP, 4),
            (libc::IPPROTO_IP, 64),
            (libc::IPPROTO_IPV6, 64),
            (libc::SOL_PACKET, 22),
            (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER),
            (libc::SOL_SOCKET, libc::SO_ATTACH_BPF),
            (libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF),
            (libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_EBPF),
            (libc::SOL_ALG, 1),
        ] {
            assert!(!is_plain(level, name), "level {level} option {name}");
        }
        assert!(is_plain(libc::SOL_NETLINK, 1) && is_plain(libc::SOL_SOCKET, libc::SO_PASSCRED));
    }

    #[test]
    fn a_user_timeout_never_reaches_a_parked_socket() {
        assert_eq!(side(libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT), Side::Stack);
        assert_eq!(side(libc::IPPROTO_TCP, libc::TCP_SYNCNT), Side::Stack);
        assert_eq!(side(libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT), Side::Ignored);
    }
}
