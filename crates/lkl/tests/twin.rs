//! TCP between two kernels that a wire joins, in virtual time.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use netshunt_lkl::NicConfig;

use common::errno;
use common::twin::{Twin, Weather};

const MIB: u64 = 1 << 20;

fn destinations() -> [SocketAddr; 2] {
    ["10.1.0.2:5000", "[fd00::2]:5000"].map(|text| text.parse().unwrap())
}

#[test]
fn a_fair_wire() {
    for to in destinations() {
        let weather = Weather { delay: Duration::from_millis(1), room: 10_000, ..Weather::default() };
        let twin = Twin::new(weather);
        let start = Instant::now();
        let (from, served) = twin.connect(to);
        let took = twin.transfer(from, served, 8 * MIB);
        twin.report(&to.to_string(), took, start);
        let out = twin.nodes[0].wire.borrow();
        assert!(out.sent < 8 * MIB / 1000, "{} frames: retransmissions without a loss", out.sent);
    }
}

#[test]
fn a_wire_that_loses_delays_and_reorders() {
    for to in destinations() {
        let twin = Twin::new(Weather {
            delay: Duration::from_millis(5),
            detour: Duration::from_millis(2),
            loss: 20,
            room: 10_000,
        });
        let start = Instant::now();
        let (from, served) = twin.connect(to);
        let took = twin.transfer(from, served, 8 * MIB);
        twin.report(&to.to_string(), took, start);
        assert!(twin.nodes[0].wire.borrow().lost > 10);
        let snmp = twin.nodes[0].kernel.read_proc("net/snmp").unwrap();
        let numbers = snmp.lines().filter(|line| line.starts_with("Tcp:")).nth(1).unwrap();
        // Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets
        // CurrEstab InSegs OutSegs RetransSegs…
        let retransmitted: u64 = numbers.split_whitespace().nth(12).unwrap().parse().unwrap();
        assert!(retransmitted > 10, "{retransmitted} retransmissions:\n{snmp}");
    }
}

#[test]
fn a_wire_that_is_often_busy() {
    let weather = Weather { delay: Duration::from_millis(1), room: 8, ..Weather::default() };
    let twin = Twin::new(weather);
    let start = Instant::now();
    let (from, served) = twin.connect(destinations()[0]);
    let took = twin.transfer(from, served, 2 * MIB);
    twin.report("busy", took, start);
    let out = twin.nodes[0].wire.borrow();
    assert!(out.busy > 100, "{} times busy", out.busy);
    // Back-pressure loses nothing and reorders nothing.
    assert!(out.sent < 2 * MIB / 1000, "{} frames: back-pressure led to retransmissions", out.sent);
}

#[test]
fn timers_fire_when_every_frame_is_lost() {
    let twin = Twin::new(Weather { loss: 1000, room: 10_000, ..Weather::default() });
    let kernel = &twin.nodes[0].kernel;
    let socket = kernel.socket(libc::AF_INET, libc::SOCK_STREAM, 0, 1).unwrap();
    assert_eq!(errno(kernel.connect(socket, destinations()[0])), Some(libc::EINPROGRESS));
    let began = twin.clock.now();
    let error = twin.until(|| kernel.take_error(socket).unwrap());
    let took = Duration::from_nanos(twin.clock.now() - began);
    // Nobody answers ARP: three requests, a second apart.
    assert_eq!(error, libc::EHOSTUNREACH);
    assert!((2..10).contains(&took.as_secs()), "{took:?}");
}

#[test]
fn large_frames_and_no_checksums_on_a_trusted_wire() {
    for to in destinations() {
        let weather = Weather { delay: Duration::from_millis(1), room: 10_000, ..Weather::default() };
        let twin = Twin::with(weather, |mac| NicConfig {
            tx_checksum_offload: true,
            rx_checksum_offload: true,
            ..NicConfig::new(mac, 65520)
        });
        let start = Instant::now();
        let (from, served) = twin.connect(to);
        let took = twin.transfer(from, served, 8 * MIB);
        twin.report(&to.to_string(), took, start);
        let out = twin.nodes[0].wire.borrow();
        assert!(out.sent < 8 * MIB / 10_000, "{} frames: are they large?", out.sent);
    }
}

#[test]
fn a_dropped_kernel_closes_its_connections() {
    let twin = Twin::new(Weather { room: 10_000, ..Weather::default() });
    let (_from, served) = twin.connect(destinations()[0]);
    let Twin { nodes: [gone, here], .. } = twin;
    drop(gone.kernel);
    let frames = std::mem::take(&mut gone.wire.borrow_mut().frames);
    for frame in frames.values() {
        here.kernel.receive(here.nic, frame).unwrap();
    }
    here.kernel.poll();
    assert_eq!(here.kernel.recv(served, &mut [0; 1]).unwrap(), 0, "the end of the stream");
}
