//! The stack and the slirp link from library code, without any guest: one GET over the wire as it
//! is, and one over a wire that drops, delays and reorders.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod wire;

use std::cell::RefCell;
use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use netshunt_backend::{Backend, Link, Sent, Settings};
use netshunt_lkl::{Clock, Config, Kernel, Library, Nic, NicConfig, Socket, Transmit};
use netshunt_slirp::Slirp;
use wire::Rough;

/// libslirp keeps its clock in globals: one link at a time.
static TURN: Mutex<()> = Mutex::new(());

const LIMIT: Duration = Duration::from_secs(60);
const BODY: usize = 300_000;

#[test]
fn a_get_through_stack_and_slirp() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(get(open_slirp()) == page(), "wrong bytes");
}

#[test]
fn a_get_over_a_wire_that_drops_delays_and_reorders() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let rough = Rough::new(open_slirp());
    let mishaps = rough.mishaps();
    assert!(get(Box::new(rough)) == page(), "wrong bytes");
    let seen = mishaps.lock().unwrap();
    assert!(seen.dropped > 0 && seen.delayed > 0 && seen.reordered > 0, "a smooth wire: {seen:?}");
}

fn open_slirp() -> Box<dyn Link> {
    let mut settings = Settings::default();
    settings.mtu = Some(1500);
    let slirp = Slirp::new(&settings).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(slirp.open()).unwrap()
}

/// What the server sends: every byte depends on its place.
fn page() -> Vec<u8> {
    (0..BODY).map(|n| (n * 7 + (n >> 8)) as u8).collect()
}

/// Serves one request on the host's loopback, which slirp shows as its gateway.
fn serve_once() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            request.push(byte[0]);
        }
        client.write_all(b"HTTP/1.0 200 OK\r\n\r\n").unwrap();
        client.write_all(&page()).unwrap();
    });
    SocketAddr::from(([10, 0, 2, 2], port))
}

/// Boots a stack over `link` and fetches the page through it.
fn get(link: Box<dyn Link>) -> Vec<u8> {
    let to = serve_once();
    let host = Host::new(link);
    let socket = host.kernel.socket(libc::AF_INET, libc::SOCK_STREAM, 0, 1).unwrap();
    let started = host.kernel.connect(socket, to);
    assert_eq!(started.unwrap_err().raw_os_error(), Some(libc::EINPROGRESS));
    host.until(|| (host.kernel.readiness(socket) & libc::EPOLLOUT as u32 != 0).then_some(()));
    assert_eq!(host.kernel.take_error(socket).unwrap(), None);
    let request = b"GET / HTTP/1.0\r\n\r\n";
    assert_eq!(host.kernel.send(socket, request).unwrap(), request.len());
    let response = host.read_to_end(socket);
    host.kernel.close(socket);
    let body = response.windows(4).position(|w| w == b"\r\n\r\n").expect("a header") + 4;
    response[body..].to_vec()
}

/// A stack with one link, driven by hand.
struct Host {
    kernel: Kernel,
    nic: Nic,
    wire: Rc<RefCell<Box<dyn Link>>>,
}

impl Host {
    fn new(link: Box<dyn Link>) -> Self {
        let kernel = Kernel::boot(&library(), &Config::default(), Clock::Host).unwrap();
        let network = link.network().clone();
        let wire = Rc::new(RefCell::new(link));
        let end = wire.clone();
        let transmit = move |frame: &[IoSlice<'_>]| match end.borrow_mut().send(frame) {
            Sent::Busy => Transmit::Busy,
            Sent::Taken => Transmit::Taken,
        };
        let nic = kernel.add_nic(NicConfig::new(network.mac, network.mtu), Box::new(transmit)).unwrap();
        let v4 = network.v4.unwrap();
        kernel.interface_up(nic.ifindex).unwrap();
        kernel.add_address(nic.ifindex, v4.address.into()).unwrap();
        let default = ipnet::Ipv4Net::default().into();
        kernel.add_route(default, Some(v4.gateway.into()), nic.ifindex).unwrap();
        Host { kernel, nic, wire }
    }

    fn read_to_end(&self, socket: Socket) -> Vec<u8> {
        let mut all = Vec::new();
        let mut buffer = vec![0; 65536];
        self.until(|| {
            loop {
                match self.kernel.recv(socket, &mut buffer) {
                    Ok(0) => return Some(()),
                    Ok(n) => all.extend_from_slice(&buffer[..n]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                    Err(error) => panic!("recv: {error}"),
                }
            }
        });
        all
    }

    /// Turns until `done`.
    fn until<T>(&self, mut done: impl FnMut() -> Option<T>) -> T {
        let limit = Instant::now() + LIMIT;
        loop {
            let mut frames = Vec::new();
            self.wire.borrow_mut().receive(&mut |frame| frames.push(frame.to_vec()));
            for frame in &frames {
                self.kernel.receive(self.nic, frame).unwrap();
            }
            let deadline = self.kernel.run();
            if let Some(result) = done() {
                return result;
            }
            assert!(Instant::now() < limit, "nothing came of it in {LIMIT:?}");
            if frames.is_empty() {
                self.wait(deadline);
            }
        }
    }

    fn wait(&self, deadline: Option<u64>) {
        let now = Instant::now();
        let mut fds = Vec::new();
        let mut wire = self.wire.borrow_mut();
        let link = wire.interests(now, &mut fds).map(|at| at.saturating_duration_since(now));
        let kernel = deadline.map(|at| Duration::from_nanos(at.saturating_sub(self.kernel.now())));
        let wait = [link, kernel].into_iter().flatten().min().unwrap_or(LIMIT);
        let millis = i32::try_from(wait.as_millis() + 1).unwrap();
        // SAFETY: `fds` is a slice of that many pollfds.
        let polled = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, millis) };
        assert!(polled >= 0, "{}", io::Error::last_os_error());
        let _ = wire.turn(Instant::now(), &fds).unwrap();
    }
}

/// A library boots once, and the tests share this process: each takes a copy of the file.
fn library() -> Library {
    let explicit = std::env::var_os("NETSHUNT_LKL").map(std::path::PathBuf::from);
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("liblkl.so");
    std::fs::copy(netshunt_lkl::find(explicit.as_deref()).unwrap(), &copy).unwrap();
    Library::load(&copy).unwrap()
}
