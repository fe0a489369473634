//! The words every netshunt backend shares: the [`Backend`] trait, the [`registry`] that finds
//! backends by name, the [`Link`] that carries Ethernet frames, and the rules for composing them.
//!
//! A backend has one of two roles. A *link* ([`Role::Link`]) carries the frames of the in-process
//! TCP/IP stack to the outside: slirp, passt. A *shunt* ([`Role::Shunt`]) connects a guest's own
//! socket on the host kernel, past the stack: host-bypass. `--net=` names at most one of each; the link
//! `auto`, which this crate registers, is the first of the others that works.
//!
//! This crate does no I/O and decides nothing about destinations (that is `netshunt-policy`).
//!
//! ```
//! use netshunt_backend::{Composition, Error};
//!
//! // Nothing is registered in this doc test: the error names what is.
//! let error = Composition::parse("slirp,host-bypass").unwrap_err();
//! assert!(matches!(error, Error::Unknown { .. }));
//! assert!(Composition::parse("none").unwrap().link.is_none());
//! ```
#![forbid(unsafe_code)]

mod auto;
mod backend;
mod compose;
mod error;
mod link;
mod publish;
pub mod registry;
mod threads;

pub use async_trait::async_trait;
pub use backend::{Backend, Role, Settings};
pub use compose::Composition;
pub use error::Error;
pub use inventory;
pub use link::{Link, Network, PollFd, Sent, Turned, V4, V6};
pub use publish::{Protocol, Publish, PublishError};
pub use registry::Registration;
pub use threads::on_a_thread;
