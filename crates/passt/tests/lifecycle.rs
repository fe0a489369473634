//! A passt lives as long as its link, and is replaced when it does not.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod common;

use std::io::Read;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::*;
use netshunt_backend::{Backend, Link, PollFd, Settings};
use netshunt_passt::Passt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// An MTU that no other passt on the machine is likely to have: it marks ours.
fn mark() -> u16 {
    1280 + (std::process::id() % 60_000) as u16
}

fn marked() -> Vec<i32> {
    processes(&format!("--mtu {}", mark()))
}

#[test]
fn a_passt_that_is_killed_is_replaced() {
    each("a_passt_that_is_killed_is_replaced", &[BARE, V4, V6], |case| {
        let mut wire = Wire::open(case);
        let router = wire.arp();
        let sink = UdpSocket::bind((HOST, 0)).unwrap();
        let port = sink.local_addr().unwrap().port();
        for round in 1..=3 {
            let pid = wire.link.pid().unwrap();
            // Traffic is under way.
            (0..100).for_each(|n| wire.send(&udp(wire.mac, HOST.into(), 5000 + n, port, &[7; 1000])));
            let killed = Instant::now();
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
            wire.until("renewal", |wire| (wire.renewed == round).then_some(()));
            assert_ne!(wire.link.pid().unwrap(), pid);
            // The stack still knows the router by the same address.
            assert_eq!(wire.arp(), router);
            assert!(round > 1 || killed.elapsed() < Duration::from_secs(1), "{:?}", killed.elapsed());
            assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "not reaped");
        }
    });
}

#[test]
fn a_dropped_link_leaves_nothing() {
    each("a_dropped_link_leaves_nothing", &[BARE, V4, V6], |case| {
        let mut wire = Wire::new(runtime().block_on(backend(case, Some(mark()), "").link()).unwrap());
        wire.arp();
        assert_eq!(marked(), [wire.link.pid().unwrap()]);
        drop(wire);
        assert_eq!(marked(), []);
        // Dropped while the next one is being started.
        let mut wire = Wire::new(runtime().block_on(backend(case, Some(mark()), "").link()).unwrap());
        kill(Pid::from_raw(wire.link.pid().unwrap()), Signal::SIGKILL).unwrap();
        wire.until("loss", |wire| wire.link.pid().is_none().then_some(()));
        drop(wire);
        eventually("every passt is gone", || marked().is_empty());
    });
}

#[test]
fn an_opening_that_is_given_up_leaves_nothing() {
    each("an_opening_that_is_given_up_leaves_nothing", &[BARE, V4, V6], |case| {
        let backend = backend(case, Some(mark()), "");
        let runtime = runtime();
        let mut given_up = 0;
        for micros in (0..20_000).step_by(1000) {
            let patience = Duration::from_micros(micros);
            let opened = runtime.block_on(async { tokio::time::timeout(patience, backend.open()).await });
            given_up += usize::from(opened.is_err());
            drop(opened);
            eventually("every passt is gone", || marked().is_empty());
        }
        assert!(given_up > 0);
    });
}

const HOLDER: &str = "NETSHUNT_CASE_HOLDER";

#[test]
fn killed_ourselves_we_leave_nothing() {
    each("killed_ourselves_we_leave_nothing", &[BARE, V4, V6], |case| {
        if let Ok(mtu) = std::env::var(HOLDER) {
            return hold(case, mtu.parse().unwrap());
        }
        let mut opened = 0;
        // At every stage of the start, and after it.
        for wait in (0..24).chain([5000]) {
            let mut holder = Command::new(std::env::current_exe().unwrap());
            holder.args(["--exact", "killed_ourselves_we_leave_nothing", "--nocapture"]);
            holder.env(HOLDER, mark().to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut holder = holder.spawn().unwrap();
            let mut output = holder.stdout.take().unwrap();
            if wait_for("holding", &mut output, Duration::from_millis(wait)) {
                opened += 1;
            }
            holder.kill().unwrap();
            assert_eq!(holder.wait().unwrap().signal(), Some(libc::SIGKILL));
            eventually("every passt is gone", || marked().is_empty());
        }
        assert!(opened > 0, "no link ever opened");
    });
}

/// Opens a link and says so, and then waits for the end.
fn hold(case: &Case, mtu: u16) {
    let link = runtime().block_on(backend(case, Some(mtu), "").link()).unwrap();
    println!("holding");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    drop(link);
}

/// Whether the word comes within that time.
fn wait_for(word: &str, from: &mut (impl Read + AsRawFd), patience: Duration) -> bool {
    let (end, mut text) = (Instant::now() + patience, String::new());
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let mut fds = [PollFd { fd: from.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
        poll(&mut fds, left);
        if fds[0].revents != 0 {
            let mut chunk = [0; 256];
            let count = from.read(&mut chunk).unwrap();
            text.push_str(&String::from_utf8_lossy(&chunk[..count]));
            if text.contains(word) {
                return true;
            }
            assert!(count > 0, "the holder ended: {text}");
        } else if left.is_zero() {
            return false;
        }
    }
}

#[test]
fn a_program_that_is_gone_is_the_end() {
    each("a_program_that_is_gone_is_the_end", &[BARE, V4, V6], |case| {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("passt");
        std::os::unix::fs::symlink(&case.program, &link).unwrap();
        let here = Case { program: link.clone(), mode: case.mode.clone() };
        let mut wire = Wire::open(&here);
        wire.arp();
        std::fs::remove_file(link).unwrap();
        kill(Pid::from_raw(wire.link.pid().unwrap()), Signal::SIGKILL).unwrap();
        let end = Instant::now() + DEADLINE;
        let error = loop {
            assert!(Instant::now() < end, "{:?}", wire.link);
            wire.link.receive(&mut |_| ());
            let mut fds = Vec::new();
            wire.link.interests(Instant::now(), &mut fds);
            poll(&mut fds, Duration::from_millis(20));
            match wire.link.turn(Instant::now(), &fds) {
                Ok(turned) => assert_eq!(turned, netshunt_backend::Turned::Alive),
                Err(error) => break error.to_string(),
            }
        };
        assert!(error.contains("link passt is dead: cannot start"), "{error}");
        // And it stays quiet.
        let mut fds = Vec::new();
        assert_eq!((wire.link.interests(Instant::now(), &mut fds), fds.len()), (None, 0));
    });
}

#[test]
fn without_passt_the_error_names_the_package() {
    let mut settings = Settings::default();
    settings.backends = "[passt]\nprogram = 'no-such-passt'".parse().unwrap();
    let error = runtime().block_on(Passt::new(&settings).unwrap().link()).unwrap_err();
    assert!(error.to_string().contains("install the Debian package passt"), "{error}");
}

#[test]
fn the_version_is_known() {
    for program in programs() {
        let probe = netshunt_passt::probe(Some(&program)).unwrap();
        assert!(probe.version.starts_with("0.0~git20"), "{probe:?}");
        assert!(probe.offers("--fd") && !probe.offers("--no-such"), "{probe:?}");
    }
}

#[test]
fn it_says_what_it_relies_on() {
    each("it_says_what_it_relies_on", &[BARE, V4], |case| {
        let backend = backend(case, None, "");
        drop(runtime().block_on(backend.open()).unwrap());
        let words = backend.relies_on().unwrap();
        let (program, mode) = (case.program.display(), &case.mode);
        assert!(words.starts_with("passt 0.0~git20"), "{words}");
        assert!(words.ends_with(&format!(", {program}, {mode}")), "{words}");
    });
}
