//! Guest threads: descriptors, names, and which thread takes a signal.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod guest;

use std::ffi::c_void;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::ptr;

use guest::{Board, Guest, UNSET, catch, connect, eventually};
use netshunt_notify::{Features, GuestThread, TargetFd};

/// In the guest: starts a thread that runs `routine`.
fn start(board: &Board, routine: extern "C" fn(*mut c_void) -> *mut c_void) {
    let mut thread = 0;
    // SAFETY: the board outlives the guest; glibc makes threads usable in the child of a fork.
    unsafe {
        libc::pthread_create(&raw mut thread, ptr::null(), routine, ptr::from_ref(board).cast_mut().cast())
    };
}

fn board(argument: *mut c_void) -> &'static Board {
    // SAFETY: `start` was given a board, which is never freed.
    unsafe { &*argument.cast::<Board>() }
}

/// In the guest.
fn block(signal: i32) {
    let set: u64 = 1 << (signal - 1);
    // SAFETY: reads eight bytes, the size of the kernel's signal set.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, &raw const set, ptr::null::<u64>(), 8)
    };
}

extern "C" fn call_7(argument: *mut c_void) -> *mut c_void {
    board(argument).note(0, connect(7, 0, 0));
    ptr::null_mut()
}

extern "C" fn wait_for_9(argument: *mut c_void) -> *mut c_void {
    let board = board(argument);
    board.set(8, 0);
    board.wait_in_guest(9);
    ptr::null_mut()
}

#[test]
fn what_a_thread_says_about_itself() {
    let (guest, desk) = Guest::watched(|board| {
        // SAFETY: reads a string.
        unsafe { libc::prctl(libc::PR_SET_NAME, c"a guest: 1".as_ptr()) };
        start(board, call_7);
        board.wait_in_guest(9);
    });
    let call = desk.next();
    let thread = call.thread().unwrap();
    assert_ne!(thread.tid().0, guest.pid);
    assert_eq!(thread.process().unwrap(), guest.pid);
    assert_eq!(thread.comm(), "a guest: 1");
    assert_eq!(thread.net_namespace().unwrap(), std::fs::metadata("/proc/self/ns/net").unwrap().ino());
    assert_eq!(thread.proc_path("cwd"), std::path::Path::new(&format!("/proc/{}/cwd", thread.tid())));
    assert_eq!(thread.proc_path("cwd").canonicalize().unwrap(), std::env::current_dir().unwrap());
    call.succeed(0);
    guest.board.set(9, 0);
}

#[test]
fn a_descriptor_is_the_same_open_file() {
    let (guest, desk) = Guest::watched(|board| {
        let mut ends = [0; 2];
        // SAFETY: writes two ints.
        unsafe { libc::pipe(ends.as_mut_ptr()) };
        connect(ends[1].into(), 0, 0);
        let mut byte = 0_u8;
        // SAFETY: reads one byte into a local.
        unsafe { libc::read(ends[0], (&raw mut byte).cast(), 1) };
        board.set(0, byte.into());
    });
    let call = desk.next();
    let thread = call.thread().unwrap();
    let ours = thread.descriptor(call.fd_arg(0)).unwrap();
    // SAFETY: integers only.
    assert_eq!(unsafe { libc::fcntl(ours.as_raw_fd(), libc::F_GETFD) }, libc::FD_CLOEXEC);
    std::fs::File::from(ours.into_fd()).write_all(b"!").unwrap();
    for wrong in [-1, 999, i32::MAX] {
        assert_eq!(thread.descriptor(TargetFd(wrong)).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
    call.succeed(0);
    assert_eq!(guest.board.wait(0), i64::from(b'!'));
}

#[test]
fn a_thread_that_calls_again_is_the_same_and_its_table_may_be_another() {
    let (guest, desk) = Guest::watched(|board| {
        for (n, own) in [(0, false), (1, false), (2, true)] {
            if own {
                // SAFETY: integers only.
                unsafe { libc::unshare(libc::CLONE_FILES) };
                // 7 is whatever another test happened to have open at the fork.
                for fd in [0, 7] {
                    // SAFETY: integers only; the test's own thread has no use for the guest's table.
                    unsafe { libc::close(fd) };
                }
            }
            board.note(n, connect(0, 0, 0));
        }
        start(board, call_7);
        board.wait_in_guest(9);
    });
    let mut tids = Vec::new();
    for _ in 0..2 {
        let call = desk.next();
        let (thread, _) = call.descriptor(call.fd_arg(0)).unwrap();
        tids.push(thread.tid());
        call.succeed(0);
    }
    let call = desk.next();
    assert_eq!(call.descriptor(call.fd_arg(0)).unwrap_err().raw_os_error(), Some(libc::EBADF));
    assert_eq!(tids, [call.tid(); 2]);
    call.succeed(0);
    let other = desk.next();
    assert!(!tids.contains(&other.tid()));
    assert_eq!(other.descriptor(other.fd_arg(0)).unwrap_err().raw_os_error(), Some(libc::EBADF));
    other.succeed(0);
    guest.board.set(9, 0);
}

#[test]
fn a_thread_outlives_its_leader_and_may_have_its_own_descriptors() {
    extern "C" fn own_table(argument: *mut c_void) -> *mut c_void {
        let board = board(argument);
        // SAFETY: integers only.
        unsafe { libc::unshare(libc::CLONE_FILES) };
        let mut ends = [0; 2];
        // SAFETY: writes two ints.
        unsafe { libc::pipe(ends.as_mut_ptr()) };
        // SAFETY: writes one byte from a static.
        unsafe { libc::write(ends[1], c"t".as_ptr().cast(), 1) };
        board.wait_in_guest(9);
        connect(ends[0].into(), 0, 0);
        ptr::null_mut()
    }
    let (guest, desk) = Guest::watched(|board| {
        start(board, own_table);
        // SAFETY: ends this thread alone.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    });
    let status = || std::fs::read_to_string(format!("/proc/{}/status", guest.pid)).unwrap();
    eventually("the leader to exit", || status().contains("State:\tZ"));
    guest.board.set(9, 0);
    let call = desk.next();
    let thread = call.thread().unwrap();
    assert_eq!(thread.process().unwrap(), guest.pid);
    if Features::detect().unwrap().pidfd_thread {
        let mut byte = [0];
        std::fs::File::from(thread.descriptor(call.fd_arg(0)).unwrap().into_fd())
            .read_exact(&mut byte)
            .unwrap();
        assert_eq!(byte, *b"t");
    } else {
        assert!(thread.descriptor(call.fd_arg(0)).is_err());
    }
    call.succeed(0);
}

#[test]
fn without_pidfds_of_threads_the_process_is_opened() {
    let (guest, desk) = Guest::watched(|board| {
        start(board, call_7);
        board.wait_in_guest(9);
    });
    let call = desk.next();
    let mut old = Features::detect().unwrap();
    old.pidfd_thread = false;
    let thread = GuestThread::open(call.tid(), &old).unwrap();
    assert_eq!(thread.tid(), call.tid());
    assert!(thread.descriptor(TargetFd(0)).is_ok());
    call.succeed(0);
    guest.board.set(9, 0);
}

/// The guest's calling thread once it waits, if this kernel lets signals wait for an answer.
fn waiting(desk: &guest::Desk) -> Option<(netshunt_notify::Notification, GuestThread)> {
    let call = desk.next();
    let thread = call.thread().unwrap();
    assert!(!thread.will_take_signal().unwrap());
    Features::detect().unwrap().wait_killable.then_some((call, thread))
}

#[test]
fn a_single_thread_takes_what_it_neither_blocks_nor_ignores() {
    let (guest, desk) = Guest::watched(|board| {
        catch(libc::SIGUSR1, 0);
        catch(libc::SIGHUP, 0);
        block(libc::SIGHUP);
        // SAFETY: ignores a signal.
        unsafe { libc::signal(libc::SIGUSR2, libc::SIG_IGN) };
        board.note(0, connect(0, 0, 0));
    });
    let Some((call, thread)) = waiting(&desk) else { return };
    // Ignored, ignored by default, blocked.
    for signal in [libc::SIGUSR2, libc::SIGCHLD, libc::SIGWINCH, libc::SIGHUP] {
        guest.signal(signal);
        assert!(!thread.will_take_signal().unwrap(), "{signal}");
    }
    guest.signal(libc::SIGUSR1);
    assert!(thread.will_take_signal().unwrap());
    call.restart();
    assert_eq!(guest.board.wait(0), -i64::from(libc::EINTR));
}

#[test]
fn a_signal_to_the_process_is_its_leaders() {
    let (guest, desk) = Guest::watched(|board| {
        catch(libc::SIGUSR1, 0);
        start(board, wait_for_9);
        // A new thread sets its mask of blocked signals, and then takes what is pending for the process.
        board.wait_in_guest(8);
        board.note(0, connect(0, 0, 0));
        board.set(9, 0);
    });
    let Some((call, thread)) = waiting(&desk) else { return };
    guest.signal(libc::SIGUSR1);
    assert!(thread.will_take_signal().unwrap());
    call.restart();
    assert_eq!(guest.board.wait(0), -i64::from(libc::EINTR));
}

#[test]
fn a_signal_to_the_process_is_not_its_other_threads_unless_all_block_it() {
    // Both threads wait in a notification, so a signal to the process stays pending.
    for leader_blocks in [false, true] {
        let (guest, desk) = Guest::watched(|board| {
            catch(libc::SIGUSR1, 0);
            start(board, call_7);
            if leader_blocks {
                block(libc::SIGUSR1);
            }
            board.note(1, connect(8, 0, 0));
            board.wait_in_guest(9);
        });
        let (one, other) = (desk.next(), desk.next());
        if !Features::detect().unwrap().wait_killable {
            return;
        }
        let (worker, leader) = if one.int_arg(0) == 7 { (one, other) } else { (other, one) };
        let (worker_thread, leader_thread) = (worker.thread().unwrap(), leader.thread().unwrap());
        assert_eq!(leader.tid().0, guest.pid);
        guest.signal(libc::SIGUSR1);
        assert_eq!(worker_thread.will_take_signal().unwrap(), leader_blocks);
        assert_eq!(leader_thread.will_take_signal().unwrap(), !leader_blocks);
        let (takes, waits) = if leader_blocks { (worker, leader) } else { (leader, worker) };
        let (takers, waiters) = if leader_blocks { (0, 1) } else { (1, 0) };
        takes.restart();
        assert_eq!(guest.board.wait(takers), -i64::from(libc::EINTR));
        assert_eq!(guest.board.get(waiters), UNSET);
        waits.succeed(4);
        assert_eq!(guest.board.wait(waiters), 4);
        guest.board.set(9, 0);
    }
}

#[test]
fn a_signal_to_the_thread_is_the_threads_own() {
    let (guest, desk) = Guest::watched(|board| {
        catch(libc::SIGUSR1, 0);
        start(board, call_7);
        board.wait_in_guest(9);
    });
    let Some((call, thread)) = waiting(&desk) else { return };
    guest.signal_thread(call.tid().0, libc::SIGUSR1);
    assert!(thread.will_take_signal().unwrap());
    call.restart();
    assert_eq!(guest.board.wait(0), -i64::from(libc::EINTR));
    guest.board.set(9, 0);
}
