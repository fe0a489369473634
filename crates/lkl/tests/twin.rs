//! Two kernels in one process, and between them a wire that delays, drops and reorders, in virtual
//! time: what takes seconds there takes milliseconds here, and timers must really fire.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use netshunt_lkl::{Clock, Config, Kernel, Nic, NicConfig, Socket, Transmit, TransmitFn, VirtualClock};

use common::{Pattern, boot, errno, now};

const MIB: u64 = 1 << 20;

/// What the wire does to frames.
#[derive(Clone, Copy, Debug, Default)]
struct Weather {
    delay: Duration,
    /// Added to the delay of one frame in ten: it comes after its successors.
    detour: Duration,
    /// Frames lost of a thousand.
    loss: u64,
    /// Frames on the wire at once, before it says [`Transmit::Busy`].
    room: usize,
}

/// One direction: frames by the time of their arrival.
#[derive(Debug, Default)]
struct Wire {
    frames: BTreeMap<(u64, u64), Vec<u8>>,
    sent: u64,
    lost: u64,
    busy: u64,
    refused: bool,
    random: u64,
}

impl Wire {
    fn random(&mut self, below: u64) -> u64 {
        // splitmix64
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    fn take(&mut self, frame: Vec<u8>, now: u64, weather: Weather) -> Transmit {
        if self.frames.len() >= weather.room {
            self.busy += 1;
            self.refused = true;
            return Transmit::Busy;
        }
        self.sent += 1;
        if self.random(1000) < weather.loss {
            self.lost += 1;
            return Transmit::Taken;
        }
        let detour = if self.random(10) == 0 { weather.detour } else { Duration::ZERO };
        let arrival = now + (weather.delay + detour).as_nanos() as u64;
        self.frames.insert((arrival, self.sent), frame);
        Transmit::Taken
    }
}

struct Node {
    kernel: Kernel,
    nic: Nic,
    /// What it sends.
    wire: Rc<RefCell<Wire>>,
}

struct Twin {
    clock: VirtualClock,
    nodes: [Node; 2],
}

impl Twin {
    fn new(weather: Weather) -> Self {
        Self::with(weather, |mac| NicConfig::new(mac, 1500))
    }

    fn with(weather: Weather, nic: impl Fn([u8; 6]) -> NicConfig) -> Self {
        let clock = VirtualClock::new();
        let node = |n: u8| {
            let kernel = boot(Config::default().memory, Clock::Virtual(clock.clone()));
            let wire = Rc::new(RefCell::new(Wire { random: n.into(), ..Wire::default() }));
            let (out, time) = (Rc::clone(&wire), clock.clone());
            let transmit: TransmitFn = Box::new(move |pieces| {
                let frame = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
                out.borrow_mut().take(frame, time.now(), weather)
            });
            let nic = kernel.add_nic(nic([2, 0, 0, 0, 0, n]), transmit).unwrap();
            kernel.interface_up(nic.ifindex).unwrap();
            kernel.add_address(nic.ifindex, format!("10.1.0.{n}/24").parse().unwrap()).unwrap();
            kernel.add_address(nic.ifindex, format!("fd00::{n}/64").parse().unwrap()).unwrap();
            Node { kernel, nic, wire }
        };
        let nodes = [node(1), node(2)];
        Self { clock, nodes }
    }

    /// Delivers what has arrived, runs both kernels; with nothing to do, lets time pass.
    fn turn(&self) {
        let mut next = u64::MAX;
        for (from, to) in [(0, 1), (1, 0)] {
            let (from, to) = (&self.nodes[from], &self.nodes[to]);
            loop {
                // Not while delivering: the receiver may answer at once, through the other wire.
                let frame = {
                    let mut wire = from.wire.borrow_mut();
                    let due = wire.frames.first_entry().filter(|f| f.key().0 <= self.clock.now());
                    due.map(std::collections::btree_map::OccupiedEntry::remove)
                };
                let Some(frame) = frame else { break };
                to.kernel.receive(to.nic, &frame).unwrap();
            }
            if std::mem::take(&mut from.wire.borrow_mut().refused) {
                from.kernel.wake(from.nic);
            }
        }
        for node in &self.nodes {
            next = next.min(node.kernel.run().unwrap_or(u64::MAX));
            let wire = node.wire.borrow();
            next = next.min(wire.frames.first_key_value().map_or(u64::MAX, |(key, _)| key.0));
        }
        assert_ne!(next, u64::MAX, "nothing will ever happen again");
        self.clock.advance_to(next);
    }

    fn until<T>(&self, mut condition: impl FnMut() -> Option<T>) -> T {
        let (start, began) = (Instant::now(), self.clock.now());
        loop {
            if let Some(found) = condition() {
                return found;
            }
            self.turn();
            assert!(start.elapsed() < common::DEADLINE, "too long in real time");
            let virtually = Duration::from_nanos(self.clock.now() - began);
            assert!(virtually < Duration::from_secs(600), "too long in virtual time");
        }
    }

    /// A connection from the first kernel to the second.
    fn connect(&self, to: SocketAddr) -> (Socket, Socket) {
        let [client, server] = [&self.nodes[0].kernel, &self.nodes[1].kernel];
        let domain = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let listener = server.socket(domain, libc::SOCK_STREAM, 0, 1).unwrap();
        server.bind(listener, to).unwrap();
        server.listen(listener, 1).unwrap();
        let from = client.socket(domain, libc::SOCK_STREAM, 0, 2).unwrap();
        assert_eq!(errno(client.connect(from, to)), Some(libc::EINPROGRESS));
        let served = self.until(|| now(server.accept(listener, 3)));
        (from, served)
    }

    /// Sends bytes and then the end; checks them. Returns the virtual time it took.
    fn transfer(&self, from: Socket, to: Socket, total: u64) -> Duration {
        let [client, server] = [&self.nodes[0].kernel, &self.nodes[1].kernel];
        let (mut sent, mut got) = (Pattern::new(), Pattern::new());
        let (mut out, mut into) = (vec![0; 64 << 10], vec![0; 256 << 10]);
        let mut waiting = 0..0;
        let mut ended = false;
        let began = self.clock.now();
        self.until(|| {
            while !ended {
                if waiting.is_empty() {
                    let n = out.len().min((total - sent.position()) as usize);
                    sent.fill(&mut out[..n]);
                    waiting = 0..n;
                }
                if waiting.is_empty() {
                    client.shutdown(from, std::net::Shutdown::Write).unwrap();
                    ended = true;
                    break;
                }
                let Some(n) = now(client.send(from, &out[waiting.clone()])) else { break };
                waiting.start += n;
            }
            while let Some(n) = now(server.recv(to, &mut into)) {
                if n == 0 {
                    return Some(());
                }
                got.check(&into[..n]);
            }
            None
        });
        assert_eq!(got.position(), total);
        Duration::from_nanos(self.clock.now() - began)
    }

    fn report(&self, what: &str, virtually: Duration, start: Instant) {
        let out = self.nodes[0].wire.borrow();
        println!(
            "{what}: {virtually:?} virtual, {:?} real; {} frames out, {} lost, {} refused",
            start.elapsed(),
            out.sent,
            out.lost,
            out.busy
        );
    }
}

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
