//! seccomp user notifications: a guest's system calls, answered by another process.
//!
//! - [`filter`]: which calls are allowed, refused or notified, as a table of data, and the
//!   [`Program`] the kernel takes.
//! - [`Listener`] and [`Watch`]: receiving notifications, on one thread that cannot be held up.
//! - [`Notification`]: a call of the guest that *must* be answered, exactly once. Dropped unanswered
//!   it answers `EIO`.
//! - [`TargetAddr`], [`TargetFd`], [`Tid`], [`GuestThread`]: what belongs to the guest has types of its
//!   own, so it cannot be taken for ours.
//!
//! There is no policy here, and nothing about networks: the handler decides.
//!
//! ```no_run
//! use std::os::fd::BorrowedFd;
//! use std::sync::Arc;
//! use netshunt_notify::{Features, Handler, Listener, ListenerNumber, Notification, Program, Watch};
//!
//! struct Refuse;
//! impl Handler for Refuse {
//!     fn handle(&self, call: Notification) {
//!         eprintln!("{} is not for guests", call.call_name());
//!         call.fail(1); // EPERM
//!     }
//! }
//!
//! # fn example(child: BorrowedFd<'_>, number: ListenerNumber) -> Result<(), Box<dyn std::error::Error>> {
//! let features = Features::detect()?;
//! let program = Program::new();
//! // In the child, between fork and exec: `let number = program.install(&features)?;`
//! let listener = Listener::take(child, number, &features)?;
//! let watch = Watch::start(listener, Arc::new(Refuse), &features)?;
//! # drop(watch); Ok(())
//! # }
//! ```
#![deny(unsafe_code)]

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("netshunt-notify knows the system calls of Linux on x86-64 only");

// The tests' guests say `netshunt_notify`, wherever they are compiled.
#[cfg(test)]
extern crate self as netshunt_notify;

mod calls;
mod duplicate;
mod error;
pub mod filter;
mod kernel;
mod listener;
mod memory;
mod monitor;
mod notification;
mod program;
mod relief;
mod status;
mod sys;
mod thread;
mod watch;

pub use duplicate::{Duplicate, setting_linger};
pub use error::Error;
pub use kernel::{Features, KernelVersion, Missing};
pub use listener::{Listener, ListenerNumber};
pub use memory::{Fault, TargetAddr};
pub use notification::{Notification, NotifyId};
pub use program::Program;
pub use thread::{GuestThread, TargetFd, Tid};
pub use watch::{Handler, Waker, Watch};
