//! Every way to answer, with real guests.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod guest;

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::sync::Arc;

use guest::{Guest, UNSET, catch, connect, eventually};
use netshunt_notify::{Features, Handler, Notification, TargetAddr, TargetFd, Watch};

#[test]
fn a_round_trip_carries_the_call() {
    let (mut guest, desk) =
        Guest::watched(|board| board.note(0, connect(7, 0xdead_0000, 0xffff_ffff_0000_0010)));
    let call = desk.next();
    assert_eq!(call.call(), libc::SYS_connect);
    assert_eq!(call.call_name(), "connect");
    assert_eq!(call.tid().0, guest.pid);
    assert_eq!(call.fd_arg(0), TargetFd(7));
    assert_eq!(call.addr_arg(1), TargetAddr(0xdead_0000));
    assert_eq!((call.arg(2), call.int_arg(2)), (0xffff_ffff_0000_0010, 16));
    assert!(call.is_valid());
    assert!(format!("{call:?}").contains("connect"));
    assert_eq!(guest.board.get(0), UNSET);
    call.succeed(42);
    assert_eq!(guest.board.wait(0), 42);
    assert_eq!(guest.end(), 0);
}

#[test]
fn failing_gives_the_errno_and_nonsense_gives_eio() {
    let (guest, desk) = Guest::watched(|board| (0..4).for_each(|i| board.note(i, connect(0, 0, 0))));
    for errno in [libc::ENETUNREACH, 0, -5, 5000] {
        desk.next().fail(errno);
    }
    assert_eq!(guest.board.wait(0), -i64::from(libc::ENETUNREACH));
    for cell in 1..4 {
        assert_eq!(guest.board.wait(cell), -i64::from(libc::EIO));
    }
}

#[test]
fn dropped_unanswered_it_answers_eio_once() {
    let (mut guest, desk) = Guest::watched(|board| {
        board.note(0, connect(0, 0, 0));
        board.note(1, connect(0, 0, 0));
    });
    drop(desk.next());
    assert_eq!(guest.board.wait(0), -i64::from(libc::EIO));
    // A second answer to the first call would be an answer to none: the next one still waits for its own.
    let second = desk.next();
    assert!(second.is_valid());
    assert_eq!(guest.board.get(1), UNSET);
    second.succeed(3);
    assert_eq!(guest.board.wait(1), 3);
    guest.end();
    eventually("the hang-up", || desk.watch.hung_up());
    assert!(desk.is_empty());
}

#[test]
fn a_handler_that_panics_answers_eio_and_serves_on() {
    struct Panics;
    impl Handler for Panics {
        fn handle(&self, call: Notification) {
            assert_ne!(call.int_arg(0), 1, "(this panic is part of the test)");
            call.succeed(5);
        }
    }
    let (guest, listener, features) = Guest::fork_with(
        |_| (),
        |board| {
            board.note(0, connect(1, 0, 0));
            board.note(1, connect(2, 0, 0));
        },
    );
    let _watch = Watch::start(listener, Arc::new(Panics), &features).unwrap();
    assert_eq!(guest.board.wait(0), -i64::from(libc::EIO));
    assert_eq!(guest.board.wait(1), 5);
}

#[test]
fn an_injected_descriptor_is_ours_and_has_the_flag_asked_for() {
    let (guest, desk) = Guest::watched(|board| {
        for cell in [0, 1] {
            let fd = connect(0, 0, 0);
            board.note(cell, fd);
            // SAFETY: integers only.
            board.note(cell + 2, unsafe { libc::fcntl(fd as i32, libc::F_GETFD) }.into());
            // SAFETY: writes one byte from a static.
            unsafe { libc::write(fd as i32, c"x".as_ptr().cast(), 1) };
        }
        board.wait_in_guest(9);
    });
    let mut file = tempfile();
    let first = desk.next().inject(file.as_fd(), true).unwrap();
    let second = desk.next().inject(file.as_fd(), false).unwrap();
    assert_eq!(guest.board.wait(0), i64::from(first.0));
    assert_eq!(guest.board.wait(1), i64::from(second.0));
    assert_eq!(guest.board.wait(2), i64::from(libc::FD_CLOEXEC));
    assert_eq!(guest.board.wait(3), 0);
    eventually("both bytes", || {
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text == "xx"
    });
    guest.board.set(9, 0);
}

#[test]
fn injecting_at_the_guests_limit_is_emfile_for_both() {
    let (guest, desk) = Guest::watched(|board| {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: reads one rlimit.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const none) };
        board.note(0, connect(0, 0, 0));
    });
    let file = tempfile();
    let error = desk.next().inject(file.as_fd(), true).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
    assert_eq!(guest.board.wait(0), -i64::from(libc::EMFILE));
}

#[test]
fn proceeding_is_the_kernels_own_call() {
    let (guest, desk) = Guest::watched(|board| {
        board.note(0, connect(-1, 0, 0));
        // SAFETY: integers only.
        board.note(1, unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) }.into());
    });
    desk.next().proceed();
    assert_eq!(guest.board.wait(0), -i64::from(libc::EBADF));
    let call = desk.next();
    assert_eq!(call.call_name(), "prctl");
    call.proceed();
    assert_eq!(guest.board.wait(1), 0);
}

#[test]
fn restarting_is_eintr_or_a_second_call_as_the_handler_was_registered() {
    for (flags, restarts) in [(0, false), (libc::SA_RESTART, true)] {
        let (guest, desk) = Guest::watched(|board| {
            catch(libc::SIGUSR1, flags);
            board.note(0, connect(0, 0, 0));
        });
        let call = desk.next();
        if Features::detect().unwrap().wait_killable {
            let thread = call.thread().unwrap();
            assert!(!thread.will_take_signal().unwrap());
            guest.signal(libc::SIGUSR1);
            eventually("the signal to be pending", || thread.will_take_signal().unwrap());
            assert!(call.is_valid(), "WAIT_KILLABLE_RECV keeps it waiting");
        } else {
            guest.signal(libc::SIGUSR1);
        }
        call.restart();
        if restarts {
            desk.next().succeed(8);
        }
        assert_eq!(guest.board.wait(0), if restarts { 8 } else { -i64::from(libc::EINTR) });
    }
}

#[test]
fn answers_to_a_guest_that_died_go_nowhere_quietly() {
    let (mut guest, desk) = Guest::watched(|board| board.note(0, connect(0, 0, 0)));
    let call = desk.next();
    let thread = call.thread().unwrap();
    guest.signal(libc::SIGKILL);
    guest.end();
    assert!(!call.is_valid());
    assert!(call.read(TargetAddr(4096), &mut [0; 4]).is_err());
    assert!(call.write(TargetAddr(4096), &[0; 4]).is_err());
    assert!(call.thread().is_err());
    assert_eq!(thread.descriptor(TargetFd(0)).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    assert!(thread.will_take_signal().is_err());
    assert_eq!(thread.comm(), "");
    call.succeed(0);
}

#[test]
fn the_end_of_the_last_guest_is_seen() {
    let (mut guest, desk) = Guest::watched(|board| {
        // SAFETY: the child makes system calls only.
        let child = unsafe { libc::fork() };
        if child == 0 {
            board.wait_in_guest(0);
            // SAFETY: ends the process.
            unsafe { libc::_exit(0) };
        }
        board.note(1, child.into());
    });
    let board = guest.board;
    assert!(board.wait(1) > 0);
    guest.end();
    assert!(!desk.watch.hung_up(), "a descendant is left");
    board.set(0, 0);
    let mut fds = [nix::poll::PollFd::new(desk.watch.hangup_fd(), nix::poll::PollFlags::POLLIN)];
    assert_eq!(nix::poll::poll(&mut fds, 20_000_u16), Ok(1));
    assert!(desk.watch.hung_up());
}

#[test]
fn after_stopping_guests_get_enosys() {
    let (guest, desk) = Guest::watched(|board| {
        board.note(0, connect(0, 0, 0));
        board.note(1, connect(0, 0, 0));
    });
    let unanswered = desk.next();
    desk.watch.stop();
    assert_eq!(guest.board.wait(0), -i64::from(libc::ENOSYS));
    assert_eq!(guest.board.wait(1), -i64::from(libc::ENOSYS));
    assert!(!unanswered.is_valid());
    unanswered.succeed(0);
}

/// An open file without a name.
fn tempfile() -> File {
    let file = nix::sys::memfd::memfd_create(c"test", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
    File::from(file)
}

/// `cargo test -p netshunt-notify --release --test answers -- --ignored --nocapture a_round_trip_takes`
#[test]
#[ignore = "a measurement; meaningful in release builds on an idle machine only"]
fn a_round_trip_takes() {
    struct Succeed;
    impl Handler for Succeed {
        fn handle(&self, call: Notification) {
            call.succeed(0);
        }
    }
    const CALLS: i64 = 20_000;
    let (guest, listener, features) = Guest::fork_with(
        |_| (),
        |board| {
            (0..CALLS).for_each(|_| {
                connect(0, 0, 0);
            });
            board.set(0, 0);
        },
    );
    let start = std::time::Instant::now();
    let _watch = Watch::start(listener, Arc::new(Succeed), &features).unwrap();
    guest.board.wait(0);
    println!("round trip: {:?}", start.elapsed() / CALLS as u32);
}
