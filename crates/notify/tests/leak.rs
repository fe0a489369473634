//! Nothing stays behind: descriptors and threads of this process, counted. One test, as it counts.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod guest;

use guest::{Guest, connect, eventually};

fn count(what: &str) -> usize {
    std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count()
}

#[test]
fn no_descriptor_and_no_thread_is_left_behind() {
    // Whatever is opened once and kept.
    round();
    let (descriptors, threads) = (count("fd"), count("task"));
    for _ in 0..20 {
        round();
    }
    // A thread that ends has the last of them.
    eventually("the descriptors to be closed", || count("fd") == descriptors);
    eventually("the threads to be gone", || count("task") == threads);
}

fn round() {
    let (_guest, desk) = Guest::watched(|board| (0..5).for_each(|i| board.note(i, connect(0, 0, 0))));
    let call = desk.next();
    let thread = call.thread().unwrap();
    drop(thread.descriptor(netshunt_notify::TargetFd(0)));
    call.inject(desk.watch.hangup_fd(), true).unwrap();
    drop(desk.next());
    desk.next().proceed();
    let call = desk.next();
    let mut byte = [0];
    assert!(call.read(call.addr_arg(1), &mut byte).is_err());
    assert!(call.write(call.addr_arg(1), &byte).is_err());
    call.fail(libc::EPERM);
    let kept = desk.next();
    drop(desk);
    drop(kept);
}
