//! Two kernels in one process, and between them a wire that delays, drops and reorders, in virtual
//! time: what takes seconds there takes milliseconds here, and timers must really fire.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use netshunt_lkl::{Clock, Config, Kernel, Nic, NicConfig, Socket, Transmit, TransmitFn, VirtualClock};

use super::{DEADLINE, Pattern, boot, errno, now};

/// What the wire does to frames.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    pub(crate) delay: Duration,
    /// Added to the delay of one frame in ten: it comes after its successors.
    pub(crate) detour: Duration,
    /// Frames lost of a thousand.
    pub(crate) loss: u64,
    /// Frames on the wire at once, before it says [`Transmit::Busy`].
    pub(crate) room: usize,
}

/// One direction: frames by the time of their arrival.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    pub(crate) frames: BTreeMap<(u64, u64), Vec<u8>>,
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    pub(crate) busy: u64,
    refused: bool,
    random: u64,
}

impl Wire {
    pub(crate) fn random(&mut self, below: u64) -> u64 {
        // splitmix64
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    pub(crate) fn take(&mut self, frame: Vec<u8>, now: u64, weather: Weather) -> Transmit {
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

pub(crate) struct Node {
    pub(crate) kernel: Kernel,
    pub(crate) nic: Nic,
    /// What it sends.
    pub(crate) wire: Rc<RefCell<Wire>>,
}

pub(crate) struct Twin {
    pub(crate) clock: VirtualClock,
    pub(crate) nodes: [Node; 2],
}

impl Twin {
    pub(crate) fn new(weather: Weather) -> Self {
        Self::with(weather, |mac| NicConfig::new(mac, 1500))
    }

    pub(crate) fn with(weather: Weather, nic: impl Fn([u8; 6]) -> NicConfig) -> Self {
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
    pub(crate) fn turn(&self) {
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

    pub(crate) fn until<T>(&self, mut condition: impl FnMut() -> Option<T>) -> T {
        let (start, began) = (Instant::now(), self.clock.now());
        loop {
            if let Some(found) = condition() {
                return found;
            }
            self.turn();
            assert!(start.elapsed() < DEADLINE, "too long in real time");
            let virtually = Duration::from_nanos(self.clock.now() - began);
            assert!(virtually < Duration::from_secs(600), "too long in virtual time");
        }
    }

    /// A connection from the first kernel to the second.
    pub(crate) fn connect(&self, to: SocketAddr) -> (Socket, Socket) {
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
    pub(crate) fn transfer(&self, from: Socket, to: Socket, total: u64) -> Duration {
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

    pub(crate) fn report(&self, what: &str, virtually: Duration, start: Instant) {
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
