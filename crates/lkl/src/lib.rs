//! Linux's TCP/IP stack, in this process: a kernel built as a shared object (`kernel/` in this
//! crate's folder) and the safe binding to it.
//!
//! A [`Kernel`] lives on one thread and is driven by it: [`Kernel::run`] executes what is due and
//! says when it wants to run again. It sends and receives Ethernet frames through callbacks
//! ([`Kernel::add_nic`]) and offers non-blocking sockets whose readiness is reported as epoll's
//! edges ([`Kernel::events`]). It makes no system calls, starts no threads and opens no
//! descriptors: memory, time and entropy come from here.
//!
//! The library is loaded at run time; `cargo build` needs no kernel. `cargo xtask kernel` builds it.
//!
//! ```no_run
//! use netshunt_lkl::{Clock, Config, Kernel, Library, find};
//!
//! let library = Library::load(&find(None)?)?;
//! let kernel = Kernel::boot(&library, &Config::default(), Clock::Host)?;
//! let socket = kernel.socket(libc::AF_INET, libc::SOCK_STREAM, 0, 1)?;
//! kernel.bind(socket, "127.0.0.1:80".parse()?)?;
//! kernel.listen(socket, 16)?;
//! let deadline = kernel.run().map(|at| kernel.instant(at));
//! # drop(deadline);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(unsafe_code)]

mod address;
mod clock;
mod error;
mod find;
mod kernel;
mod kmsg;
mod library;
mod message;
mod nic;
mod socket;
mod sys;

pub use address::Name;
pub use clock::{Clock, VirtualClock};
pub use error::Error;
pub use find::find;
pub use kernel::{Config, Kernel, Statistic};
pub use library::Library;
pub use message::{Message, MessageRoom, Received};
pub use nic::{Nic, NicConfig, Transmit, TransmitFn};
pub use socket::{Event, Socket};
