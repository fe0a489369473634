//! Rules to verdicts: may this guest socket reach that destination, and by which path?
//!
//! [`Policy`] judges internet destinations by one ordered list of [`Rule`]s; the first that
//! decides wins. [`UnixPolicy`] judges connect(2) on AF_UNIX, behind which host services would
//! otherwise open connections on a guest's behalf.
//!
//! Everything here is a pure function of plain values: no I/O, no clock, no state. Collecting the
//! host's addresses, resolving paths and carrying a verdict out is the supervisor's work.
//!
//! ```
//! use netshunt_policy::{Action, Destination, Policy, Surroundings, Verdict};
//!
//! let rules = vec![(Action::Bypass, "192.0.2.10:9000/tcp".parse()?), (Action::Deny, "10.0.0.0/8".parse()?)];
//! let around = Surroundings { link: true, shunt: true, ..Surroundings::default() };
//! let policy = Policy::new(rules, around)?;
//!
//! let verdict = |to: &str| policy.judge(&Destination::tcp(to.parse().unwrap())).verdict;
//! assert_eq!(verdict("192.0.2.10:9000"), Verdict::Bypass);
//! assert_eq!(verdict("192.0.2.10:9001"), Verdict::Stack);
//! assert!(matches!(verdict("10.1.2.3:443"), Verdict::Deny(_)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod decision;
mod deputies;
mod destination;
mod errno;
mod glob;
mod group;
mod net;
mod parse;
mod policy;
mod rule;
mod unix;

pub use decision::{Decision, Reason, Verdict};
pub use deputies::{DEPUTIES, Deputy};
pub use destination::{Destination, Direction, Proto};
pub use errno::Errno;
pub use group::Group;
pub use policy::{Policy, PolicyError, Surroundings};
pub use rule::{Action, Rule, RuleError};
pub use unix::{UnixName, UnixPolicy, UnixPolicyError, UnixVerdict};
