//! Relief without a real page that blocks (that needs root: `tests/memory.rs`): the access itself is a
//! stand-in, everything around it is real.

#[allow(unsafe_code, reason = "forks guests")]
#[path = "../../tests/guest/mod.rs"]
mod guest;

use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Instant;

use guest::{DEADLINE, Guest, connect};

use super::{HELD_MAX, Relief};
use crate::{Fault, Tid};

#[test]
fn a_held_watch_is_relieved_and_the_process_barred() {
    let (guest, desk) = Guest::watched(|board| {
        board.note(0, connect(0, 0, 0));
        board.note(1, connect(1, 0, 0));
        board.wait_in_guest(9);
    });
    let call = desk.next();
    let (release, held) = mpsc::channel::<()>();
    let (done, outcome) = mpsc::channel();
    let start = Instant::now();
    desk.run(move || {
        let (id, tid) = (call.id().0, call.tid());
        done.send(call.shared.relief.guard(id, tid, || held.recv().map_err(|_| Fault::Access))).unwrap();
        call.succeed(0);
    });
    // The thread's call is answered though its reader is held, and its next one is received.
    assert_eq!(guest.board.wait(0), -i64::from(libc::EFAULT));
    assert!(start.elapsed() >= super::DEADLINE);
    let next = desk.next();
    assert_eq!(next.int_arg(0), 1);
    let (id, tid) = (next.id().0, next.tid());
    assert_eq!(next.shared.relief.held.load(Ordering::SeqCst), 1);
    let barred: Result<(), Fault> = next.shared.relief.guard(id, tid, || unreachable!("barred"));
    assert_eq!(barred, Err(Fault::Access));
    // Woken on the successor while the first is held still.
    let (ran, run) = mpsc::channel();
    desk.run(move || ran.send(()).unwrap());
    run.recv_timeout(DEADLINE).expect("a successor");
    assert!(outcome.try_recv().is_err());
    release.send(()).unwrap();
    assert_eq!(outcome.recv_timeout(DEADLINE), Ok(Err(Fault::Access)), "too late is a fault");
    guest::eventually("the held thread's return", || next.shared.relief.held.load(Ordering::SeqCst) == 0);
    next.succeed(6);
    assert_eq!(guest.board.wait(1), 6);
    guest.board.set(9, 0);
}

#[test]
fn an_access_in_time_is_left_alone() {
    let (guest, desk) = Guest::watched(|board| board.note(0, connect(0, 0, 0)));
    let call = desk.next();
    desk.run(move || {
        let (id, tid) = (call.id().0, call.tid());
        for value in 0..1000 {
            assert_eq!(call.shared.relief.guard(id, tid, || Ok(value)), Ok(value));
            let fault: Result<(), Fault> = call.shared.relief.guard(id, tid, || Err(Fault::Access));
            assert_eq!(fault, Err(Fault::Access));
        }
        call.succeed(1);
    });
    assert_eq!(guest.board.wait(0), 1);
}

#[test]
fn with_too_many_held_no_memory_is_accessed() {
    let relief = Relief::new();
    let me = Tid(nix::unistd::gettid().as_raw());
    relief.held.store(HELD_MAX, Ordering::SeqCst);
    let refused: Result<(), Fault> = relief.guard(1, me, || unreachable!("too many are held"));
    assert_eq!(refused, Err(Fault::Access));
    relief.held.store(HELD_MAX - 1, Ordering::SeqCst);
    assert_eq!(relief.guard(1, me, || Ok(5)), Ok(5));
}
