//! The kernel's log. Alone in its program: what other threads log without a subscriber makes tracing
//! forget that this one has one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io;
use std::sync::{Arc, Mutex};

use common::kernel;

/// A place for a log.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl io::Write for Page {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_kernels_log_is_traced() {
    let page = Page::default();
    let writer = page.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, || drop(kernel()));
    let log = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains(" INFO netshunt_lkl::kernel: Linux version 6.12."), "{log}");
    assert!(log.contains("clocksource: host:"), "{log}");
    // The kernel found nothing to complain about.
    assert!(!log.contains(" WARN ") && !log.contains(" ERROR "), "{log}");
}
