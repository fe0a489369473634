//! TCP connections that libslirp is opening on the host.
//!
//! libslirp 4.7 knows two outcomes: connected and refused. An ICMP error that ends an attempt makes
//! it forget the attempt without a word, a reset right after the handshake is a refusal to it, and
//! nothing makes it give up before its own time-out. So what it opens is noted here, with the SYN that
//! asked for it; how it ends is read from the host's socket before libslirp looks, and the stack is
//! told as the network itself would have told it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;

use etherparse::{
    Icmpv4Type, Icmpv6Type, IpHeaders, NetSlice, PacketBuilder, PacketBuilderStep, SlicedPacket,
    TransportSlice, icmpv4, icmpv6,
};

/// Bytes of an Ethernet header, and where the protocol is in an IP header (RFC 791, RFC 8200).
const ETHERNET: usize = 14;
const PROTOCOL_V4: usize = ETHERNET + 9;
const PROTOCOL_V6: usize = ETHERNET + 6;
/// An IPv6 header without extensions, and the flags in a TCP header (RFC 9293).
const HEADER_V6: usize = 40;
const FLAGS: usize = 13;
pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
const FLAG_BITS: u8 = 0x17;

const TCP: u8 = 6;
const TTL: u8 = 64;

/// The attempts under way, by the host's socket.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    open: HashMap<RawFd, Attempt>,
    /// The SYN that libslirp is being given: the socket it opens meanwhile is for that.
    asking: Option<Vec<u8>>,
    /// The SYNs of those that were up when last looked at, and that libslirp has not answered yet.
    up: Vec<Vec<u8>>,
}

#[derive(Debug)]
enum Attempt {
    /// The stack has given it up.
    Abandoned,
    /// Over, and libslirp shall not hear of it: its own timer closes the socket.
    Over,
    /// With the frame that asked for it.
    UnderWay(Vec<u8>),
}

/// What libslirp is to see of a socket that has news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Show {
    Everything,
    Nothing,
    /// That it can be written to: it tries, fails, and closes it.
    Writable,
}

impl Attempts {
    /// libslirp is about to be given a frame.
    pub(crate) fn ask(&mut self, frame: &[u8]) {
        self.asking = is_syn(frame).then(|| frame.to_vec());
    }

    /// It has had it.
    pub(crate) fn asked(&mut self) {
        self.asking = None;
    }

    /// libslirp has opened a socket.
    pub(crate) fn opened(&mut self, fd: RawFd) {
        if let Some(syn) = self.asking.take() {
            self.open.insert(fd, Attempt::UnderWay(syn));
        }
    }

    /// libslirp is about to close it.
    pub(crate) fn closed(&mut self, fd: RawFd) {
        self.open.remove(&fd);
    }

    /// The sockets that libslirp is not to poll any more.
    pub(crate) fn over(&self) -> Vec<RawFd> {
        let over = self.open.iter().filter(|(_, attempt)| matches!(attempt, Attempt::Over));
        over.map(|(&fd, _)| fd).collect()
    }

    /// Whether it is one of these.
    pub(crate) fn has(&self, fd: RawFd) -> bool {
        self.open.contains_key(&fd)
    }

    /// The attempt has ended with this errno (0: it is up); `tell` takes frames for the stack.
    pub(crate) fn ended(&mut self, fd: RawFd, errno: i32, tell: &mut dyn FnMut(&[u8])) -> Show {
        let syn = match self.open.remove(&fd) {
            Some(Attempt::Abandoned) => return Show::Writable,
            Some(Attempt::UnderWay(syn)) => syn,
            Some(Attempt::Over) | None => return Show::Everything,
        };
        match errno {
            0 => {
                self.up.push(syn);
                return Show::Everything;
            }
            libc::ECONNREFUSED => {}
            libc::ECONNRESET => reset(&syn).iter().flatten().for_each(|frame| tell(frame)),
            // The stack's own patience ends by itself, and what that means is its to say.
            libc::ETIMEDOUT => {
                self.open.insert(fd, Attempt::Over);
                return Show::Nothing;
            }
            _ => unreachable(&syn, errno).iter().for_each(|frame| tell(frame)),
        }
        Show::Writable
    }

    /// What the stack is to hear instead of this frame of libslirp's, if that refuses what was up: a
    /// connection may be reset after it was looked at, and before libslirp does.
    pub(crate) fn instead_of(&mut self, frame: &[u8]) -> Option<[Vec<u8>; 2]> {
        // Every frame passes by.
        if self.up.is_empty() {
            return None;
        }
        let flags = flags(frame)?;
        let answer = Ends::of(frame)?;
        let answered = self.up.iter().position(|syn| asks(syn, answer.to, answer.from))?;
        let syn = self.up.swap_remove(answered);
        if flags & RST != 0 { reset(&syn) } else { None }
    }

    /// libslirp has looked at all its sockets: whatever it had to answer is answered.
    pub(crate) fn turned(&mut self) {
        self.up.clear();
    }

    /// The host's socket that is being connected for this pair, which the stack has given up.
    pub(crate) fn abandon(&mut self, from: SocketAddr, to: SocketAddr) -> Option<RawFd> {
        let of_pair = |attempt: &Attempt| match attempt {
            Attempt::Abandoned | Attempt::Over => false,
            Attempt::UnderWay(syn) => asks(syn, from, to),
        };
        let (&fd, attempt) = self.open.iter_mut().find(|(_, attempt)| of_pair(attempt))?;
        *attempt = Attempt::Abandoned;
        Some(fd)
    }
}

/// Whether a frame asks for a TCP connection.
fn is_syn(frame: &[u8]) -> bool {
    flags(frame) == Some(SYN)
}

/// Whether a SYN is of that pair.
fn asks(syn: &[u8], from: SocketAddr, to: SocketAddr) -> bool {
    Ends::of(syn).is_some_and(|ends| (ends.from, ends.to) == (from, to))
}

/// The flags of a TCP segment. Looks at nothing else: every frame passes by.
pub(crate) fn flags(frame: &[u8]) -> Option<u8> {
    let tcp = match frame.get(12..ETHERNET)? {
        [0x08, 0x00] if frame.get(PROTOCOL_V4) == Some(&TCP) => {
            ETHERNET + usize::from(frame[ETHERNET] & 0xf) * 4
        }
        [0x86, 0xdd] if frame.get(PROTOCOL_V6) == Some(&TCP) => ETHERNET + HEADER_V6,
        _ => return None,
    };
    frame.get(tcp + FLAGS).map(|flags| flags & FLAG_BITS)
}

/// Who a segment is between, and what an answer to a SYN needs of it.
pub(crate) struct Ends {
    macs: ([u8; 6], [u8; 6]),
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    sequence: u32,
}

impl Ends {
    pub(crate) fn of(syn: &[u8]) -> Option<Self> {
        let packet = SlicedPacket::from_ethernet(syn).ok()?;
        let macs = (syn.get(6..12)?.try_into().ok()?, syn.get(..6)?.try_into().ok()?);
        let (from, to): (IpAddr, IpAddr) = match packet.net? {
            NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            _ => return None,
        };
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else { return None };
        Some(Ends {
            macs,
            from: (from, tcp.source_port()).into(),
            to: (to, tcp.destination_port()).into(),
            sequence: tcp.sequence_number(),
        })
    }

    /// The headers of an answer, up to IP.
    fn answer(&self) -> PacketBuilderStep<IpHeaders> {
        let ethernet = PacketBuilder::ethernet2(self.macs.1, self.macs.0);
        match (self.to.ip(), self.from.ip()) {
            (IpAddr::V4(to), IpAddr::V4(from)) => ethernet.ipv4(to.octets(), from.octets(), TTL),
            (to, from) => ethernet.ipv6(v6(to), v6(from), TTL),
        }
    }
}

fn v6(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// A router's word (RFC 792, RFC 4443) that Linux turns into `errno` again (icmp_err_convert in
/// net/ipv4/icmp.c, icmpv6_err_convert() in net/ipv6/icmp.c).
fn unreachable(syn: &[u8], errno: i32) -> Option<Vec<u8>> {
    use icmpv4::DestUnreachableHeader as V4;
    use icmpv6::DestUnreachableCode as V6;
    let ends = Ends::of(syn)?;
    let (v4, v6) = match errno {
        libc::EACCES => (V4::FilterProhibited, V6::Prohibited),
        libc::EHOSTDOWN => (V4::HostUnknown, V6::Address),
        libc::ENETUNREACH => (V4::Network, V6::NoRoute),
        libc::ENONET => (V4::Isolated, V6::Address),
        libc::ENOPROTOOPT => (V4::Protocol, V6::Address),
        libc::EOPNOTSUPP => (V4::SourceRouteFailed, V6::Address),
        // EHOSTUNREACH, and what else may come.
        _ => (V4::Host, V6::Address),
    };
    // The whole packet, as RFC 1812, 4.3.2.3 wants: a SYN is short.
    let packet = syn.get(ETHERNET..)?;
    let mut frame = Vec::new();
    let written = match ends.from {
        SocketAddr::V4(_) => {
            ends.answer().icmpv4(Icmpv4Type::DestinationUnreachable(v4)).write(&mut frame, packet)
        }
        SocketAddr::V6(_) => {
            ends.answer().icmpv6(Icmpv6Type::DestinationUnreachable(v6)).write(&mut frame, packet)
        }
    };
    written.is_ok().then_some(frame)
}

/// Connected, and reset at once.
fn reset(syn: &[u8]) -> Option<[Vec<u8>; 2]> {
    const WINDOW: u16 = 65535;
    let ends = Ends::of(syn)?;
    let mut frames = [Vec::new(), Vec::new()];
    let ack = ends.sequence.wrapping_add(1);
    let segment = |sequence| ends.answer().tcp(ends.to.port(), ends.from.port(), sequence, WINDOW).ack(ack);
    segment(0).syn().write(&mut frames[0], &[]).ok()?;
    segment(1).rst().write(&mut frames[1], &[]).ok()?;
    Some(frames)
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use super::*;

    const FD: RawFd = 7;

    fn syn(v6: bool) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let ip = match v6 {
            true => ethernet.ipv6([6; 16], [8; 16], TTL),
            false => ethernet.ipv4([10, 0, 2, 15], [192, 0, 2, 1], TTL),
        };
        let mut frame = Vec::new();
        ip.tcp(40000, 80, 1000, 9000).syn().write(&mut frame, &[]).unwrap();
        frame
    }

    fn under_way(v6: bool) -> Attempts {
        let mut attempts = Attempts::default();
        attempts.ask(&syn(v6));
        attempts.opened(FD);
        attempts.asked();
        attempts
    }

    fn end(attempts: &mut Attempts, errno: i32) -> (Show, Vec<Vec<u8>>) {
        let mut told = Vec::new();
        let show = attempts.ended(FD, errno, &mut |frame| told.push(frame.to_vec()));
        (show, told)
    }

    #[test]
    fn only_a_socket_opened_for_a_syn_is_noted() {
        let mut attempts = Attempts::default();
        attempts.opened(FD);
        assert!(!attempts.has(FD));
        let mut acknowledged = syn(false);
        acknowledged[ETHERNET + 20 + FLAGS] |= 0x10;
        attempts.ask(&acknowledged);
        attempts.opened(FD);
        assert!(!attempts.has(FD));
        let mut attempts = under_way(false);
        assert!(attempts.has(FD));
        attempts.closed(FD);
        assert!(!attempts.has(FD));
    }

    #[test]
    fn an_error_of_a_router_is_passed_on_with_the_packet_it_is_about() {
        for (v6, errno, kind, code) in [
            (false, libc::EHOSTUNREACH, 3, 1),
            (false, libc::ENETUNREACH, 3, 0),
            (true, libc::EHOSTUNREACH, 1, 3),
            (true, libc::EACCES, 1, 1),
        ] {
            let (show, told) = end(&mut under_way(v6), errno);
            assert_eq!(show, Show::Writable);
            let [frame] = &told[..] else { panic!("{told:?}") };
            assert_eq!(frame[..6], [2; 6], "to whom the SYN came from");
            let icmp = ETHERNET + if v6 { HEADER_V6 } else { 20 };
            assert_eq!(frame[icmp..icmp + 2], [kind, code], "errno {errno}");
            assert_eq!(frame[icmp + 8..], syn(v6)[ETHERNET..]);
        }
    }

    #[test]
    fn a_reset_after_the_handshake_is_no_refusal() {
        let (show, told) = end(&mut under_way(true), libc::ECONNRESET);
        assert_eq!((show, told.len()), (Show::Writable, 2));
        let header = |frame: &[u8]| match SlicedPacket::from_ethernet(frame).unwrap().transport {
            Some(TransportSlice::Tcp(tcp)) => tcp.to_header(),
            other => panic!("{other:?}"),
        };
        let (first, second) = (header(&told[0]), header(&told[1]));
        assert!(first.syn && first.ack && first.acknowledgment_number == 1001);
        assert!(second.rst && second.sequence_number == first.sequence_number.wrapping_add(1));
    }

    #[test]
    fn a_reset_between_our_look_and_libslirps_is_no_refusal() {
        let answer = |flags: u8| {
            let ends = Ends::of(&syn(false)).unwrap();
            let segment = ends.answer().tcp(ends.to.port(), ends.from.port(), 0, 0).ack(1001);
            let segment = if flags == RST { segment.rst() } else { segment.syn() };
            let mut frame = Vec::new();
            segment.write(&mut frame, &[]).unwrap();
            frame
        };
        let mut attempts = under_way(false);
        assert_eq!(end(&mut attempts, 0), (Show::Everything, vec![]));
        assert_eq!(attempts.instead_of(&syn(true)), None, "another's frame");
        assert_eq!(attempts.instead_of(&answer(RST)), reset(&syn(false)));
        assert_eq!(attempts.instead_of(&answer(RST)), None, "told once");

        // What is accepted may be reset afterwards like any other.
        let mut accepted = under_way(false);
        end(&mut accepted, 0);
        assert_eq!(accepted.instead_of(&answer(SYN)), None);
        assert_eq!(accepted.instead_of(&answer(RST)), None);

        let mut turned = under_way(false);
        end(&mut turned, 0);
        turned.turned();
        assert_eq!(turned.instead_of(&answer(RST)), None);
    }

    #[test]
    fn what_libslirp_knows_or_time_tells_makes_no_frame() {
        assert_eq!(end(&mut under_way(false), 0), (Show::Everything, vec![]));
        assert_eq!(end(&mut under_way(false), libc::ECONNREFUSED), (Show::Writable, vec![]));
        let mut silent = under_way(false);
        assert_eq!(end(&mut silent, libc::ETIMEDOUT), (Show::Nothing, vec![]));
        assert_eq!(silent.over(), [FD]);
    }

    #[test]
    fn an_abandoned_attempt_is_found_by_its_ends_and_ends_without_a_frame() {
        let mut attempts = under_way(false);
        let (from, to) = ("10.0.2.15:40000".parse().unwrap(), "192.0.2.1:80".parse().unwrap());
        assert_eq!(attempts.abandon(to, from), None);
        assert_eq!(attempts.abandon(from, to), Some(FD));
        assert_eq!(attempts.abandon(from, to), None);
        assert_eq!(end(&mut attempts, libc::ECONNRESET), (Show::Writable, vec![]));
    }
}
