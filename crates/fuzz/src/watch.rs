//! Looks that no case takes for ever, which would leave the test without a word.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::cases;

/// As long may one take.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(500);

/// The case that runs now, and since when; the watch ends with it.
#[derive(Clone, Debug)]
pub(crate) struct Watch(Arc<Running>);

type Running = Mutex<Option<(Instant, Vec<u8>)>>;

impl Watch {
    pub(crate) fn over(name: &str) -> Self {
        let watch = Watch(Arc::default());
        let (name, running) = (name.to_owned(), Arc::downgrade(&watch.0));
        thread::spawn(move || look(&name, &running));
        watch
    }

    pub(crate) fn runs(&self, case: &[u8]) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), case.to_vec()));
    }
}

/// A thread that hangs cannot be ended: the process is.
fn look(name: &str, running: &Weak<Running>) {
    while let Some(running) = running.upgrade() {
        if let Some((since, case)) = &*running.lock().unwrap_or_else(PoisonError::into_inner)
            && since.elapsed() > PATIENCE
        {
            let (path, case) = (cases::path(name), cases::hex(case));
            eprintln!(
                "{name}: a case takes more than {PATIENCE:?}; to keep it, add to {}:\n{case}",
                path.display()
            );
            std::process::abort();
        }
        drop(running);
        thread::park_timeout(LOOK);
    }
}
