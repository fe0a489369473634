//! The first frames: who answers for the routers? Whoever does works.

use std::net::Ipv6Addr;

use netshunt_backend::{Network, V4, V6};

/// A round follows the answer to the one before. passt may read two frames at once and answer them in
/// an order of its own, but not three rounds: what has not answered once when another has three times
/// will not.
const ROUNDS: u8 = 3;

/// Which families have answered so far, and how often.
#[derive(Debug, Default)]
pub(crate) struct Hello {
    v4: u8,
    v6: u8,
}

impl Hello {
    /// The frames of one round.
    pub(crate) fn round(network: &Network) -> Vec<Vec<u8>> {
        let v4 = network.v4.as_ref().map(|v4| arp_request(network.mac, v4));
        let v6 = network.v6.as_ref().map(|v6| neighbour_solicitation(network.mac, v6));
        v4.into_iter().chain(v6).collect()
    }

    /// Takes a frame; whether it was an answer.
    pub(crate) fn take(&mut self, frame: &[u8], network: &Network) -> bool {
        if network.v4.is_some_and(|v4| is_arp_reply(frame, &v4)) {
            self.v4 = self.v4.saturating_add(1);
            return true;
        }
        if network.v6.is_some_and(|v6| is_advertisement(frame, &v6)) {
            self.v6 = self.v6.saturating_add(1);
            return true;
        }
        false
    }

    /// Which families work, once that is known: IPv4, IPv6.
    pub(crate) fn settled(&self, network: &Network) -> Option<(bool, bool)> {
        let missing = (network.v4.is_some() && self.v4 == 0) || (network.v6.is_some() && self.v6 == 0);
        let certain = !missing || self.v4.max(self.v6) >= ROUNDS;
        certain.then_some((self.v4 > 0, self.v6 > 0))
    }
}

const ARP: [u8; 2] = [8, 6];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ICMPV6: u8 = 58;

/// RFC 826: who has the router's address?
fn arp_request(mac: [u8; 6], v4: &V4) -> Vec<u8> {
    let mut frame = [&[0xff; 6][..], &mac, &ARP, &[0, 1, 8, 0, 6, 4, 0, 1], &mac].concat();
    frame.extend(v4.address.addr().octets());
    frame.extend([0; 6]);
    frame.extend(v4.gateway.octets());
    frame
}

fn is_arp_reply(frame: &[u8], v4: &V4) -> bool {
    let head = [&ARP[..], &[0, 1, 8, 0, 6, 4, 0, 2]].concat();
    frame.get(12..22) == Some(&head) && frame.get(28..32) == Some(&v4.gateway.octets())
}

/// RFC 4861, section 4.3, with our Ethernet address.
fn neighbour_solicitation(mac: [u8; 6], v6: &V6) -> Vec<u8> {
    let target = v6.gateway.octets();
    let low = [target[13], target[14], target[15]];
    // The solicited-node address (RFC 4291, section 2.7.1).
    let group = [&[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff][..], &low].concat();
    let source = v6.address.addr().octets();
    let mut message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target, &[1, 1], &mac].concat();
    let length = message.len() as u8;
    let pseudo = [&source[..], &group, &[0, 0, 0, length, 0, 0, 0, ICMPV6]].concat();
    let checksum = checksum(&[&pseudo[..], &message].concat());
    message[2..4].copy_from_slice(&checksum);
    let ethernet = [&[0x33, 0x33, 0xff][..], &low, &mac, &IPV6].concat();
    let ip = [&[0x60, 0, 0, 0, 0, length, ICMPV6, 255][..], &source, &group].concat();
    [ethernet, ip, message].concat()
}

fn is_advertisement(frame: &[u8], v6: &V6) -> bool {
    let target = frame.get(62..78).and_then(|octets| <[u8; 16]>::try_from(octets).ok());
    frame.get(12..14) == Some(&IPV6)
        && frame.get(20) == Some(&ICMPV6)
        && frame.get(54) == Some(&136)
        && target.map(Ipv6Addr::from) == Some(v6.gateway)
}

/// RFC 1071, over an even number of bytes.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let sum: u32 = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;
    use crate::plan::own;

    /// What a router would answer.
    fn answers(network: &Network) -> [Vec<u8>; 2] {
        let [mut v4, mut v6]: [Vec<u8>; 2] = Hello::round(network).try_into().unwrap();
        v4[21] = 2;
        v4.copy_within(38..42, 28);
        v6[54] = 136;
        [v4, v6]
    }

    #[test]
    fn the_solicitation_is_well_formed() {
        let network = own(1500, true);
        let frame = Hello::round(&network).pop().unwrap();
        let packet = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(NetSlice::Ipv6(ip)) = packet.net else { panic!("{packet:?}") };
        let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else { panic!("no ICMPv6") };
        assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
        assert_eq!(ip.header().destination_addr().to_string(), "ff02::1:ff00:2");
    }

    #[test]
    fn both_answers_settle_it() {
        let network = own(1500, true);
        let [v4, v6] = answers(&network);
        let mut hello = Hello::default();
        assert_eq!(hello.settled(&network), None);
        assert!(hello.take(&v6, &network));
        assert_eq!(hello.settled(&network), None);
        assert!(hello.take(&v4, &network));
        assert_eq!(hello.settled(&network), Some((true, true)));
    }

    #[test]
    fn a_family_that_is_silent_for_three_rounds_is_not_there() {
        let network = own(1500, true);
        let [v4, _] = answers(&network);
        let mut hello = Hello::default();
        (0..2).for_each(|_| assert!(hello.take(&v4, &network) && hello.settled(&network).is_none()));
        assert!(hello.take(&v4, &network));
        assert_eq!(hello.settled(&network), Some((true, false)));
        let only = own(1500, false);
        let mut hello = Hello::default();
        assert!(hello.take(&v4, &only));
        assert_eq!(hello.settled(&only), Some((true, false)));
    }

    #[test]
    fn other_frames_are_no_answers() {
        let network = own(1500, true);
        let [v4, v6] = answers(&network);
        for frame in Hello::round(&network).iter().chain([&v4[..31].to_vec(), &v6[..77].to_vec(), &vec![]]) {
            assert!(!Hello::default().take(frame, &network), "{frame:x?}");
        }
    }
}
