//! A future that is polled by whoever wakes it, at once and on that thread.
//!
//! A blocking connect(2) runs on a thread of its own, and the guest waits for its answer: when that thread
//! is done it gives the answer itself, instead of waking another one for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use tokio::runtime::Handle;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The future, until it is done or cancelled. Polling it must not take long.
pub(crate) struct Inline {
    runtime: Handle,
    state: Mutex<State>,
}

enum State {
    Idle(Task),
    /// Somebody polls it; `again` if it has been woken meanwhile.
    Polled {
        again: bool,
    },
    Over,
}

impl Inline {
    pub(crate) fn new(runtime: Handle, future: impl Future<Output = ()> + Send + 'static) -> Arc<Self> {
        Arc::new(Inline { runtime, state: Mutex::new(State::Idle(Box::pin(future))) })
    }

    /// Polls it for the first time.
    pub(crate) fn start(self: Arc<Self>) {
        self.wake();
    }

    /// Drops the future, unless it is done or about to be; whether it did.
    pub(crate) fn cancel(&self) -> bool {
        let Some(task) = self.take(false) else { return false };
        *self.lock() = State::Over;
        let _inside = self.runtime.enter();
        drop(task);
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The future, if nobody else has it; whoever has is told to poll it `again`.
    fn take(&self, again: bool) -> Option<Task> {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Polled { again: false }) {
            State::Idle(task) => return Some(task),
            State::Over => *state = State::Over,
            State::Polled { again: before } => *state = State::Polled { again: before || again },
        }
        None
    }

    /// Gives it back, unless it has to be polled again.
    fn put(&self, task: Task) -> Option<Task> {
        let mut state = self.lock();
        if matches!(*state, State::Polled { again: true }) {
            *state = State::Polled { again: false };
            return Some(task);
        }
        *state = State::Idle(task);
        None
    }
}

impl Wake for Inline {
    fn wake(self: Arc<Self>) {
        let _inside = self.runtime.enter();
        let waker = Waker::from(self.clone());
        let mut taken = self.take(true);
        while let Some(mut task) = taken {
            taken = match task.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Pending => self.put(task),
                Poll::Ready(()) => {
                    *self.lock() = State::Over;
                    None
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use tokio::sync::oneshot;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().unwrap()
    }

    #[test]
    fn it_goes_on_where_it_is_woken() {
        let runtime = runtime();
        let ((wake, woken), (tell, told)) = (oneshot::channel::<()>(), mpsc::channel());
        let task = Inline::new(runtime.handle().clone(), async move {
            tell.send(thread::current().id()).unwrap();
            woken.await.unwrap();
            tell.send(thread::current().id()).unwrap();
        });
        task.start();
        assert_eq!(told.recv(), Ok(thread::current().id()));
        let waker = thread::spawn(move || {
            wake.send(()).unwrap();
            thread::current().id()
        });
        assert_eq!(told.recv(), Ok(waker.join().unwrap()));
        assert!(told.recv().is_err(), "the future is gone");
    }

    #[test]
    fn one_that_wakes_itself_is_polled_again() {
        let runtime = runtime();
        let (tell, told) = mpsc::channel();
        let mut rounds = 0;
        let task = Inline::new(
            runtime.handle().clone(),
            std::future::poll_fn(move |context| {
                rounds += 1;
                context.waker().wake_by_ref();
                tell.send(rounds).unwrap();
                if rounds == 3 { Poll::Ready(()) } else { Poll::Pending }
            }),
        );
        task.start();
        assert_eq!(told.iter().collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn cancelled_it_is_dropped_and_never_polled_again() {
        let runtime = runtime();
        let ((wake, woken), (tell, told)) = (oneshot::channel::<()>(), mpsc::channel::<()>());
        let task = Inline::new(runtime.handle().clone(), async move {
            let _ = woken.await;
            tell.send(()).unwrap();
        });
        task.clone().start();
        assert!(task.cancel() && !task.cancel());
        assert!(told.recv().is_err());
        assert!(wake.send(()).is_err());
        task.start();
    }
}
