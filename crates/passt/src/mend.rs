//! What passt of 2023 does wrongly with a segment, put right; with several of them, see [`batches`](crate::batches).
//!
//! While a connection is being opened: it answers a refused connection with a reset that acknowledges the guest's SYN by its number, but
//! not by its flag. Whoever has sent a SYN ignores such a reset (RFC 9293, 3.10.7.3), and would wait two
//! minutes for an answer: here it gets the flag. But not the reset by which passt gives a silent far side
//! up, after ten seconds: there the stack's own patience decides, and its next SYN is another attempt.
//!
//! And it resets the connection when the SYN is repeated, though its own socket is still on the way: no
//! server more than a second away could be reached. The host's kernel repeats for both: passt is told once.
//!
//! And it takes the last address that a frame came from for the guest's only one: after the stack has
//! looked for its neighbours by another, everything from the far sides of IPv6 would go there.

use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use crate::batches::{Batches, Kind};

const ETHERNET: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const TCP: u8 = 6;
const FIN: u8 = 1;
const SYN: u8 = 1 << 1;
const RST: u8 = 1 << 2;
const ACK: u8 = 1 << 4;

/// Into the header of a TCP segment, in bytes.
const PORTS: usize = 0;
const NUMBER: usize = 4;
const ACKNOWLEDGED: usize = 8;
const FLAGS: usize = 13;
const CHECKSUM: usize = 16;

/// Whether a frame, whose headers are in `start`, comes from no address of IPv6 or a link-local one: the
/// stack looks for routers, listeners and namesakes, which there are none of on this link.
fn misleads(start: &[u8]) -> bool {
    let source = |bytes: &[u8]| bytes.try_into().map(|bytes: [u8; 16]| Ipv6Addr::from(bytes));
    start.get(12..14) == Some(&IPV6[..])
        && start
            .get(22..38)
            .and_then(|bytes| source(bytes).ok())
            .is_some_and(|source| source.is_unspecified() || source.is_unicast_link_local())
}

/// A part of a packet, which passt of every version takes for a whole one: of IPv4 (RFC 791, 3.1), or of IPv6 (RFC 8200, 4.5).
pub(crate) fn is_fragment(frame: &[u8]) -> bool {
    const MORE_OR_OFFSET: u16 = 0x3fff;
    const FRAGMENT: u8 = 44;
    let Some((ethernet, packet)) = frame.split_at_checked(ETHERNET) else { return false };
    match [ethernet[12], ethernet[13]] {
        IPV4 => packet.len() >= 8 && u16_at(packet, 6) & MORE_OR_OFFSET != 0,
        IPV6 => packet.get(6) == Some(&FRAGMENT),
        _ => false,
    }
}

/// Less than passt's own patience with a far side (`SYN_TIMEOUT`, in seconds).
const PATIENCE: Duration = Duration::from_secs(9);
/// Old attempts are looked for this often at most.
const SWEEP: Duration = Duration::from_secs(1);
/// As many attempts are remembered before old ones are forgotten. One that is unknown is mended.
const MOST: usize = 4096;

/// What the connections of a passt are up to.
#[derive(Debug)]
pub(crate) struct Mend {
    attempts: Attempts,
    pub(crate) batches: Batches,
}

/// What becomes of a frame for passt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fate {
    Goes,
    /// Once passt has read what it was sent.
    Waits(Peers),
    /// passt is better off without it.
    Stays,
}

/// Address of the far side, its port and the stack's.
pub(crate) type Peers = ([u8; 16], u16, u16);

impl Mend {
    pub(crate) fn new() -> Self {
        Mend { attempts: Attempts::default(), batches: Batches::new() }
    }

    /// A frame for passt, whose headers are in `start`.
    pub(crate) fn sends(&mut self, start: &[u8]) -> Fate {
        if misleads(start) {
            return Fate::Stays;
        }
        let Some(Segment { ends: (_, to), offset }) = segment(start) else { return Fate::Goes };
        let tcp = &start[offset..];
        let peers = (to, u16_at(tcp, PORTS + 2), u16_at(tcp, PORTS));
        if !self.attempts.sends(peers, tcp) {
            return Fate::Stays;
        }
        if self.batches.must_wait(peers, kind(tcp)) { Fate::Waits(peers) } else { Fate::Goes }
    }

    /// A frame came from passt.
    pub(crate) fn received(&mut self, frame: &mut [u8]) {
        let Some(Segment { ends: (from, _), offset }) = segment(frame) else { return };
        let tcp = &mut frame[offset..];
        if tcp[FLAGS] & (RST | SYN) != 0 {
            let peers = (from, u16_at(tcp, PORTS), u16_at(tcp, PORTS + 2));
            self.batches.received(&peers, kind(tcp));
            self.attempts.received(&peers, tcp);
        }
    }
}

fn kind(tcp: &[u8]) -> Kind {
    match tcp[FLAGS] {
        flags if flags & RST != 0 => Kind::Resets,
        flags if flags & SYN != 0 => Kind::Opens,
        flags if flags & FIN != 0 => Kind::Closes,
        _ => Kind::Continues,
    }
}

/// The attempts under way.
#[derive(Debug, Default)]
struct Attempts {
    known: HashMap<Peers, Attempt>,
    /// When old ones were forgotten last.
    swept: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Attempt {
    number: u32,
    since: Instant,
}

impl Attempts {
    /// A segment for passt: whether it is to be sent.
    fn sends(&mut self, peers: Peers, tcp: &[u8]) -> bool {
        if tcp[FLAGS] & RST != 0 {
            self.known.remove(&peers);
            return true;
        }
        if tcp[FLAGS] & (SYN | ACK) != SYN {
            return true;
        }
        let now = Instant::now();
        if self.known.len() >= MOST && self.swept.is_none_or(|swept| now - swept >= SWEEP) {
            self.known.retain(|_, attempt| now - attempt.since < PATIENCE);
            self.swept = Some(now);
        }
        let number = u32_at(tcp, NUMBER);
        let under_way = |old: &Attempt| old.number == number && now - old.since < PATIENCE;
        if self.known.get(&peers).is_some_and(under_way) {
            return false;
        }
        if self.known.len() < MOST {
            self.known.insert(peers, Attempt { number, since: now });
        }
        true
    }

    /// A segment from passt that decides an attempt.
    fn received(&mut self, peers: &Peers, tcp: &mut [u8]) {
        let attempt = self.known.remove(peers);
        let unmarked = tcp[FLAGS] & (RST | ACK) == RST && u32_at(tcp, ACKNOWLEDGED) != 0;
        if unmarked && attempt.is_none_or(|attempt| attempt.since.elapsed() < PATIENCE) {
            mark(tcp);
        }
    }
}

/// Sets the flag. The checksum, a complement, changes by the difference (RFC 1624); the flags are the low
/// byte of their word.
fn mark(tcp: &mut [u8]) {
    tcp[FLAGS] |= ACK;
    let (changed, borrow) = u16_at(tcp, CHECKSUM).overflowing_sub(u16::from(ACK));
    let mended = changed.wrapping_sub(u16::from(borrow));
    tcp[CHECKSUM..CHECKSUM + 2].copy_from_slice(&mended.to_be_bytes());
}

/// A TCP segment in a frame, with its whole header.
struct Segment {
    /// Source and destination; the last four bytes are an IPv4 address.
    ends: ([u8; 16], [u8; 16]),
    offset: usize,
}

fn segment(frame: &[u8]) -> Option<Segment> {
    let (ethernet, packet) = frame.split_at_checked(ETHERNET)?;
    let (source, width, length) = match [ethernet[12], ethernet[13]] {
        IPV4 if *packet.get(9)? == TCP => (12, 4, usize::from(packet[0] & 0x0f) * 4),
        IPV6 if *packet.get(6)? == TCP => (8, 16, 40),
        _ => return None,
    };
    let address = |start: usize| {
        let mut address = [0; 16];
        address[16 - width..].copy_from_slice(packet.get(start..start + width)?);
        Some(address)
    };
    let ends = (address(source)?, address(source + width)?);
    (packet.len() > length + CHECKSUM + 1).then_some(Segment { ends, offset: ETHERNET + length })
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, PacketBuilderStep, SlicedPacket, TcpHeader, TransportSlice};
    use proptest::prelude::*;

    use super::*;

    impl Mend {
        fn goes(&mut self, frame: &[u8]) -> bool {
            self.sends(frame) != Fate::Stays
        }
    }

    type Step = PacketBuilderStep<etherparse::IpHeaders>;

    fn reset(frame: &mut [u8]) {
        Mend::new().received(frame);
    }

    fn packets() -> [Step; 2] {
        let ethernet = || PacketBuilder::ethernet2([2; 6], [4; 6]);
        [ethernet().ipv4([192, 0, 2, 10], [10, 0, 2, 15], 255), ethernet().ipv6([0x20; 16], [0xfd; 16], 255)]
    }

    fn frame(packet: Step, number: u32, acknowledged: u32, flags: u8) -> Vec<u8> {
        let mut header = TcpHeader::new(99, 40_000, number, 65_535);
        header.acknowledgment_number = acknowledged;
        (header.rst, header.ack, header.syn) = (flags & RST != 0, flags & ACK != 0, flags & 2 != 0);
        let mut frame = Vec::new();
        packet.tcp_header(header).write(&mut frame, &[]).unwrap();
        frame
    }

    /// The header, once its checksum is right.
    fn tcp(frame: &[u8]) -> TcpHeader {
        let packet = SlicedPacket::from_ethernet(frame).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else { panic!("not TCP") };
        let header = tcp.to_header();
        let sum = match packet.net.unwrap() {
            etherparse::NetSlice::Ipv4(ip) => header.calc_checksum_ipv4(&ip.header().to_header(), &[]),
            etherparse::NetSlice::Ipv6(ip) => header.calc_checksum_ipv6(&ip.header().to_header(), &[]),
            _ => panic!("not IP"),
        };
        assert_eq!(header.checksum, sum.unwrap());
        header
    }

    proptest! {
        #[test]
        fn a_reset_that_acknowledges_a_syn_says_so(number: u32, acknowledged in 1_u32..) {
            for packet in packets() {
                let mut frame = frame(packet, number, acknowledged, RST);
                reset(&mut frame);
                let header = tcp(&frame);
                prop_assert!(header.rst && header.ack);
                prop_assert_eq!(header.acknowledgment_number, acknowledged);
            }
        }

        #[test]
        fn any_bytes_are_taken(mut bytes in proptest::collection::vec(any::<u8>(), 0..100), kind in 0..3) {
            if bytes.len() > 14 && kind > 0 {
                bytes[12..14].copy_from_slice(if kind == 1 { &IPV4 } else { &IPV6 });
            }
            Mend::new().goes(&bytes);
            reset(&mut bytes);
        }
    }

    /// What the stack sends to where [`packets`] come from.
    fn syns(number: u32) -> [Vec<u8>; 2] {
        let ethernet = || PacketBuilder::ethernet2([4; 6], [2; 6]);
        let packets = [
            ethernet().ipv4([10, 0, 2, 15], [192, 0, 2, 10], 64),
            ethernet().ipv6([0xfd; 16], [0x20; 16], 64),
        ];
        packets.map(|packet| {
            let mut frame = Vec::new();
            packet.tcp(40_000, 99, number, 65_535).syn().write(&mut frame, &[]).unwrap();
            frame
        })
    }

    #[test]
    fn the_reset_that_gives_a_silent_far_side_up_is_left_alone() {
        for (syn, packet) in syns(6).into_iter().zip(packets()) {
            let given_up = frame(packet, 5, 7, RST);
            let mut mend = Mend::new();
            assert!(mend.goes(&syn));
            mend.attempts.known.values_mut().for_each(|attempt| attempt.since -= PATIENCE);
            let mut seen = given_up.clone();
            mend.received(&mut seen);
            assert_eq!(seen, given_up);
            // The next SYN is another attempt.
            assert!(mend.goes(&syn));
            mend.received(&mut seen);
            assert!(tcp(&seen).ack);
            assert!(mend.attempts.known.is_empty());
        }
    }

    #[test]
    fn a_syn_is_sent_once_while_its_attempt_is_under_way() {
        for (syn, other) in syns(6).into_iter().zip(syns(7)) {
            let mut mend = Mend::new();
            let sent = [&syn, &syn, &other, &other, &syn].map(|frame| mend.goes(frame));
            assert_eq!(sent, [true, false, true, false, true]);
            mend.attempts.known.values_mut().for_each(|attempt| attempt.since -= PATIENCE);
            assert!(mend.goes(&syn));
        }
        for packet in packets() {
            let established = frame(packet, 5, 7, ACK);
            let mut mend = Mend::new();
            assert!(mend.goes(&established) && mend.goes(&established));
        }
    }

    #[test]
    fn an_attempt_that_the_stack_resets_is_under_way_no_more() {
        for syn in syns(6) {
            let mut reset = syn.clone();
            let flags = segment(&reset).unwrap().offset + FLAGS;
            reset[flags] = RST;
            let mut mend = Mend::new();
            assert!(mend.goes(&syn) && !mend.goes(&syn));
            assert!(mend.goes(&reset) && mend.goes(&syn));
        }
    }

    #[test]
    fn a_segment_waits_for_one_that_must_be_alone() {
        for [syn, reset] in syns(6).map(|syn| {
            let mut reset = syn.clone();
            reset[segment(&syn).unwrap().offset + FLAGS] = RST | ACK;
            [syn, reset]
        }) {
            let mut mend = Mend::new();
            assert_eq!(mend.sends(&syn), Fate::Goes);
            assert!(matches!(mend.sends(&reset), Fate::Waits((_, 99, 40_000))));
        }
    }

    #[test]
    fn a_fragment_is_one() {
        for mut whole in packets().map(|packet| frame(packet, 5, 7, ACK)) {
            assert!(!is_fragment(&whole));
            // IPv4's flags and IPv6's next header stand in the same place.
            whole[ETHERNET + 6] = if whole[12..14] == IPV4 { 0x20 } else { 44 };
            assert!(is_fragment(&whole));
        }
        assert!(!is_fragment(&[0x08; 13]) && !is_fragment(&[0x08; 15]));
    }

    #[test]
    fn only_sources_that_are_not_the_guests_mislead() {
        let from = |source: &str| {
            let source: Ipv6Addr = source.parse().unwrap();
            let mut frame = Vec::new();
            let packet = PacketBuilder::ethernet2([4; 6], [2; 6]).ipv6(source.octets(), [0xff; 16], 255);
            packet.icmpv6_raw(133, 0, [0; 4]).write(&mut frame, &[]).unwrap();
            misleads(&frame)
        };
        assert!(from("fe80::5054:ff:fe6e:7315") && from("febf::1") && from("::"));
        assert!(!from("fd6e:7368:756e::15") && !from("fec0::1"));
        assert!(!syns(1).iter().any(|frame| misleads(frame)) && !misleads(&[0xfe; 37]));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut mend = Mend::new();
        let [mut syn, _] = syns(6);
        for port in 0..=u16::MAX {
            syn[ETHERNET + 20..ETHERNET + 22].copy_from_slice(&port.to_be_bytes());
            mend.goes(&syn);
        }
        assert_eq!(mend.attempts.known.len(), MOST);
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        for (acknowledged, flags) in [(0, RST), (7, RST | ACK), (7, ACK), (7, 2), (7, 2 | ACK)] {
            for packet in packets() {
                let before = frame(packet, 5, acknowledged, flags);
                let mut after = before.clone();
                reset(&mut after);
                assert_eq!(before, after);
            }
        }
    }
}
