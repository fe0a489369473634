//! One call of a body.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use crate::Input;

/// What came of it.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It panicked, saying so.
    Failed(String),
    /// The places that it reached.
    Passed(BTreeSet<u64>),
}

pub(crate) fn attempt(body: &dyn Fn(&mut Input<'_>), case: &[u8]) -> Outcome {
    listen();
    SAID.set(Some(String::new()));
    let mut input = Input::new(case);
    let result = panic::catch_unwind(AssertUnwindSafe(|| body(&mut input)));
    let said = SAID.take().unwrap_or_default();
    match result {
        Ok(()) => Outcome::Passed(input.reached),
        Err(_) => Outcome::Failed(said),
    }
}

thread_local! {
    /// What a panic says, while one would not be the test's end.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Has panics in [`attempt`] kept, which are many while a case is made smaller, and others told as ever.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let kept =
                SAID.with_borrow_mut(|said| said.as_mut().map(|said| *said = panic.to_string()).is_some());
            if !kept {
                usual(panic);
            }
        }));
    });
}
