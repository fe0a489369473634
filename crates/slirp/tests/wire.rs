//! The link's own answers, and what it leaves behind.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod common;

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use common::*;
use etherparse::TcpHeader;
use netshunt_backend::Link;

#[test]
fn the_gateway_answers_arp() {
    let alone = alone();
    let mut wire = Wire::open(&alone);
    wire.send(&arp_request(wire.mac, GUEST, GATEWAY));
    let gateway = wire.expect("ARP reply", |frame| arp_reply(frame, GATEWAY));
    assert_eq!(gateway, [0x52, 0x55, 10, 0, 2, 2]);
    assert_ne!(gateway, wire.mac);
    let counters = wire.link.counters();
    assert_eq!(counters.sent, 1);
    assert!(counters.received >= 1);
}

#[test]
fn the_gateway_answers_neighbour_solicitation() {
    let alone = alone();
    let mut wire = Wire::open(&alone);
    wire.send(&neighbour_solicitation(wire.mac, GUEST_V6, GATEWAY_V6));
    let gateway = wire.expect("advertisement", |frame| neighbour_advertisement(frame, GATEWAY_V6));
    assert_ne!(gateway, wire.mac);
}

#[test]
fn ipv6_can_be_off() {
    let alone = alone();
    let mut settings = netshunt_backend::Settings::default();
    settings.ipv6 = false;
    let mut wire = Wire::with(&alone, &settings);
    assert_eq!(wire.link.network().v6, None);
    wire.send(&neighbour_solicitation(wire.mac, GUEST_V6, GATEWAY_V6));
    // Answers come within the call, in order: an advertisement would come first.
    wire.send(&arp_request(wire.mac, GUEST, GATEWAY));
    wire.expect("ARP reply", |frame| {
        assert_eq!(neighbour_advertisement(frame, GATEWAY_V6), None);
        arp_reply(frame, GATEWAY)
    });
}

#[test]
fn timers_run_by_the_time_they_are_given() {
    let alone = alone();
    let mut wire = Wire::open(&alone);
    // The one timer of libslirp 4.7 sends IPv6 router advertisements, minutes apart. No time passes
    // here but the time that the link is told.
    let start = Instant::now();
    let (mut now, mut advertisements) = (start, 0);
    while advertisements < 5 {
        let due = wire.link.interests(now, &mut Vec::new()).expect("libslirp waits a second at most");
        assert!(due > now, "a deadline that has passed would spin");
        now = due;
        assert!(now < start + Duration::from_secs(3600), "{advertisements} advertisements in an hour");
        let _ = wire.link.turn(now, &[]).unwrap();
        wire.link.receive(&mut |frame| {
            // IPv6, next header ICMPv6, type 134 (RFC 4861, section 4.2).
            advertisements += u32::from(frame[12..14] == [0x86, 0xdd] && frame[20] == 58 && frame[54] == 134);
        });
    }
    assert!(now > start + Duration::from_secs(60), "not all at once");
}

#[test]
fn a_turn_with_foreign_entries_does_nothing() {
    let alone = alone();
    let mut wire = Wire::open(&alone);
    wire.introduce();
    let (_listener, to) = listener();
    for port in 2000..2020 {
        wire.send(&tcp(wire.mac, IpAddr::V4(GATEWAY), syn(port, to), &[]));
    }
    let mut fds = Vec::new();
    wire.link.interests(Instant::now(), &mut fds);
    assert!(fds.len() >= 20);
    // Fewer entries than were asked for: the others count as not ready.
    let _ = wire.link.turn(Instant::now(), &fds[..3]).unwrap();
    let _ = wire.link.turn(Instant::now(), &[]).unwrap();
}

#[test]
fn dropping_the_link_closes_what_it_opened() {
    let alone = alone();
    let (listener, to) = listener();
    let before = descriptors();
    for round in 0..3 {
        let mut wire = Wire::open(&alone);
        wire.introduce();
        for port in 3000..3010 {
            wire.send(&tcp(wire.mac, IpAddr::V4(GATEWAY), syn(port, to), &[]));
            wire.send(&udp(wire.mac, IpAddr::V4(GATEWAY), port, to, b"anyone?"));
        }
        assert!(descriptors() >= before + 20, "round {round}: {} of {before}", descriptors());
        wire.expect("SYN-ACK", |frame| segment(frame, 3009).filter(|(tcp, _)| tcp.syn && tcp.ack));
        for fd in open_sockets() {
            assert!(close_on_exec(fd), "descriptor {fd} would be inherited");
        }
        drop(wire);
        assert_eq!(descriptors(), before, "round {round}");
    }
    drop(listener);
}

fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn syn(from: u16, to: u16) -> TcpHeader {
    let mut header = TcpHeader::new(from, to, 1000, 65535);
    header.syn = true;
    header
}

/// The sockets of this process; the test's own are close-on-exec too.
fn open_sockets() -> Vec<i32> {
    let mut fds = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let entry = entry.unwrap();
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        if target.to_string_lossy().starts_with("socket:") {
            fds.push(entry.file_name().to_string_lossy().parse().unwrap());
        }
    }
    fds
}

/// O_CLOEXEC in the flags of /proc/self/fdinfo (proc_pid_fdinfo(5)), which are octal.
fn close_on_exec(fd: i32) -> bool {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    i32::from_str_radix(flags.trim(), 8).unwrap() & libc::O_CLOEXEC != 0
}
