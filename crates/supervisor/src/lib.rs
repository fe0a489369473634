//! Runs a command with a network of its own: a real Linux TCP/IP stack in this process, whose
//! frames leave through one link, and, where a policy allows, single sockets connected straight on
//! the host by a shunt. The command needs no privileges, no namespaces and no preparation.
//!
//! This crate composes the others: `netshunt-notify` brings the guest's system calls,
//! `netshunt-policy` decides, a [`Backend`](netshunt_backend::Backend) carries out, and
//! `netshunt-lkl` is the stack. It prints nothing and reads no configuration: that is a front
//! end's work (`netshunt`, the command line, is one).
//!
//! ```no_run
//! use netshunt_supervisor::{Config, End, run};
//!
//! # async fn example() -> Result<(), netshunt_supervisor::Error> {
//! // No link and no shunt: the guest has its own loopback, and nothing beyond.
//! let outcome = run(Config::new(vec!["true".into()])).await?;
//! assert_eq!(outcome.end, End::Exited(0));
//! # Ok(()) }
//! ```
//!
//! Linux 5.14 or newer, x86-64.
#![deny(unsafe_code)]

mod address;
mod calls;
mod config;
mod control;
mod descendants;
mod ends;
mod errand;
mod error;
mod flow;
mod flows;
mod guest;
mod heirlooms;
mod holders;
mod host;
mod inet_diag;
mod inherited;
mod inline;
mod job;
mod netlink;
mod options;
mod park;
mod pending;
mod places;
mod points;
mod routes;
mod run;
mod sockets;
mod stack;
mod sys;
mod unix_diag;
mod waits;

pub use config::{Config, Counters, Dns, End, Outcome};
pub use error::Error;
pub use flow::{Flow, FlowSink};
pub use host::surroundings;
pub use job::Job;
pub use run::run;
