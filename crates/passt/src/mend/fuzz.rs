//! Frames of both sides, well formed and not: what is mended, and what must stay as it is.

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use netshunt_fuzz::{Input, fuzz};

use super::*;

/// A segment, or what is left of one.
fn written(input: &mut Input<'_>) -> Vec<u8> {
    let far = *input.pick(&[[1; 16], [2; 16], [0xfe; 16], [0; 16]]);
    let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let v6 = input.one_in(2);
    let ip = match v6 {
        true => ethernet.ipv6(far, [0xfd; 16], 64),
        false => ethernet.ipv4([192, 0, 2, far[0]], [10, 0, 2, 15], 64),
    };
    let (number, acknowledged) = (*input.pick(&[0, 1, u32::MAX]), *input.pick(&[0, 1, u32::MAX]));
    let mut header = etherparse::TcpHeader::new(99, 40_000 + u16::from(input.byte() % 4), number, 65_535);
    header.acknowledgment_number = acknowledged;
    let flags = input.byte();
    (header.rst, header.ack, header.syn, header.fin) =
        (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0, flags & 8 != 0);
    let mut frame = Vec::new();
    ip.tcp_header(header).write(&mut frame, &input.bytes(9)).unwrap();
    if input.one_in(2) {
        let small = u16::from(input.byte());
        set_checksum(&mut frame, if v6 { ETHERNET + 40 } else { ETHERNET + 20 }, small);
    }
    if input.one_in(3) {
        // A header of another length, a part, another protocol.
        let at = if v6 { *input.pick(&[ETHERNET + 6, 12, 13]) } else { *input.pick(&[14, 20, 21, 23, 12]) };
        frame[at] = *input.pick(&[44, 0x20, 0x40, 0x46, 0x4f, 0x41, 8, 17, 0x86]);
    }
    if input.one_in(4) {
        input.spoil(&mut frame);
    }
    frame
}

/// Has the checksum be that, and right, by another window (RFC 1071: a carry is added below).
fn set_checksum(frame: &mut [u8], tcp: usize, wanted: u16) {
    const WINDOW: usize = 14;
    let (window, is) = (u16_at(&frame[tcp..], WINDOW), u16_at(&frame[tcp..], CHECKSUM));
    let mut other = u32::from(window) + u32::from(is) + u32::from(!wanted);
    while other > 0xffff {
        other = (other & 0xffff) + (other >> 16);
    }
    frame[tcp + WINDOW..tcp + WINDOW + 2].copy_from_slice(&(other as u16).to_be_bytes());
    frame[tcp + CHECKSUM..tcp + CHECKSUM + 2].copy_from_slice(&wanted.to_be_bytes());
}

/// Whether its checksum is right; `None` for what is no segment.
fn is_right(frame: &[u8]) -> Option<bool> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(TransportSlice::Tcp(tcp)) = packet.transport else { return None };
    let header = tcp.to_header();
    let sum = match packet.net? {
        NetSlice::Ipv4(ip) => header.calc_checksum_ipv4(&ip.header().to_header(), tcp.payload()),
        NetSlice::Ipv6(ip) => header.calc_checksum_ipv6(&ip.header().to_header(), tcp.payload()),
        _ => return None,
    };
    Some(sum.ok()? == header.checksum)
}

fn mended(input: &mut Input<'_>) {
    let mut mend = Mend::new();
    for _ in 0..=input.up_to(3) {
        let frame = written(input);
        let fate = std::mem::discriminant(&mend.sends(&frame));
        let mut seen = frame.clone();
        mend.received(&mut seen);
        let right = is_right(&frame);
        input.reached((fate, seen == frame, right, is_fragment(&frame)));
        assert!(mend.attempts.known.len() <= 4);
        assert_eq!(seen.len(), frame.len());
        if let Some(fragment) = parts(&frame) {
            assert_eq!(is_fragment(&frame), fragment);
        }
        if seen == frame {
            continue;
        }
        // The flag, and what it does to the checksum; of what has the flag of a reset.
        let at = segment(&frame).expect("it was changed").offset;
        assert_eq!(frame[at + FLAGS] & (RST | ACK), RST);
        let mut undone = seen.clone();
        undone[at + FLAGS] ^= ACK;
        undone[at + CHECKSUM..at + CHECKSUM + 2].copy_from_slice(&frame[at + CHECKSUM..at + CHECKSUM + 2]);
        assert_eq!(undone, frame);
        if right == Some(true) {
            assert_eq!(is_right(&seen), right);
        }
    }
}

/// Whether a packet is a part of one, as another reader has it.
fn parts(frame: &[u8]) -> Option<bool> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    match packet.net? {
        NetSlice::Ipv4(ip) => {
            Some(ip.header().more_fragments() || ip.header().fragments_offset().value() != 0)
        }
        NetSlice::Ipv6(ip) => Some(ip.header().next_header().0 == 44),
        _ => None,
    }
}

#[test]
fn frames_mended() {
    fuzz("frames_mended", mended);
}
