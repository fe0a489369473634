//! Frames of libslirp's, whatever they are: no datagram comes from the loopback, and the rest stays as it is.

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use netshunt_fuzz::{Input, fuzz};

use super::*;

fn written(input: &mut Input<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let ip = match input.one_in(2) {
        true => {
            let mut from = [0; 16];
            from[15] = 1;
            from[if input.one_in(4) { 0 } else { 1 }] ^= u8::from(input.one_in(4));
            ethernet.ipv6(from, [0xfd; 16], 64)
        }
        false => {
            ethernet.ipv4([*input.pick(&[127, 127, 10]), input.byte(), input.byte(), 1], [10, 0, 2, 15], 64)
        }
    };
    let data = input.bytes(60);
    match input.one_in(5) {
        true => ip.tcp(1, 2, 3, 4).write(&mut frame, &data).unwrap(),
        false => ip.udp(input.short(), 80).write(&mut frame, &data).unwrap(),
    }
    if input.one_in(4) {
        input.spoil(&mut frame);
    }
    frame
}

/// Whether the checksums are right; `None` for what is no datagram.
fn are_right(frame: &[u8]) -> Option<bool> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(TransportSlice::Udp(udp)) = packet.transport else { return None };
    let header = udp.to_header();
    let (sum, ip) = match packet.net? {
        NetSlice::Ipv4(ip) => {
            let ip = ip.header().to_header();
            (header.calc_checksum_ipv4(&ip, udp.payload()), ip.calc_header_checksum() == ip.header_checksum)
        }
        NetSlice::Ipv6(ip) => (header.calc_checksum_ipv6(&ip.header().to_header(), udp.payload()), true),
        _ => return None,
    };
    Some(sum.ok()? == header.checksum && ip)
}

fn is_from_loopback(frame: &[u8]) -> bool {
    let Ok(packet) = SlicedPacket::from_ethernet(frame) else { return false };
    let from = match packet.net {
        Some(NetSlice::Ipv4(ip)) => std::net::IpAddr::from(ip.header().source_addr()),
        Some(NetSlice::Ipv6(ip)) => ip.header().source_addr().into(),
        _ => return false,
    };
    from.is_loopback() && matches!(packet.transport, Some(TransportSlice::Udp(_)))
}

fn renamed(input: &mut Input<'_>) {
    let frame = written(input);
    let shown = as_gateways(&frame);
    let right = are_right(&frame);
    input.reached((matches!(shown, Cow::Owned(_)), right, is_from_loopback(&frame)));
    assert_eq!(shown.len(), frame.len());
    assert!(!is_from_loopback(&shown));
    assert!(matches!(as_gateways(&shown), Cow::Borrowed(_)), "there is nothing left to rename");
    if right == Some(true) {
        assert_eq!(are_right(&shown), right);
    }
}

#[test]
fn datagrams_renamed() {
    fuzz("datagrams_renamed", renamed);
}
