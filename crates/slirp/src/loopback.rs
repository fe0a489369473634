//! Datagrams of the host's own loopback at published ports.
//!
//! libslirp 4.7 shows them as the gateway's only as long as nobody else has been answered from the port: what it looks at
//! is whom its socket spoke to last (sotranslate_in() in src/socket.c). Later they would come from 127.0.0.1 or ::1, which
//! the stack takes from no wire.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use crate::plan::{GATEWAY, GATEWAY_V6};

const ETHERNET: usize = 14;
const UDP: u8 = 17;
/// Where its checksum is in UDP's header.
const CHECKSUM: usize = 6;

/// Where things are in a frame.
struct Places {
    source: usize,
    /// The checksum of the header of IPv4.
    header: Option<usize>,
    /// UDP's.
    datagram: Option<usize>,
}

/// A frame for the stack: what comes from the host's loopback comes from the gateway.
pub(crate) fn as_gateways(frame: &[u8]) -> Cow<'_, [u8]> {
    match places(frame) {
        Some((places, gateway)) => Cow::Owned(renamed(frame.to_vec(), &places, gateway)),
        None => Cow::Borrowed(frame),
    }
}

fn places(frame: &[u8]) -> Option<(Places, &'static [u8])> {
    const V4: &[u8] = &GATEWAY.octets();
    const V6: &[u8] = &GATEWAY_V6.octets();
    let packet = frame.get(ETHERNET..)?;
    match frame[ETHERNET - 2..ETHERNET] {
        [0x08, 0x00] if *packet.get(9)? == UDP && packet.get(12..16)?[0] == 127 => {
            let header = usize::from(packet[0] & 0xf) * 4;
            // Only the first fragment has UDP's header.
            let first = packet[6] & 0x1f == 0 && packet[7] == 0;
            let datagram = first.then_some(ETHERNET + header + CHECKSUM);
            Some((Places { source: ETHERNET + 12, header: Some(ETHERNET + 10), datagram }, V4))
        }
        [0x86, 0xdd] if *packet.get(6)? == UDP && packet.get(8..24)? == Ipv6Addr::LOCALHOST.octets() => {
            let datagram = Some(ETHERNET + 40 + CHECKSUM);
            Some((Places { source: ETHERNET + 8, header: None, datagram }, V6))
        }
        _ => None,
    }
}

fn renamed(mut frame: Vec<u8>, places: &Places, name: &[u8]) -> Vec<u8> {
    let old = frame[places.source..][..name.len()].to_vec();
    frame[places.source..][..name.len()].copy_from_slice(name);
    let mut adjust = |at: Option<usize>, none: Option<[u8; 2]>| {
        let sum =
            at.and_then(|at| frame.get_mut(at..at + 2)).filter(|sum| none.is_none_or(|none| **sum != none));
        if let Some(sum) = sum {
            let new = adjusted(u16::from_be_bytes([sum[0], sum[1]]), &old, name);
            sum.copy_from_slice(&new.to_be_bytes());
        }
    };
    adjust(places.header, None);
    // 0 is none (RFC 768).
    adjust(places.datagram, Some([0, 0]));
    frame
}

/// A checksum when one part of what it covers is another (RFC 1624, 3).
fn adjusted(sum: u16, old: &[u8], new: &[u8]) -> u16 {
    let words = |bytes: &[u8], flip: u16| -> u32 {
        bytes.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]) ^ flip)).sum()
    };
    let mut total = u32::from(!sum) + words(old, u16::MAX) + words(new, 0);
    while total > u32::from(u16::MAX) {
        total = (total & 0xffff) + (total >> 16);
    }
    // Of UDP's 0 would be none; of an IP header the two mean the same.
    match !(total as u16) {
        0 => u16::MAX,
        sum => sum,
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use etherparse::PacketBuilder;

    use super::*;

    fn datagram(from: IpAddr, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let ip = match from {
            IpAddr::V4(from) => ethernet.ipv4(from.octets(), [10, 0, 2, 15], 64),
            IpAddr::V6(from) => ethernet.ipv6(from.octets(), [0xfd; 16], 64),
        };
        ip.udp(40000, 80).write(&mut frame, payload).unwrap();
        frame
    }

    #[test]
    fn the_loopback_is_shown_as_the_gateway_with_right_checksums() {
        for length in 0..300u16 {
            let payload: Vec<u8> = (0..length).map(|n| (n * 7) as u8).collect();
            for (loopback, gateway) in [
                (Ipv4Addr::LOCALHOST.into(), GATEWAY.into()),
                (Ipv4Addr::new(127, 8, 7, 6).into(), GATEWAY.into()),
                (IpAddr::from(Ipv6Addr::LOCALHOST), IpAddr::from(GATEWAY_V6)),
            ] {
                let (from, to) = (datagram(loopback, &payload), datagram(gateway, &payload));
                assert_eq!(*as_gateways(&from), to, "{loopback} {length}");
            }
        }
    }

    #[test]
    fn other_frames_stay_as_they_are() {
        for from in ["192.0.2.1", "10.0.2.2", "2001:db8::1", "fd00::2"] {
            let frame = datagram(from.parse().unwrap(), b"x");
            for length in 0..=frame.len() {
                assert!(matches!(as_gateways(&frame[..length]), Cow::Borrowed(_)), "{from} {length}");
            }
        }
    }

    #[test]
    fn no_frame_is_too_short() {
        for from in ["127.0.0.1", "::1"] {
            let frame = datagram(from.parse().unwrap(), b"x");
            for length in 0..frame.len() {
                assert_eq!(as_gateways(&frame[..length]).len(), length);
            }
        }
    }
}
