//! The program in a real child: what is allowed, refused and deadly.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod guest;

use std::arch::asm;

use guest::{Board, Guest, connect};

/// In the guest: a system call as the kernel sees it, whatever its number.
fn raw(number: u64, first: u64, second: u64) -> i64 {
    let answer: i64;
    // SAFETY: the calls made here write nothing.
    unsafe {
        asm!("syscall", inlateout("rax") number as i64 => answer, in("rdi") first, in("rsi") second,
             in("rdx") 0, in("r10") 0, lateout("rcx") _, lateout("r11") _);
    }
    answer
}

fn dies_of_sigsys(body: impl FnOnce(&Board)) {
    let (mut guest, _desk) = Guest::watched(body);
    let board = guest.board;
    let status = guest.end();
    assert!(libc::WIFSIGNALED(status), "{status:#x}, {}", board.get(0));
    assert_eq!(libc::WTERMSIG(status), libc::SIGSYS);
}

#[test]
fn x32_is_deadly() {
    dies_of_sigsys(|board| board.set(0, raw(0x4000_0029, 2, 1)));
    dies_of_sigsys(|board| board.set(0, raw(0x4000_0000 + 39, 0, 0)));
}

#[test]
fn int_0x80_is_deadly() {
    dies_of_sigsys(|board| {
        let answer: i64;
        // SAFETY: socketcall(SYS_SOCKET) of a NULL argument list; it writes nothing.
        unsafe {
            asm!("push rbx", "mov ebx, 1", "int 0x80", "pop rbx", inlateout("rax") 102_i64 => answer,
                 in("rcx") 0, lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _);
        }
        board.set(0, answer);
    });
}

#[test]
fn what_needs_no_supervisor_is_decided_in_the_kernel() {
    let (guest, desk) = Guest::watched(|board| {
        let cases: [(i64, u64, u64); 8] = [
            (libc::SYS_io_uring_setup, 4, 0),
            (libc::SYS_io_uring_enter, 0, 0),
            (libc::SYS_io_uring_register, 0, 0),
            (libc::SYS_userfaultfd, libc::O_CLOEXEC as u64, 0),
            (libc::SYS_bpf, 0, 0),
            // Garbage above the low word changes nothing.
            (libc::SYS_socket, 0x1234_5678_0000_0002, 0x9abc_def0_0000_0001),
            (libc::SYS_socket, 1, 5),
            (libc::SYS_prctl, libc::PR_GET_DUMPABLE as u64, 0),
        ];
        for (cell, (number, first, second)) in (0..).zip(cases) {
            board.set(cell, raw(number as u64, first, second));
        }
        board.set(8, connect(0, 0, 0));
    });
    // The first notification is the last call.
    let call = desk.next();
    assert_eq!(call.call_name(), "connect");
    for cell in 0..3 {
        assert_eq!(guest.board.get(cell), -i64::from(libc::ENOSYS));
    }
    for cell in 3..5 {
        assert_eq!(guest.board.get(cell), -i64::from(libc::EPERM));
    }
    assert!(guest.board.get(5) >= 0);
    assert!(guest.board.get(6) >= 0);
    assert_eq!(guest.board.get(7), 1);
    call.succeed(0);
}

/// In the kernel, whatever stands above the low word; other calls of terminals are the kernel's own.
#[test]
fn nothing_is_typed_into_a_terminal() {
    let (mut guest, _desk) = Guest::watched(|board| {
        let calls = [libc::TIOCSTI, 0x541c, 0xffff_0000_0000 | libc::TIOCSTI, libc::TIOCGWINSZ, 0x4050_5412];
        for (cell, call) in (0..).zip(calls) {
            board.set(cell, raw(libc::SYS_ioctl as u64, u64::MAX, call));
        }
    });
    let board = guest.board;
    guest.end();
    let answers: Vec<i64> = (0..5).map(|cell| board.get(cell)).collect();
    let (eio, ebadf) = (-i64::from(libc::EIO), -i64::from(libc::EBADF));
    assert_eq!(answers, [eio, eio, eio, ebadf, ebadf]);
}

#[test]
fn what_the_table_notifies_is_notified() {
    let (_guest, desk) = Guest::watched(|_| {
        raw(libc::SYS_socket as u64, 2, 2);
        raw(libc::SYS_socket as u64, 17, 3);
        raw(libc::SYS_socket as u64, 1, 2);
        raw(libc::SYS_sendmsg as u64, 0, 0);
        raw(libc::SYS_bind as u64, 0, 0);
        raw(libc::SYS_listen as u64, 0, 0);
        raw(libc::SYS_getsockname as u64, 0, 0);
        raw(libc::SYS_getpeername as u64, 0, 0);
        raw(libc::SYS_setns as u64, 0, 0);
        raw(libc::SYS_ioctl as u64, 0, 0xffff_ffff_0000_8912);
        raw(libc::SYS_prctl as u64, libc::PR_SET_DUMPABLE as u64, 0);
        raw(500, 1, 2);
    });
    let expected = [
        "socket",
        "socket",
        "socket",
        "sendmsg",
        "bind",
        "listen",
        "getsockname",
        "getpeername",
        "setns",
        "ioctl",
        "prctl",
        "unknown",
    ];
    for name in expected {
        let call = desk.next();
        assert_eq!(call.call_name(), name);
        call.fail(libc::ENOSYS);
    }
}
