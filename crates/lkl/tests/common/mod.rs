//! Kernels for tests, and the patience to drive them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test program uses a part")]

pub(crate) mod control;
pub(crate) mod twin;

use std::env;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use netshunt_lkl::{Clock, Config, Kernel, Library, Socket, find};

/// How long anything may take that should take no time.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A library of its own for each caller: a copy of the file is another instance.
pub(crate) fn library() -> Library {
    let explicit = env::var_os("NETSHUNT_LKL").map(PathBuf::from);
    let original = find(explicit.as_deref()).unwrap_or_else(|error| panic!("{error}"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let copy = folder.path().join("liblkl.so");
    fs::copy(original, &copy).expect("room for a copy");
    Library::load(&copy).expect("a library that loads")
}

pub(crate) fn boot(memory: usize, clock: Clock) -> Kernel {
    let config = Config { memory, ..Config::default() };
    Kernel::boot(&library(), &config, clock).expect("a kernel that boots")
}

pub(crate) fn kernel() -> Kernel {
    boot(Config::default().memory, Clock::Host)
}

/// Runs the kernel until the condition gives something.
pub(crate) fn until<T>(kernel: &Kernel, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        let next = kernel.run();
        if let Some(found) = condition() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "nothing happened in {DEADLINE:?}");
        if let Some(next) = next {
            let wait = kernel.instant(next).saturating_duration_since(Instant::now());
            std::thread::sleep(wait.min(Duration::from_millis(10)));
        }
    }
}

/// `None` for "not now".
pub(crate) fn now<T>(result: io::Result<T>) -> Option<T> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        result => Some(result.expect("a success or EAGAIN")),
    }
}

pub(crate) fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> Option<i32> {
    result.expect_err("a failure").raw_os_error()
}

/// A listener on a loopback address, a client connected to it, and the accepted socket.
pub(crate) fn pair(kernel: &Kernel, address: &str) -> (Socket, Socket, Socket) {
    let address: std::net::SocketAddr = address.parse().expect("an address");
    let domain = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let listener = kernel.socket(domain, libc::SOCK_STREAM, 0, 1).expect("a socket");
    kernel.bind(listener, address).expect("bind");
    kernel.listen(listener, 8).expect("listen");
    let client = kernel.socket(domain, libc::SOCK_STREAM, 0, 2).expect("a socket");
    let address = kernel.local_address(listener).expect("a name");
    assert_eq!(errno(kernel.connect(client, address)), Some(libc::EINPROGRESS));
    let served = until(kernel, || now(kernel.accept(listener, 3)));
    assert_eq!(kernel.take_error(client).expect("an open socket"), None);
    (listener, client, served)
}

/// Bytes in which a lost, doubled or displaced piece shows.
#[derive(Debug)]
pub(crate) struct Pattern(u64);

impl Pattern {
    pub(crate) fn new() -> Self {
        Self(0)
    }

    pub(crate) fn fill(&mut self, into: &mut [u8]) {
        for byte in into {
            let word = (self.0 / 8).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            *byte = (word ^ (word >> 29)).to_le_bytes()[(self.0 % 8) as usize];
            self.0 += 1;
        }
    }

    pub(crate) fn check(&mut self, got: &[u8]) {
        let at = self.0;
        let mut wanted = vec![0; got.len()];
        self.fill(&mut wanted);
        assert!(wanted == got, "wrong bytes in the {} after byte {at}", got.len());
    }

    pub(crate) fn position(&self) -> u64 {
        self.0
    }
}
