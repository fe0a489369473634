//! Guest memory: reading, writing, faults, and pages that hold their reader for ever.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod guest;

use std::ptr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use guest::{Board, DEADLINE, Guest, connect};
use netshunt_notify::{Fault, Notification, TargetAddr};

const PAGE: u64 = 4096;

/// In the guest: `pages` pages of which the last is then unmapped again.
fn pages_before_a_hole(pages: u64, protection: i32) -> u64 {
    let len = (pages * PAGE) as usize;
    // SAFETY: a new anonymous mapping, at an address of the kernel's choice.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    // SAFETY: the bytes are mapped, and nobody else's.
    unsafe { ptr::write_bytes(start.cast::<u8>(), b'g', len) };
    let last = start.wrapping_byte_add(len - PAGE as usize);
    // SAFETY: the last page of it.
    unsafe { libc::munmap(last, PAGE as usize) };
    // SAFETY: the pages before it.
    unsafe { libc::mprotect(start, len - PAGE as usize, protection) };
    start.addr() as u64
}

const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Runs `test` on the watch's thread, where access is timed, and in this one.
fn both_ways(body: impl Fn(&Board), test: impl Fn(&Notification) + Send + Sync + Clone + 'static) {
    let (_guest, desk) = Guest::watched(|board| {
        body(board);
        body(board);
    });
    let call = desk.next();
    test(&call);
    call.succeed(0);
    let call = desk.next();
    let (done, wait) = mpsc::channel();
    desk.run(move || {
        test(&call);
        call.succeed(0);
        done.send(()).unwrap();
    });
    wait.recv_timeout(DEADLINE).expect("the job to succeed on the watch's thread");
}

#[test]
fn reads_cross_pages_and_end_where_memory_does() {
    let body = |_: &Board| {
        connect(0, pages_before_a_hole(3, READ_WRITE), 0);
    };
    both_ways(body, |call| {
        let start = call.addr_arg(1);
        let end = start.plus(2 * PAGE).unwrap();
        let mut bytes = [0; 200];
        call.read(TargetAddr(start.0 + PAGE - 100), &mut bytes).unwrap();
        assert_eq!(bytes, [b'g'; 200], "across a page's end");
        call.read(TargetAddr(end.0 - 200), &mut bytes).unwrap();
        assert_eq!(call.read(TargetAddr(end.0 - 199), &mut bytes), Err(Fault::Access));
        assert_eq!(call.read(end, &mut bytes), Err(Fault::Access));
        for nowhere in [0, 8, 1 << 47, u64::MAX, u64::MAX - 100, 0xffff_8000_0000_0000] {
            assert_eq!(call.read(TargetAddr(nowhere), &mut bytes), Err(Fault::Access), "{nowhere:#x}");
        }
        assert_eq!(call.read(end, &mut []), Ok(()), "nothing is nowhere");
    });
}

#[test]
fn writes_cross_pages_and_end_where_memory_does() {
    let body = |_: &Board| {
        connect(0, pages_before_a_hole(3, READ_WRITE), 0);
    };
    both_ways(body, |call| {
        let start = call.addr_arg(1);
        let end = start.plus(2 * PAGE).unwrap();
        let mut back = [0; 200];
        call.write(TargetAddr(start.0 + PAGE - 100), &[b'w'; 200]).unwrap();
        call.read(TargetAddr(start.0 + PAGE - 100), &mut back).unwrap();
        assert_eq!(back, [b'w'; 200]);
        call.write(TargetAddr(end.0 - 200), &[b'e'; 200]).unwrap();
        assert_eq!(call.write(TargetAddr(end.0 - 199), &[b'x'; 200]), Err(Fault::Access));
        for nowhere in [0, 8, end.0, 1 << 47, u64::MAX, u64::MAX - 100, 0xffff_8000_0000_0000] {
            assert_eq!(call.write(TargetAddr(nowhere), &[b'x'; 200]), Err(Fault::Access), "{nowhere:#x}");
        }
    });
}

#[test]
fn the_guest_sees_what_was_written() {
    let (guest, desk) = Guest::watched(|board| {
        let mut word = 1_i64;
        connect(0, (&raw mut word).addr() as u64, 8);
        // SAFETY: a local; read anew, as the kernel's writes are invisible to the compiler.
        board.set(0, unsafe { ptr::read_volatile(&raw const word) });
    });
    let call = desk.next();
    call.write(call.addr_arg(1), &77_i64.to_ne_bytes()).unwrap();
    call.succeed(0);
    assert_eq!(guest.board.wait(0), 77);
}

#[test]
fn unreadable_pages_fault() {
    let body = |_: &Board| {
        connect(0, pages_before_a_hole(2, libc::PROT_NONE), 0);
    };
    both_ways(body, |call| assert_eq!(call.read(call.addr_arg(1), &mut [0; 8]), Err(Fault::Access)));
}

/// In the guest, before the filter: a page that a userfaultfd of nobody's handles.
fn page_that_blocks() -> Option<u64> {
    const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
    const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
    const MISSING: u64 = 1;
    // SAFETY: integers only.
    let uffd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) } as i32;
    let mut api = [0xaa_u64, 0, 0];
    // SAFETY: UFFDIO_API takes a struct of three u64.
    let known = unsafe { libc::ioctl(uffd, UFFDIO_API, api.as_mut_ptr()) };
    // SAFETY: a new anonymous mapping, at an address of the kernel's choice.
    let page = unsafe {
        libc::mmap(ptr::null_mut(), 4096, READ_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    };
    let page = page.addr() as u64;
    let mut range = [page, PAGE, MISSING, 0];
    // SAFETY: UFFDIO_REGISTER takes a struct of four u64.
    let registered = unsafe { libc::ioctl(uffd, UFFDIO_REGISTER, range.as_mut_ptr()) };
    (uffd >= 0 && known == 0 && registered == 0).then_some(page)
}

/// In the test: a guest with such a page, which passes it to `connect(0, …)` twice, and a child of it that
/// calls `connect(1, …)` once cell 5 is set.
fn guest_that_blocks() -> (Guest, guest::Desk) {
    let (guest, desk) = Guest::watched_with(
        |board| board.set(10, page_that_blocks().map_or(0, |page| page as i64)),
        |board| {
            // SAFETY: the child makes system calls only.
            let other = unsafe { libc::fork() };
            if other == 0 {
                board.wait_in_guest(5);
                board.note(1, connect(1, 0, 0));
                // SAFETY: ends the process.
                unsafe { libc::_exit(0) };
            }
            board.note(0, connect(0, board.get(10) as u64, 0));
            board.wait_in_guest(6);
            board.note(2, connect(2, board.get(10) as u64, 0));
            board.wait_in_guest(7);
        },
    );
    assert_ne!(guest.board.get(10), 0, "no userfaultfd: are you root?");
    (guest, desk)
}

#[test]
#[ignore = "needs root: only a privileged userfaultfd holds faults that other processes take"]
fn a_guest_that_blocks_its_reader_is_answered_and_others_are_served() {
    let (guest, desk) = guest_that_blocks();
    let first = desk.next();
    let (done, outcome) = mpsc::channel();
    let start = Instant::now();
    desk.run(move || {
        let outcome = first.read(first.addr_arg(1), &mut [0; 8]);
        first.succeed(0);
        done.send(outcome).unwrap();
    });
    // The other guest calls while the watch is held, and is answered.
    guest.board.set(5, 0);
    desk.next().succeed(9);
    assert_eq!(guest.board.wait(1), 9);
    assert_eq!(guest.board.wait(0), -i64::from(libc::EFAULT));
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    assert!(outcome.try_recv().is_err(), "its reader is still held");
    guest.board.set(6, 0);
    check_barred(&desk, desk.next());
    assert_eq!(guest.board.wait(2), -i64::from(libc::EFAULT));
    // When the guest dies the thread comes back, and finds that it was relieved.
    drop(guest);
    assert_eq!(outcome.recv_timeout(DEADLINE), Ok(Err(Fault::Access)));
}

#[test]
#[ignore = "needs root: only a privileged userfaultfd holds faults that other processes take"]
fn a_watch_that_is_held_can_be_stopped() {
    let (guest, desk) = guest_that_blocks();
    let first = desk.next();
    desk.run(move || {
        let _ = first.read(first.addr_arg(1), &mut [0; 8]);
    });
    let start = Instant::now();
    desk.watch.stop();
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    assert_eq!(guest.board.wait(0), -i64::from(libc::ENOSYS));
}

/// The process's memory is not accessed again: at once a fault, not after another second.
fn check_barred(desk: &guest::Desk, call: Notification) {
    let (done, wait) = mpsc::channel();
    desk.run(move || {
        let start = Instant::now();
        let outcome = call.read(call.addr_arg(1), &mut [0; 8]);
        done.send((outcome, start.elapsed())).unwrap();
        call.fail(libc::EFAULT);
    });
    let (outcome, elapsed) = wait.recv_timeout(DEADLINE).unwrap();
    assert_eq!(outcome, Err(Fault::Access));
    assert!(elapsed < Duration::from_millis(500), "{elapsed:?}");
}
