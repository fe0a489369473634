//! The kernel's side in miniature: classic BPF as seccomp runs it (kernel/seccomp.c,
//! `seccomp_check_filter`), to hold the compiled program against the table.

use libc::sock_filter;

use super::Program;
use crate::calls;
use crate::filter::{Action, Rule, decide, table};

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;

/// What the program returns for a call.
fn run(program: &[sock_filter], number: u32, arch: u32, args: &[u64; 6]) -> u32 {
    let word = |at: u32| match at {
        0 => number,
        4 => arch,
        _ => {
            let arg = args[(at as usize - 16) / 8];
            if at.is_multiple_of(8) { arg as u32 } else { (arg >> 32) as u32 }
        }
    };
    let mut accumulator = 0;
    let mut at = 0;
    loop {
        let instruction = &program[at];
        let k = instruction.k;
        at += 1;
        let mut jump = |taken: bool| {
            at += usize::from(if taken { instruction.jt } else { instruction.jf });
        };
        match u32::from(instruction.code) {
            // LD|W|ABS, ALU|AND|K, RET|K
            0x20 => accumulator = word(k),
            0x54 => accumulator &= k,
            0x06 => return k,
            // JMP|JA, JEQ, JGT, JGE, JSET
            0x05 => at += k as usize,
            0x15 => jump(accumulator == k),
            0x25 => jump(accumulator > k),
            0x35 => jump(accumulator >= k),
            0x45 => jump(accumulator & k != 0),
            code => panic!("instruction {code:#x} at {}", at - 1),
        }
    }
}

fn action(answer: u32) -> Option<Action> {
    match answer & 0xffff_0000 {
        0x7fff_0000 => Some(Action::Allow),
        0x7fc0_0000 => Some(Action::Notify),
        0x0005_0000 => Some(Action::Errno((answer & 0xffff) as i32)),
        _ => None,
    }
}

/// The high halves are the caller's garbage.
fn check_with_garbage(program: &Program, number: i64, args: [u64; 6]) {
    for garbage in [0, u64::MAX << 32, 0x8900_0004_0000_0000] {
        check(program, number, args.map(|arg| arg | garbage));
    }
}

fn check(program: &Program, number: i64, args: [u64; 6]) {
    let answer = run(&program.instructions, number as u32, X86_64, &args);
    assert_eq!(action(answer), Some(decide(number, &args)), "{:?} {args:x?}", calls::name(number));
}

/// Values at which some rule could change its mind.
fn interesting() -> Vec<u64> {
    let mut values: Vec<u64> = (0..70).collect();
    values.extend([132, 136, 255, 256, 262, 263, 270, 0x7fff_ffff, 0xffff_ffff]);
    values.extend([
        0x8900,
        0x8905,
        0x8927,
        0x8946,
        0x89ff,
        0x8a00,
        0x8800,
        0x5421,
        0x541b,
        0x1_8900 & 0xffff_ffff,
    ]);
    values.extend((0..32).map(|bit| 1 << bit));
    values.extend((0..32).map(|bit| (1 << bit) | libc::MSG_FASTOPEN as u64));
    values.extend((0..32).map(|bit| (1 << bit) | libc::CLONE_NEWNET as u64));
    values.extend((0..32).map(|bit| libc::PR_SET_DUMPABLE as u64 ^ (1 << bit)));
    values
}

#[test]
fn the_program_means_what_the_table_says() {
    let program = Program::new();
    let values = interesting();
    for number in (0..520).chain([0x3fff_ffff]) {
        check_with_garbage(&program, number, [0; 6]);
        check_with_garbage(&program, number, [u64::from(u32::MAX); 6]);
        let Some(name) = calls::name(number) else {
            assert_eq!(decide(number, &[0; 6]), Action::Notify);
            continue;
        };
        if !table().iter().any(|rule| rule.call == name) {
            assert_eq!(decide(number, &[0; 6]), Action::Allow);
            continue;
        }
        // Each argument by itself, and the pairs that rules combine.
        for arg in 0..6 {
            for &value in &values {
                let mut args = [0; 6];
                args[arg] = value;
                check_with_garbage(&program, number, args);
            }
        }
        for &first in &values {
            for &second in &values {
                check(&program, number, [first, second, 0, 0, 0, 0]);
                check(&program, number, [7, first, second, 0, 0, 0]);
            }
        }
    }
}

#[test]
fn sockets_of_every_family_type_and_protocol() {
    let program = Program::new();
    let flags = [0, libc::SOCK_NONBLOCK, libc::SOCK_CLOEXEC, libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0x10];
    let mut allowed = 0;
    for family in 0..=64 {
        for kind in 0..=16 {
            for flag in flags {
                for protocol in (0..=263).chain([-1]) {
                    let args = [family, (kind | flag) as u64, i64::from(protocol) as u64, 0, 0, 0];
                    check(&program, libc::SYS_socket, args);
                    let tcp = [2, 10].contains(&family) && kind == 1 && [0, 6].contains(&protocol);
                    let tied = family == 1 && [1, 5].contains(&kind);
                    if decide(libc::SYS_socket, &args) == Action::Allow {
                        assert!((tied || tcp) && flag != 0x10, "{args:?}");
                        allowed += 1;
                    }
                }
            }
        }
    }
    // UNIX with two types; two families, SOCK_STREAM, two protocols; flags in four spellings. (0x10 is none.)
    assert_eq!(allowed, 2 * 4 * 265 + 2 * 4 * 2);
}

#[test]
fn an_address_beside_the_data_is_seen_whichever_bit_of_the_pointer_is_set() {
    let program = Program::new();
    for address in (0..64).map(|bit| 1 << bit).chain([0, u64::MAX]) {
        for flags in [0, libc::MSG_NOSIGNAL, libc::MSG_FASTOPEN] {
            let args = [3, 0x7fff_0000, 1, flags as u64, address, 0];
            check(&program, libc::SYS_sendto, args);
            let expected = match (flags, address) {
                (libc::MSG_FASTOPEN, _) => Action::Errno(libc::EOPNOTSUPP),
                (_, 0) => Action::Allow,
                _ => Action::Notify,
            };
            assert_eq!(decide(libc::SYS_sendto, &args), expected, "{args:x?}");
        }
    }
}

#[test]
fn foreign_architectures_are_killed() {
    const KILL_PROCESS: u32 = 0x8000_0000;
    let program = Program::new();
    for number in [0, 3, 102, 359, 362] {
        assert_eq!(run(&program.instructions, number, I386, &[0; 6]), KILL_PROCESS);
    }
    // x32 has the same architecture and bit 30 of the number.
    for number in [0x4000_0000, 0x4000_0029, 0x4000_002a, 0x4000_0208] {
        assert_eq!(run(&program.instructions, number, X86_64, &[0; 6]), KILL_PROCESS);
    }
}

#[test]
fn the_decided_cases() {
    use Action::{Allow, Errno, Notify};
    let solid = libc::SOL_SOCKET as u64;
    let cases: &[(i64, [u64; 4], Action)] = &[
        (libc::SYS_socket, [2, 2, 0, 0], Notify),
        (libc::SYS_socket, [2, 1, 262, 0], Notify),
        (libc::SYS_socket, [16, 3, 0, 0], Notify),
        (libc::SYS_socket, [1, 2, 0, 0], Notify),
        (libc::SYS_socket, [1, 3, 0, 0], Notify),
        (libc::SYS_socket, [1, 5, 0, 0], Allow),
        (libc::SYS_socketpair, [1, 1, 0, 0], Allow),
        (libc::SYS_socketpair, [1, (libc::SOCK_DGRAM | libc::SOCK_CLOEXEC) as u64, 0, 0], Notify),
        (libc::SYS_connect, [3, 0x7fff_0000, 16, 0], Notify),
        (libc::SYS_accept4, [3, 0, 0, 0], Notify),
        (libc::SYS_setsockopt, [3, solid, libc::SO_RCVTIMEO as u64, 0], Allow),
        (libc::SYS_setsockopt, [3, solid, libc::SO_REUSEADDR as u64, 0], Notify),
        (libc::SYS_setsockopt, [3, solid, libc::SO_BINDTODEVICE as u64, 0], Notify),
        (libc::SYS_setsockopt, [3, 6, 1, 0], Notify),
        (libc::SYS_getsockopt, [3, solid, libc::SO_ERROR as u64, 0], Notify),
        (libc::SYS_getsockopt, [3, solid, libc::SO_TYPE as u64, 0], Notify),
        (libc::SYS_getsockopt, [3, solid, libc::SO_RCVBUF as u64, 0], Allow),
        (libc::SYS_getsockopt, [3, 6, libc::TCP_INFO as u64, 0], Notify),
        (libc::SYS_getsockopt, [3, 41, 26, 0], Notify),
        (libc::SYS_getsockopt, [3, 17, libc::UDP_GRO as u64, 0], Notify),
        (libc::SYS_getsockopt, [3, 270, 1, 0], Notify),
        (libc::SYS_getsockopt, [3, 282, 1, 0], Allow),
        (libc::SYS_recvfrom, [3, 0, 0, libc::MSG_PEEK as u64], Allow),
        (libc::SYS_recvfrom, [3, 0, 0, libc::MSG_ERRQUEUE as u64], Notify),
        (libc::SYS_recvmsg, [3, 0, 0, 0], Notify),
        (libc::SYS_recvmmsg, [3, 0, 1, 0], Notify),
        (libc::SYS_sendto, [3, 0, 0, libc::MSG_NOSIGNAL as u64], Allow),
        (libc::SYS_sendto, [3, 0, 0, libc::MSG_FASTOPEN as u64], Errno(libc::EOPNOTSUPP)),
        (libc::SYS_sendmsg, [3, 0, libc::MSG_FASTOPEN as u64, 0], Errno(libc::EOPNOTSUPP)),
        (libc::SYS_sendmsg, [3, 0, 0, 0], Notify),
        (libc::SYS_sendmmsg, [3, 0, 1, libc::MSG_FASTOPEN as u64], Errno(libc::EOPNOTSUPP)),
        (libc::SYS_sendmmsg, [3, 0, 1, 0], Notify),
        (libc::SYS_ioctl, [3, libc::FIONBIO, 0, 0], Allow),
        (libc::SYS_ioctl, [3, libc::SIOCGIFCONF, 0, 0], Notify),
        (libc::SYS_prctl, [libc::PR_SET_DUMPABLE as u64, 0, 0, 0], Notify),
        (libc::SYS_prctl, [libc::PR_SET_NAME as u64, 0, 0, 0], Allow),
        (libc::SYS_setns, [3, 0, 0, 0], Notify),
        (libc::SYS_setns, [3, libc::CLONE_NEWNET as u64, 0, 0], Notify),
        (libc::SYS_setns, [3, (libc::CLONE_NEWNET | libc::CLONE_NEWNS) as u64, 0, 0], Notify),
        (libc::SYS_setns, [3, (libc::CLONE_NEWUSER | libc::CLONE_NEWNS) as u64, 0, 0], Allow),
        (libc::SYS_io_uring_setup, [1, 0, 0, 0], Errno(libc::ENOSYS)),
        (libc::SYS_io_uring_enter, [1, 0, 0, 0], Errno(libc::ENOSYS)),
        (libc::SYS_userfaultfd, [libc::O_CLOEXEC as u64, 0, 0, 0], Errno(libc::EPERM)),
        (libc::SYS_userfaultfd, [1, 0, 0, 0], Allow),
        (libc::SYS_bpf, [0, 0, 0, 0], Errno(libc::EPERM)),
        (libc::SYS_request_key, [0x7fff_0000, 0x7fff_0000, 0, 0], Allow),
        (libc::SYS_request_key, [0x7fff_0000, 0x7fff_0000, 0x7fff_0000, 0], Errno(libc::ENOKEY)),
        (libc::SYS_request_key, [0x7fff_0000, 0x7fff_0000, 1 << 32, 0], Errno(libc::ENOKEY)),
        (libc::SYS_read, [0, 0, 0, 0], Allow),
        (500, [0, 0, 0, 0], Notify),
    ];
    for &(number, [a, b, c, d], expected) in cases {
        let args = [a, b, c, d, 0, 0];
        assert_eq!(decide(number, &args), expected, "{:?} {args:x?}", calls::name(number));
    }
}

#[test]
fn the_table_names_calls_that_exist_and_rules_that_do_not_overlap() {
    let values = interesting();
    for (at, rule) in table().iter().enumerate() {
        assert!(calls::number(rule.call).is_some(), "{}", rule.call);
        assert!(!rule.why.is_empty());
        let others: Vec<_> = table()[at + 1..].iter().filter(|other| other.call == rule.call).collect();
        for &first in &values {
            for &second in &values {
                for args in
                    [[first, second, 0, 0, 0, 0], [0, first, second, 0, 0, 0], [0, 0, first, second, 0, 0]]
                {
                    let holds = |rule: &Rule| rule.when.iter().all(|when| when.holds(&args));
                    if holds(rule) {
                        assert!(!others.iter().any(|other| holds(other)), "{} {args:x?}", rule.call);
                    }
                }
            }
        }
    }
}

#[test]
fn the_program_is_small() {
    let program = Program::new();
    println!("{} instructions", program.len());
    // BPF_MAXINSNS is 4096.
    assert!(program.len() < 2500, "{}", program.len());
}
