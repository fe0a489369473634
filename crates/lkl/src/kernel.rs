//! Booting, running, configuring.

use std::ffi::CString;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::sys::Instance;
use crate::{Clock, Error, Library, kmsg};

/// The interface index of `lo`.
const LOOPBACK: u32 = 1;

/// How a kernel boots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Bytes of memory, at least 16 MiB. They are reserved; what the kernel does not use costs
    /// nothing. When they are used up, calls answer ENOMEM or ENOBUFS.
    pub memory: usize,
    /// Kernel parameters, such as `sysctl.net.ipv4.tcp_rmem=…` (kernel-parameters.txt).
    pub cmdline: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { memory: 256 << 20, cmdline: String::new() }
    }
}

/// A counter of the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Statistic {
    /// Switches between tasks, since boot.
    Switches,
    /// Timer interrupts, since boot.
    Timers,
    /// Free memory in bytes.
    FreeMemory,
}

/// A running kernel. It belongs to the thread that booted it.
///
/// Nothing blocks: what would answers EAGAIN or EINPROGRESS. Errors are [`io::Error`] with Linux's
/// errno. The methods must not be called from inside a transmit callback of the same kernel: they
/// answer EDEADLK, and those without a `Result` panic, which aborts.
///
/// Dropping it shuts it down: sockets are closed, what that sends is sent, devices lose their
/// wires. The addresses of its memory and the library stay taken until the process ends, and a
/// library boots once: another kernel needs another copy of the file.
///
/// A kernel panic ends the program, with the kernel's message on standard error.
#[derive(Debug)]
pub struct Kernel {
    pub(crate) instance: Instance,
}

impl Kernel {
    /// Boots the library's kernel, with `lo` up. Takes a few milliseconds. The kernel's log goes to
    /// `tracing`, target `netshunt_lkl::kernel`.
    ///
    /// # Errors
    /// [`Error::AlreadyBooted`], [`Error::Memory`], or [`Error::Boot`] with EINVAL for too little
    /// memory or a command line with a NUL.
    pub fn boot(library: &Library, config: &Config, clock: Clock) -> Result<Self, Error> {
        let failed = |source| Error::Boot { memory: config.memory, source };
        // Messages that nobody will see are a third of the boot.
        let quiet = if kmsg::wanted() { "" } else { " quiet" };
        let cmdline = CString::new(format!("{}{quiet}", config.cmdline))
            .map_err(|_| failed(io::Error::from_raw_os_error(libc::EINVAL)))?;
        let instance = Instance::start(library.api, config.memory, &cmdline, clock)?;
        let kernel = Self { instance };
        kernel.interface_up(LOOPBACK).map_err(failed)?;
        Ok(kernel)
    }

    /// Executes what is due (timers, soft interrupts, kernel threads) until there is nothing left
    /// to do. Returns when to run again at the latest, in ns of the kernel's clock: for
    /// [`Clock::Host`] that is `CLOCK_MONOTONIC`. `None`: when something happens.
    pub fn run(&self) -> Option<u64> {
        let deadline = self.instance.run().expect("run() is not called from a callback");
        (deadline != u64::MAX).then_some(deadline)
    }

    /// A deadline of [`run`](Self::run) as an [`Instant`].
    pub fn instant(&self, deadline: u64) -> Instant {
        Instant::now() + Duration::from_nanos(deadline.saturating_sub(self.now()))
    }

    /// The kernel's clock, in ns.
    pub fn now(&self) -> u64 {
        self.instance.clock().now()
    }

    /// The cheap half of [`run`](Self::run): due timers, soft interrupts and runnable threads, but
    /// no deadline. For between two batches of frames or socket calls.
    pub fn poll(&self) {
        self.instance.poll().expect("poll() is not called from a callback");
    }

    /// Brings an interface up.
    ///
    /// # Errors
    /// ENODEV and what netdevice(7) lists.
    pub fn interface_up(&self, ifindex: u32) -> io::Result<()> {
        self.instance.interface_up(ifindex)
    }

    /// Gives an interface an address, with the route to its network. An IPv6 address can be used at
    /// once: no duplicate address detection.
    ///
    /// # Errors
    /// EEXIST, ENODEV.
    pub fn add_address(&self, ifindex: u32, address: IpNet) -> io::Result<()> {
        self.instance.add_address(ifindex, &octets(address.addr()), address.prefix_len())
    }

    /// Adds a route through an interface, by way of a router or directly.
    ///
    /// # Errors
    /// EEXIST, ENODEV, ENETDOWN, ENETUNREACH (no way to the router), EINVAL (two families).
    pub fn add_route(&self, dst: IpNet, via: Option<IpAddr>, ifindex: u32) -> io::Result<()> {
        let via = via.map(octets);
        // The kernel refuses a destination with bits behind its prefix.
        let dst = dst.trunc();
        self.instance.add_route(ifindex, &octets(dst.addr()), dst.prefix_len(), via.as_deref())
    }

    /// Sets a kernel variable: `path` is like `net/ipv4/tcp_rmem`.
    ///
    /// # Errors
    /// ENOENT, EINVAL (not a value for it).
    pub fn sysctl(&self, path: &str, value: &str) -> io::Result<()> {
        self.instance.write_file(&c_path("sys/", path)?, value.as_bytes()).map(drop)
    }

    /// Reads a file below `/proc`: `path` is like `net/snmp` or `sys/kernel/random/boot_id`.
    ///
    /// # Errors
    /// ENOENT, EISDIR.
    pub fn read_proc(&self, path: &str) -> io::Result<String> {
        let path = c_path("", path)?;
        let mut buffer = vec![0; 4 << 10];
        loop {
            let n = self.instance.read_file(&path, &mut buffer)?;
            if n < buffer.len() {
                buffer.truncate(n);
                return Ok(String::from_utf8_lossy(&buffer).into_owned());
            }
            buffer.resize(2 * n, 0);
        }
    }

    /// One of the kernel's counters.
    pub fn statistic(&self, what: Statistic) -> u64 {
        let number = match what {
            Statistic::Switches => 0,
            Statistic::Timers => 1,
            Statistic::FreeMemory => 2,
        };
        self.instance.stat(number).expect("statistic() is not called from a callback")
    }

    /// Ends the program by the kernel's own panic(): how a panic looks can be tried.
    pub fn panic(&self, message: &str) -> ! {
        let message = CString::new(message).unwrap_or_default();
        let answer = self.instance.panic(&message);
        unreachable!("a panic does not return {answer:?}")
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn c_path(root: &str, path: &str) -> io::Result<CString> {
    CString::new(format!("{root}{path}")).map_err(|_| io::Error::from_raw_os_error(libc::ENOENT))
}
