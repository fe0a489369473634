//! A netshunt [`Link`](netshunt_backend::Link) over libslirp 4.7, in process.
//!
//! libslirp answers the stack's Ethernet frames as a small router would and turns its TCP, UDP and
//! ICMP echo into ordinary sockets of this process. No helper program, no privilege, no system call
//! between the stack and libslirp. Register it by naming the crate once: `use netshunt_slirp as _;`.
//!
//! ```
//! use netshunt_backend::{Backend, Settings};
//! use netshunt_slirp::Slirp;
//!
//! let backend = Slirp::new(&Settings::default()).unwrap();
//! assert_eq!(backend.name(), "slirp");
//! let network = backend.network();
//! assert_eq!(network.v4.unwrap().address.to_string(), "10.0.2.15/24");
//! // Frames to these addresses reach the host's own loopback: the policy protects them.
//! assert!(network.host.iter().any(|net| net.to_string() == "10.0.2.2/32"));
//! ```
//!
//! # Where it helps libslirp
//! IPv4 fragments are joined before libslirp sees them, and a connection that fails on the host fails in
//! the stack with the same errno: libslirp itself keeps silent about ICMP errors.
//!
//! # What it does not do
//! It judges nothing: libslirp's only access rule, `disable_host_loopback`, is one switch for every
//! port, so what may reach the host is the policy's work, before a frame exists. Its DHCP and TFTP
//! servers are off.
//!
//! # One link in a process
//! libslirp 4.7 keeps its clock and its cache of the host's name servers in unprotected globals, so
//! two instances on two threads would race. Opening a second link while the first lives is an error
//! ([`Error::Second`]); a link may move between threads, as each call takes it exclusively.
//!
//! # What the process owes it
//! libslirp writes to sockets without `MSG_NOSIGNAL`: `SIGPIPE` must stay ignored, as Rust's runtime
//! leaves it. It sets `FD_CLOEXEC` in a second step after socket(2): a program that starts others from
//! another thread closes what it did not mean to pass on.
#![deny(unsafe_code)]

mod attempts;
mod backend;
mod error;
mod farewells;
mod fragments;
mod frames;
mod link;
mod loopback;
mod plan;
mod sys;

pub use backend::Slirp;
pub use error::Error;
pub use link::{Counters, SlirpLink};
