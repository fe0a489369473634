//! Booting, and what a kernel says about itself.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::cell::Cell;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::time::Instant;

use netshunt_lkl::{
    Clock, Config, Error, Kernel, Library, NicConfig, Statistic, Transmit, TransmitFn, VirtualClock,
};

use common::{errno, kernel, library};

fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn it_boots_quickly() {
    let library = library();
    let (before, start) = (resident(), Instant::now());
    let kernel = Kernel::boot(&library, &Config::default(), Clock::Host).unwrap();
    println!(
        "Linux {}: booted in {:?}, {} KiB more resident (other tests included)",
        library.version(),
        start.elapsed(),
        resident().saturating_sub(before)
    );
    println!("{} MiB free", kernel.statistic(Statistic::FreeMemory) >> 20);
    assert!(library.version().starts_with("6.12."));
    assert!(kernel.read_proc("version").unwrap().contains(&library.version()));
    assert!(kernel.read_proc("net/dev").unwrap().contains("lo:"));
}

#[test]
fn it_boots_once() {
    let library = library();
    let first = Kernel::boot(&library, &Config::default(), Clock::Host).unwrap();
    let second = Kernel::boot(&library, &Config::default(), Clock::Host).unwrap_err();
    assert!(matches!(second, Error::AlreadyBooted), "{second}");
    drop(first);
    let third = Kernel::boot(&library, &Config::default(), Clock::Host).unwrap_err();
    assert!(matches!(third, Error::AlreadyBooted), "{third}");
}

#[test]
fn too_little_memory_is_an_error() {
    let library = library();
    let config = Config { memory: 1 << 20, ..Config::default() };
    let error = Kernel::boot(&library, &config, Clock::Host).unwrap_err();
    assert!(matches!(error, Error::Boot { memory: 1_048_576, .. }), "{error}");
    // A refused start is no start.
    Kernel::boot(&library, &Config::default(), Clock::Host).unwrap();
}

#[test]
fn what_is_no_library_is_an_error() {
    let error = Library::load(Path::new("/proc/self/exe")).unwrap_err();
    assert!(matches!(error, Error::Load { .. }), "{error}");
    let error = Library::load(Path::new("/nonexistent/liblkl.so")).unwrap_err();
    assert!(error.to_string().contains("`cargo xtask kernel`"), "{error}");
}

#[test]
fn variables_are_read_and_written() {
    let kernel = kernel();
    kernel.sysctl("net/ipv4/tcp_rmem", "4096 65536 8388608").unwrap();
    assert_eq!(kernel.read_proc("sys/net/ipv4/tcp_rmem").unwrap(), "4096\t65536\t8388608\n");
    assert_eq!(errno(kernel.sysctl("net/ipv4/no_such_thing", "1")), Some(libc::ENOENT));
    assert_eq!(errno(kernel.sysctl("net/ipv4/ip_forward", "apple")), Some(libc::EINVAL));
    let algorithms = kernel.read_proc("sys/net/ipv4/tcp_available_congestion_control").unwrap();
    for algorithm in ["bbr", "cubic", "reno"] {
        assert!(algorithms.contains(algorithm), "{algorithms}");
    }
}

#[test]
fn entropy_comes_from_the_host() {
    // One and the same time: only entropy can make a difference.
    let ids: Vec<String> = (0..2)
        .map(|_| common::boot(64 << 20, Clock::Virtual(VirtualClock::new())))
        .map(|kernel| kernel.read_proc("sys/kernel/random/boot_id").unwrap())
        .collect();
    assert_eq!(ids[0].len(), 37);
    assert_ne!(ids[0], ids[1]);
    let kernel = kernel();
    assert_eq!(kernel.read_proc("sys/kernel/random/entropy_avail").unwrap(), "256\n");
}

#[test]
fn it_sleeps_when_idle() {
    let clock = VirtualClock::new();
    let kernel = common::boot(64 << 20, Clock::Virtual(clock.clone()));
    let mut turns = 0;
    // Long enough that idle worker threads end (after 5 minutes), and give their stacks back.
    let minutes = 20;
    let end = clock.now() + minutes * 60_000_000_000;
    while clock.now() < end {
        turns += 1;
        clock.advance_to(kernel.run().unwrap_or(end));
    }
    println!("{turns} turns in {minutes} minutes");
    assert!(turns < 100 * minutes, "{turns} turns in {minutes} idle minutes: does the tick stop?");
    assert!(kernel.socket(libc::AF_INET, libc::SOCK_STREAM, 0, 0).is_ok());
}

#[test]
fn addresses_and_routes_of_both_families() {
    let kernel = kernel();
    let nic = NicConfig::new([2, 0, 0, 0, 0, 1], 1500);
    let nic = kernel.add_nic(nic, Box::new(|_| Transmit::Taken)).unwrap();
    assert_eq!(errno(kernel.receive(nic, &[0; 60])), Some(libc::ENETDOWN));
    let route = |to: &str, via: Option<&str>| {
        kernel.add_route(to.parse().unwrap(), via.map(|via| via.parse().unwrap()), nic.ifindex)
    };
    assert_eq!(errno(route("0.0.0.0/0", Some("10.0.2.2"))), Some(libc::ENETUNREACH));
    assert_eq!(errno(route("0.0.0.0/0", None)), Some(libc::ENETDOWN));
    kernel.interface_up(nic.ifindex).unwrap();
    kernel.add_address(nic.ifindex, "10.0.2.15/24".parse().unwrap()).unwrap();
    kernel.add_address(nic.ifindex, "fd00::15/64".parse().unwrap()).unwrap();
    assert_eq!(errno(kernel.add_address(nic.ifindex, "10.0.2.15/24".parse().unwrap())), Some(libc::EEXIST));
    assert_eq!(errno(kernel.add_address(99, "10.0.3.1/24".parse().unwrap())), Some(libc::ENODEV));
    route("0.0.0.0/0", Some("10.0.2.2")).unwrap();
    route("::/0", Some("fd00::2")).unwrap();
    route("192.0.2.77/24", None).unwrap();
    route("2001:db8::/32", None).unwrap();
    assert_eq!(errno(route("198.51.100.0/24", Some("203.0.113.1"))), Some(libc::ENETUNREACH));
    assert_eq!(errno(route("198.51.100.0/24", Some("fd00::2"))), Some(libc::EINVAL));

    let routes = kernel.read_proc("net/route").unwrap();
    assert!(routes.contains("00000000\t0202000A"), "{routes}");
    assert!(routes.contains("000200C0\t00000000"), "{routes}");
    let addresses = kernel.read_proc("net/if_inet6").unwrap();
    // The flags (fifth column) say permanent 80 and nodad 02, not tentative 40.
    assert!(addresses.contains("fd000000000000000000000000000015 02 40 00 82"), "{addresses}");
    // An address can be bound the moment it is there.
    let socket = kernel.socket(libc::AF_INET6, libc::SOCK_DGRAM, 0, 0).unwrap();
    kernel.bind(socket, "[fd00::15]:53".parse().unwrap()).unwrap();
    kernel.connect(socket, "[2001:4860::1]:53".parse().unwrap()).unwrap();
}

#[test]
fn a_callback_cannot_call_the_kernel() {
    let kernel = Rc::new(kernel());
    let seen = Rc::new(Cell::new(None));
    let (inner, answer) = (Rc::downgrade(&kernel), Rc::clone(&seen));
    let transmit: TransmitFn = Box::new(move |_| {
        let kernel = inner.upgrade().expect("we are inside of it");
        let socket = kernel.socket(libc::AF_INET, libc::SOCK_STREAM, 0, 0);
        answer.set(socket.unwrap_err().raw_os_error());
        Transmit::Taken
    });
    let nic = kernel.add_nic(NicConfig::new([2, 0, 0, 0, 0, 1], 1500), transmit).unwrap();
    kernel.interface_up(nic.ifindex).unwrap();
    kernel.add_address(nic.ifindex, "10.0.2.15/24".parse().unwrap()).unwrap();
    let socket = kernel.socket(libc::AF_INET, libc::SOCK_DGRAM, 0, 0).unwrap();
    kernel.send_to(socket, b"x", "10.0.2.2:9".parse().unwrap()).unwrap();
    kernel.run();
    assert_eq!(seen.get(), Some(libc::EDEADLK));
    // It is as good as before.
    assert!(kernel.socket(libc::AF_INET, libc::SOCK_STREAM, 0, 0).is_ok());
}

/// What a child process does instead of being a test.
const CHILD: &str = "NETSHUNT_LKL_CHILD";

/// Runs `test` in a child process, which must abort; returns what that said.
fn aborted(test: &str) -> String {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr).into_owned();
    assert_eq!(child.status.signal(), Some(libc::SIGABRT), "{said}");
    said
}

#[test]
fn a_panic_ends_the_program_with_the_kernels_message() {
    if std::env::var_os(CHILD).is_some() {
        kernel().panic("the sky fell");
    }
    let said = aborted("a_panic_ends_the_program_with_the_kernels_message");
    assert!(said.contains("the kernel library panicked: the sky fell"), "{said}");
}

#[test]
fn a_panicking_callback_ends_the_program() {
    if std::env::var_os(CHILD).is_some() {
        let kernel = kernel();
        let nic = kernel
            .add_nic(NicConfig::new([2, 0, 0, 0, 0, 1], 1500), Box::new(|_| panic!("a bad wire")))
            .unwrap();
        kernel.interface_up(nic.ifindex).unwrap();
        kernel.add_address(nic.ifindex, "10.0.2.15/24".parse().unwrap()).unwrap();
        let socket = kernel.socket(libc::AF_INET, libc::SOCK_DGRAM, 0, 0).unwrap();
        let _ = kernel.send_to(socket, b"x", "10.0.2.2:9".parse().unwrap());
        kernel.run();
        return;
    }
    let said = aborted("a_panicking_callback_ends_the_program");
    assert!(said.contains("a bad wire"), "{said}");
}
