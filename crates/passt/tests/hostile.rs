//! A far side that means ill, in place of passt: the link stays bounded, and gets rid of it.
//!
//! The fake is this test program, started again by a script that says to be passt.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod common;

use std::error::Error as _;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use common::*;
use netshunt_backend::{Link, Settings};
use netshunt_passt::{Passt, PasstLink};

const FD: &str = "NETSHUNT_FAKE_FD";

/// Opens a link to the fake that the test of that name plays.
fn open(name: &str, folder: &Path) -> Result<PasstLink, netshunt_backend::Error> {
    let exe = std::env::current_exe().unwrap();
    let script = format!(
        "#!/bin/sh
        help='--fd --foreground --no-map-gw --dns-forward --no-dhcp --no-dhcpv6 --no-ra'
        [ $1 = --help ] && {{ for option in $help; do echo \"  $option\"; done; exit 0; }}
        while [ $1 != --fd ]; do shift; done
        {FD}=$2 exec '{}' --exact {name} --nocapture",
        exe.display()
    );
    let program = folder.join("passt");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let mut settings = Settings::default();
    settings.ipv6 = false;
    settings.backends = format!("[passt]\nprogram = '{}'", program.display()).parse().unwrap();
    runtime().block_on(Passt::new(&settings).unwrap().link())
}

/// The fake's socket, if we are the fake.
fn socket() -> Option<UnixStream> {
    let fd = std::env::var(FD).ok()?.parse().unwrap();
    // SAFETY: the link has left this descriptor to us, and nothing else in this process knows it.
    Some(UnixStream::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Answers the first request for the router's address.
fn answer(socket: &mut UnixStream) {
    let mut frame = [0; 46];
    socket.read_exact(&mut frame).unwrap();
    frame[4 + 21] = 2;
    frame.copy_within(4 + 38..4 + 42, 4 + 28);
    socket.write_all(&frame).unwrap();
}

/// Waits until the link has closed the socket.
fn end(mut socket: UnixStream) {
    let mut buffer = [0; 4096];
    while socket.read(&mut buffer).is_ok_and(|count| count > 0) {}
}

#[test]
fn a_far_side_that_breaks_the_protocol_is_replaced_again_and_again() {
    if let Some(mut socket) = socket() {
        answer(&mut socket);
        // Until the link is open.
        socket.read_exact(&mut [0; 46]).unwrap();
        socket.write_all(&[0xff; 100]).unwrap();
        return end(socket);
    }
    let folder = tempfile::tempdir().unwrap();
    let name = "a_far_side_that_breaks_the_protocol_is_replaced_again_and_again";
    let mut wire = Wire::new(open(name, folder.path()).unwrap());
    let began = Instant::now();
    wire.until("four successors", |wire| {
        let request = arp_request(wire.mac, GUEST, GATEWAY);
        wire.send(&request);
        (wire.renewed == 4).then_some(())
    });
    // At once, and then after 100, 200 and 400 ms.
    assert!(began.elapsed() >= Duration::from_millis(700), "{:?}", began.elapsed());
}

#[test]
fn a_far_side_that_never_answers_does_not_open() {
    if let Some(socket) = socket() {
        eprintln!("no comment");
        return end(socket);
    }
    let folder = tempfile::tempdir().unwrap();
    let error = open("a_far_side_that_never_answers_does_not_open", folder.path()).unwrap_err();
    let why = error.source().unwrap().to_string();
    assert!(why.contains("it answers nothing for 5s") && why.contains("no comment"), "{why}");
}

#[test]
fn a_far_side_that_talks_without_end_is_heard_and_goes_on() {
    if let Some(mut socket) = socket() {
        std::thread::spawn(|| {
            // Where nobody reads fast enough its words are lost, and it does not wait.
            loop {
                let _ = std::io::stderr().write_all(&[b'x'; 8192]);
            }
        });
        (0..200).for_each(|_| answer(&mut socket));
        return end(socket);
    }
    let folder = tempfile::tempdir().unwrap();
    let name = "a_far_side_that_talks_without_end_is_heard_and_goes_on";
    let mut wire = Wire::new(open(name, folder.path()).unwrap());
    (0..100).for_each(|_| assert_eq!(wire.arp(), wire.mac));
    assert_eq!(wire.renewed, 0);
}

#[test]
fn a_far_side_that_sends_without_end_does_not_fill_memory() {
    if let Some(mut socket) = socket() {
        answer(&mut socket);
        let frames = [&[0, 0, 0, 14][..], &[7; 14]].concat().repeat(4096);
        while socket.write_all(&frames).is_ok() {}
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let name = "a_far_side_that_sends_without_end_does_not_fill_memory";
    let mut wire = Wire::new(open(name, folder.path()).unwrap());
    let before = resident();
    // Frames of ours that it does not read fill the wire, and then wait with the stack.
    let frame = vec![7; 9000];
    while wire.link.send(&[std::io::IoSlice::new(&frame)]) == netshunt_backend::Sent::Taken {}
    let (mut frames, mut most) = (0, 0);
    while frames < 1_000_000 {
        let count = wire.turn().len();
        (frames, most) = (frames + count, most.max(count));
    }
    assert!(most < 100_000, "{most} frames in one call");
    let grown = resident().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes more");
}

/// What this process has in memory, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}
