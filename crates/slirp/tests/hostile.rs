//! Frames no stack would send: the link must take them all, and stay bounded.
//!
//! Nothing leaves the machine: every IP frame is readdressed to the gateway, which is the loopback.
//! `PROPTEST_CASES=100000` searches for longer.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod common;

use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use common::*;
use etherparse::{PacketBuilder, TcpHeader};
use netshunt_backend::{Link, Sent};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// The largest frame tried: beyond every MTU, and beyond 16 bits.
const LARGEST: usize = 65_600;

/// What a hostile frame is made from.
#[derive(Clone, Debug)]
enum Frame {
    /// Bytes alone, with a plausible protocol or not.
    Noise(Option<u16>, Vec<u8>),
    /// A good frame cut short, grown, or with bytes changed; checksums are right again.
    Damaged { which: usize, length: usize, changes: Vec<(usize, u8)> },
    /// A header, and then this many bytes.
    Huge(u16, usize),
}

fn frame() -> impl Strategy<Value = Frame> {
    let kind = || prop_oneof![Just(0x0800_u16), Just(0x86dd), Just(0x0806), Just(0x88f8), any::<u16>()];
    prop_oneof![
        (proptest::option::of(kind()), vec(any::<u8>(), 0..200)).prop_map(|(k, b)| Frame::Noise(k, b)),
        (any::<usize>(), 0_usize..300, vec((14_usize..120, any::<u8>()), 0..8))
            .prop_map(|(which, length, changes)| Frame::Damaged { which, length, changes }),
        (kind(), 0..=LARGEST).prop_map(|(kind, length)| Frame::Huge(kind, length)),
    ]
}

/// Good frames of every protocol libslirp reads. All of them speak to the host's loopback at most.
fn good(mac: [u8; 6], port: u16) -> Vec<Vec<u8>> {
    let mut syn = TcpHeader::new(7000, port, 1, 65535);
    syn.syn = true;
    let mut data = TcpHeader::new(7000, port, 2, 65535);
    data.ack = true;
    let v4 = IpAddr::V4(GATEWAY);
    let v6 = IpAddr::V6(GATEWAY_V6);
    let (mut ping, mut ping6) = (Vec::new(), Vec::new());
    let ethernet = || PacketBuilder::ethernet2(mac, [0x52, 0x55, 10, 0, 2, 2]);
    let v4_ping = ethernet().ipv4(GUEST.octets(), GATEWAY.octets(), 64).icmpv4_echo_request(1, 2);
    v4_ping.write(&mut ping, &[0x5a; 40]).unwrap();
    let v6_ping = ethernet().ipv6(GUEST_V6.octets(), GATEWAY_V6.octets(), 64).icmpv6_echo_request(1, 2);
    v6_ping.write(&mut ping6, &[0x5a; 40]).unwrap();
    vec![
        ping,
        ping6,
        arp_request(mac, GUEST, GATEWAY),
        neighbour_solicitation(mac, GUEST_V6, GATEWAY_V6),
        tcp(mac, v4, syn.clone(), &[]),
        tcp(mac, v6, syn, &[]),
        tcp(mac, v4, data, &[0x5a; 60]),
        udp(mac, v4, 7000, port, &[0x5a; 60]),
        udp(mac, v6, 7000, port, &[0x5a; 60]),
        // BOOTP, TFTP and DHCPv6: the servers libslirp brings.
        udp(mac, v4, 68, 67, &[1; 240]),
        udp(mac, v4, 7001, 69, b"\0\x01file\0octet\0blksize\x00512\0"),
        udp(mac, v6, 546, 547, &[1; 60]),
    ]
}

/// The frame, with its destination where it must not leave the host and its checksums mended, so that
/// damage is seen by more than the checksum tests.
fn build(frame: &Frame, mac: [u8; 6], port: u16) -> Vec<u8> {
    let mut bytes = match frame {
        Frame::Noise(None, bytes) => bytes.clone(),
        Frame::Noise(Some(kind), noise) => {
            let mut bytes = ethernet(BROADCAST_MAC, mac, *kind);
            bytes.extend(noise);
            bytes
        }
        Frame::Damaged { which, length, changes } => {
            let all = good(mac, port);
            let mut bytes = all[which % all.len()].clone();
            for (at, value) in changes {
                if let Some(byte) = bytes.get_mut(*at) {
                    *byte = *value;
                }
            }
            if *length < 290 {
                bytes.resize(*length, 0);
            }
            bytes
        }
        Frame::Huge(kind, length) => {
            let mut bytes = ethernet(BROADCAST_MAC, mac, *kind);
            bytes.extend([0x45, 0, 0xff, 0xff]);
            bytes.resize((*length).max(14), 0x11);
            bytes
        }
    };
    stay(&mut bytes);
    bytes
}

fn stay(bytes: &mut [u8]) {
    match bytes.get(12..14) {
        Some([8, 0]) if bytes.len() >= 34 => {
            bytes[30..34].copy_from_slice(&GATEWAY.octets());
            let header = usize::from(bytes[14] & 15) * 4;
            let end = 14 + usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
            if (20..=bytes.len() - 14).contains(&header) {
                mend(&mut bytes[14..14 + header], 10, 0);
                let pseudo = sum(&bytes[26..34]) + u32::from(bytes[23]);
                mend_transport(bytes, bytes[23], 14 + header, end, pseudo);
            }
        }
        Some([0x86, 0xdd]) if bytes.len() >= 54 => {
            bytes[38..54].copy_from_slice(&GATEWAY_V6.octets());
            let end = 54 + usize::from(u16::from_be_bytes([bytes[18], bytes[19]]));
            let pseudo = sum(&bytes[22..54]) + u32::from(bytes[20]);
            mend_transport(bytes, bytes[20], 54, end, pseudo);
        }
        _ => (),
    }
}

/// Mends TCP, UDP, ICMP and ICMPv6, where the packet's own lengths allow.
fn mend_transport(frame: &mut [u8], protocol: u8, start: usize, end: usize, pseudo: u32) {
    let (at, pseudo) = match protocol {
        1 => (2, None),
        6 => (16, Some(pseudo)),
        17 => (6, Some(pseudo)),
        58 => (2, Some(pseudo)),
        _ => return,
    };
    let Some(segment) = frame.get_mut(start..end).filter(|segment| segment.len() >= at + 2) else { return };
    let length = segment.len() as u32;
    mend(segment, at, pseudo.map_or(0, |pseudo| pseudo + length));
}

fn mend(bytes: &mut [u8], at: usize, initial: u32) {
    bytes[at..at + 2].fill(0);
    let mut folded = sum(bytes) + initial;
    while folded > 0xffff {
        folded = (folded & 0xffff) + (folded >> 16);
    }
    bytes[at..at + 2].copy_from_slice(&(!(folded as u16)).to_be_bytes());
}

/// RFC 1071, not yet folded.
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum()
}

#[test]
fn any_frame_is_taken() {
    let alone = alone();
    let before = descriptors();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut runner =
        TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() });
    runner
        .run(&vec(frame(), 1..40), |frames| {
            // A link of its own, so that a failure needs only these frames to be seen again.
            let mut wire = Wire::open(&alone);
            for frame in &frames {
                let bytes = build(frame, wire.mac, port);
                prop_assert_eq!(wire.link.send(&[IoSlice::new(&bytes)]), Sent::Taken);
            }
            let mut fds = Vec::new();
            wire.link.interests(Instant::now(), &mut fds);
            prop_assert!(fds.len() <= frames.len() + 1);
            poll(&mut fds, Duration::ZERO);
            let _ = wire.link.turn(Instant::now(), &fds).unwrap();
            // Retransmissions and expiry, for half an hour of the link's clock.
            let mut later = Instant::now();
            for seconds in [1, 1, 2, 4, 8, 60, 240, 1800] {
                later += Duration::from_secs(seconds);
                fds.clear();
                wire.link.interests(later, &mut fds);
                let _ = wire.link.turn(later, &[]).unwrap();
            }
            wire.link.receive(&mut |frame| assert!((14..=65534).contains(&frame.len())));
            let counters = wire.link.counters();
            prop_assert_eq!(counters.sent + counters.oversized, frames.len() as u64);
            // Still a working router.
            wire.introduce();
            Ok(())
        })
        .unwrap();
    drop(listener);
    assert_eq!(descriptors(), before);
}

/// libslirp 4.7.0 crashes on this frame (`fragments.rs`).
#[test]
fn a_last_fragment_alone_is_harmless() {
    let alone = alone();
    let mut wire = Wire::open(&alone);
    let mut frame = udp(wire.mac, GATEWAY.into(), 5000, 9, &[0; 32]);
    frame[20..22].copy_from_slice(&[0, 5]);
    stay(&mut frame);
    wire.send(&frame);
    wire.introduce();
}

#[test]
fn what_exceeds_the_mtu_is_counted_and_dropped() {
    let alone = alone();
    let mut wire = Wire::open(&alone);
    let mtu = usize::from(wire.link.network().mtu);
    for (length, oversized) in [(14 + mtu, 0), (15 + mtu, 1), (LARGEST, 2)] {
        let mut frame = ethernet(BROADCAST_MAC, wire.mac, 0x0800);
        frame.resize(length, 0);
        wire.send(&frame);
        assert_eq!(wire.link.counters().oversized, oversized);
    }
    wire.introduce();
}

#[test]
fn a_stack_that_never_receives_cannot_fill_memory() {
    let alone = alone();
    let mut wire = Wire::open(&alone);
    let request = arp_request(wire.mac, GUEST, GATEWAY);
    // Every request has an answer of 42 bytes or more: 17 MiB of them.
    for _ in 0..17 * (1 << 20) / 42 {
        wire.send(&request);
    }
    let dropped = wire.link.counters().dropped;
    assert!(dropped > 0, "{:?}", wire.link);
    let (mut frames, mut bytes) = (0_u64, 0);
    wire.link.receive(&mut |frame| (frames, bytes) = (frames + 1, bytes + frame.len()));
    assert!(bytes <= 16 << 20, "{bytes}");
    assert_eq!(wire.link.counters().received, frames);
    wire.introduce();
}
