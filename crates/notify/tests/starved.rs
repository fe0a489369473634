//! Guests can have all of this process's descriptors used up. A test of its own: a limit is for all threads.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod guest;

use guest::{Guest, connect};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[test]
fn without_a_free_descriptor_it_still_stops_and_fails_closed() {
    let (guest, desk) = Guest::watched(|board| board.note(0, connect(0, 0, 0)));
    let unanswered = desk.next();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..limit }).unwrap();
    let open = || std::fs::File::open("/dev/null");
    let all: Vec<_> = std::iter::repeat_with(open).map_while(Result::ok).collect();
    assert_eq!(open().unwrap_err().raw_os_error(), Some(libc::EMFILE));
    desk.watch.stop();
    assert_eq!(guest.board.wait(0), -i64::from(libc::ENOSYS));
    drop((all, unanswered));
}
