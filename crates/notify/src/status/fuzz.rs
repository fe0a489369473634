//! What proc(5) says of threads, whatever they call themselves.

use std::ffi::CString;

use netshunt_fuzz::{Input, fuzz};

use super::*;

fn named(input: &mut Input<'_>) {
    const PARTS: &[&[u8]] =
        &[b"Tgid:\t1", b"\nTgid:\t1\n", b"SigPnd:\t1", b"State:\tZ", b") Z 1", b"\r\n", "\u{85}".as_bytes()];
    let mut name =
        if input.one_in(2) { input.bytes(15) } else { [*input.pick(PARTS), &input.bytes(9)].concat() };
    name.retain(|byte| *byte != 0);
    nix::sys::prctl::set_name(&CString::new(name.clone()).unwrap()).unwrap();
    input.reached((name.is_ascii(), str::from_utf8(&name).is_ok(), name.contains(&b'\n'), name.is_empty()));
    let tid = Tid(nix::unistd::gettid().as_raw());
    let status = Status::read(tid).unwrap();
    assert_eq!((status.tgid, status.dead), (std::process::id().cast_signed(), false));
    assert!(status.threads > 0 && !will_take_signal(tid).unwrap());
}

#[test]
fn names_of_threads() {
    fuzz("names_of_threads", named);
}
