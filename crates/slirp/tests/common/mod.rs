//! A guest made of frames: the other end of a real link, driven by the test's own thread.
#![allow(dead_code, reason = "every test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TcpHeader, TcpSlice, TransportSlice};
use netshunt_backend::{Link, Sent, Settings};
use netshunt_slirp::{Slirp, SlirpLink};

pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
pub(crate) const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x15);
pub(crate) const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
pub(crate) const BROADCAST_MAC: [u8; 6] = [0xff; 6];

/// libslirp allows one instance in a process, a test runner many tests.
static TURNS: Mutex<()> = Mutex::new(());

/// The right to have a link, which lasts until the test and its wires have let go of it.
pub(crate) type Alone = Rc<MutexGuard<'static, ()>>;

/// Waits until no other test of this process has a link.
pub(crate) fn alone() -> Alone {
    Rc::new(TURNS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// An open link and its guest.
pub(crate) struct Wire {
    pub(crate) link: SlirpLink,
    pub(crate) mac: [u8; 6],
    /// After the link, which is closed first.
    _alone: Alone,
}

impl Wire {
    pub(crate) fn open(alone: &Alone) -> Wire {
        Wire::with(alone, &Settings::default())
    }

    pub(crate) fn with(alone: &Alone, settings: &Settings) -> Wire {
        let link = Slirp::new(settings).unwrap().link().unwrap();
        let mac = link.network().mac;
        Wire { link, mac, _alone: Rc::clone(alone) }
    }

    /// Sends a frame in two pieces, as a stack with separate headers does.
    pub(crate) fn send(&mut self, frame: &[u8]) {
        let (head, tail) = frame.split_at(frame.len() / 2);
        assert_eq!(self.link.send(&[IoSlice::new(head), IoSlice::new(tail)]), Sent::Taken);
    }

    /// The frames that have arrived; if none, those of one turn, which waits up to 20 ms.
    pub(crate) fn turn(&mut self) -> Vec<Vec<u8>> {
        let frames = self.receive();
        if !frames.is_empty() {
            return frames;
        }
        let mut fds = Vec::new();
        let now = Instant::now();
        let wait = self.link.interests(now, &mut fds).map_or(DEADLINE, |due| due.duration_since(now));
        poll(&mut fds, wait.min(Duration::from_millis(20)));
        let _ = self.link.turn(Instant::now(), &fds).unwrap();
        self.receive()
    }

    fn receive(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let any = self.link.receive(&mut |frame| frames.push(frame.to_vec()));
        assert_eq!(any, !frames.is_empty());
        frames
    }

    /// Takes turns until `wanted` makes something of a frame.
    pub(crate) fn expect<T>(&mut self, what: &str, mut wanted: impl FnMut(&[u8]) -> Option<T>) -> T {
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end {
            for frame in self.turn() {
                if let Some(found) = wanted(&frame) {
                    return found;
                }
            }
        }
        panic!("no {what} within {DEADLINE:?}; {:?}", self.link);
    }

    /// Takes turns until `done`.
    pub(crate) fn until<T>(&mut self, what: &str, mut done: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end {
            if let Some(result) = done() {
                return result;
            }
            self.turn();
        }
        panic!("no {what} within {DEADLINE:?}; {:?}", self.link);
    }

    /// Asks for the gateways' Ethernet addresses, as any stack does first; libslirp learns ours.
    pub(crate) fn introduce(&mut self) {
        self.send(&arp_request(self.mac, GUEST, GATEWAY));
        self.expect("ARP reply", |frame| arp_reply(frame, GATEWAY));
        self.send(&neighbour_solicitation(self.mac, GUEST_V6, GATEWAY_V6));
        self.expect("neighbour advertisement", |frame| neighbour_advertisement(frame, GATEWAY_V6));
    }
}

/// poll(2), counting a signal as no descriptor ready.
pub(crate) fn poll(fds: &mut [netshunt_backend::PollFd], wait: Duration) {
    let wait = i32::try_from(wait.as_millis()).unwrap();
    // SAFETY: `fds` is a whole slice of initialised pollfds, exclusively ours for the call.
    let ready = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, wait) };
    assert!(ready >= 0 || io::Error::last_os_error().kind() == io::ErrorKind::Interrupted);
}

/// RFC 826: who has `target`? Tell `from`.
pub(crate) fn arp_request(mac: [u8; 6], from: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST_MAC, mac, 0x0806);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(from.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

/// The Ethernet address of `of`, if the frame is an ARP reply that tells it.
pub(crate) fn arp_reply(frame: &[u8], of: Ipv4Addr) -> Option<[u8; 6]> {
    let arp = frame.get(14..42)?;
    let reply = frame[12..14] == [8, 6] && arp[..8] == [0, 1, 8, 0, 6, 4, 0, 2];
    (reply && arp[14..18] == of.octets()).then(|| arp[8..14].try_into().unwrap())
}

/// RFC 4861, section 4.3.
pub(crate) fn neighbour_solicitation(mac: [u8; 6], from: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let low = &target.octets()[13..];
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, low[0], low[1], low[2]]);
    let to = [0x33, 0x33, 0xff, low[0], low[1], low[2]];
    let mut body = target.octets().to_vec();
    body.extend([1, 1]);
    body.extend(mac);
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(mac, to)
        .ipv6(from.octets(), group.octets(), 255)
        .icmpv6_raw(135, 0, [0; 4])
        .write(&mut frame, &body)
        .unwrap();
    frame
}

/// The Ethernet address of `of`, if the frame is a neighbour advertisement that tells it.
pub(crate) fn neighbour_advertisement(frame: &[u8], of: Ipv6Addr) -> Option<[u8; 6]> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else { return None };
    let body = icmp.slice();
    let advertisement = icmp.type_u8() == 136 && body.get(8..24)? == of.octets();
    (advertisement && body.get(24..26)? == [2, 1]).then(|| body[26..32].try_into().unwrap())
}

/// An Ethernet header.
pub(crate) fn ethernet(to: [u8; 6], from: [u8; 6], kind: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(64);
    frame.extend(to);
    frame.extend(from);
    frame.extend(kind.to_be_bytes());
    frame
}

/// A UDP frame of the guest.
pub(crate) fn udp(mac: [u8; 6], to: IpAddr, from_port: u16, port: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let ethernet = PacketBuilder::ethernet2(mac, router(to));
    let ip = match to {
        IpAddr::V4(to) => ethernet.ipv4(GUEST.octets(), to.octets(), 64),
        IpAddr::V6(to) => ethernet.ipv6(GUEST_V6.octets(), to.octets(), 64),
    };
    ip.udp(from_port, port).write(&mut frame, payload).unwrap();
    frame
}

/// A TCP frame of the guest.
pub(crate) fn tcp(mac: [u8; 6], to: IpAddr, header: TcpHeader, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let ethernet = PacketBuilder::ethernet2(mac, router(to));
    let ip = match to {
        IpAddr::V4(to) => ethernet.ipv4(GUEST.octets(), to.octets(), 64),
        IpAddr::V6(to) => ethernet.ipv6(GUEST_V6.octets(), to.octets(), 64),
    };
    ip.tcp_header(header).write(&mut frame, payload).unwrap();
    frame
}

/// libslirp's own Ethernet addresses: a prefix and the gateway's IPv4, or 52:56 for IPv6.
fn router(to: IpAddr) -> [u8; 6] {
    if to.is_ipv4() { [0x52, 0x55, 10, 0, 2, 2] } else { [0x52, 0x56, 0, 0, 0, 2] }
}

/// A segment of the flow to the guest's `port`. Its checksum must be right.
pub(crate) fn segment(frame: &[u8], port: u16) -> Option<(TcpHeader, Vec<u8>)> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(TransportSlice::Tcp(tcp)) = packet.transport else { return None };
    if tcp.destination_port() != port {
        return None;
    }
    let (header, payload) = (TcpSlice::to_header(&tcp), tcp.payload().to_vec());
    let checksum = match packet.net {
        Some(NetSlice::Ipv4(ip)) => header.calc_checksum_ipv4(&ip.header().to_header(), &payload),
        Some(NetSlice::Ipv6(ip)) => header.calc_checksum_ipv6(&ip.header().to_header(), &payload),
        _ => return None,
    };
    assert_eq!(header.checksum, checksum.unwrap(), "libslirp's checksum");
    Some((header, payload))
}

/// How many descriptors this process has open.
pub(crate) fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
