//! A netshunt [`Link`](netshunt_backend::Link) over passt, a child process.
//!
//! passt turns the stack's TCP, UDP and ICMP echo into ordinary sockets on the host, as libslirp does,
//! but without a TCP of its own. Debian 12's version (2023) takes frames over a stream socket, newer ones
//! (2025) also from rings in shared memory (vhost-user). Register it by naming the crate once:
//! `use netshunt_passt as _;`.
//!
//! ```no_run
//! use netshunt_backend::{Backend, Settings};
//! use netshunt_passt::Passt;
//!
//! # async fn open() -> Result<(), netshunt_backend::Error> {
//! let passt = Passt::new(&Settings::default())?;
//! assert_eq!(passt.name(), "passt");
//! let link = passt.link().await?; // passt is started, and has answered
//! println!("{} as process {:?}", link.mode(), link.pid());
//! # Ok(()) }
//! ```
//!
//! # What it does not do
//! It judges nothing: passt connects to wherever a frame goes, the host's own addresses and, in older
//! versions, its loopback included. What may reach the host is the policy's work, before a frame exists.
//! It publishes no ports.
//!
//! # What it needs
//! Linux 5.11 (close_range(2)), and whatever passt needs, user namespaces before all. Whether it works
//! here is found out by starting it: [`Backend::open`](netshunt_backend::Backend::open) fails with its
//! last words.
#![deny(unsafe_code)]

mod backend;
mod batches;
mod child;
mod error;
mod frames;
mod hello;
mod host;
mod link;
mod mend;
mod options;
mod plan;
mod probe;
mod start;
mod stream;
mod sys;
mod vhost;
mod wire;
mod words;

pub use backend::Passt;
pub use error::Error;
pub use link::PasstLink;
pub use probe::{Probe, probe};
