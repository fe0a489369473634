//! Runs fuzz bodies as tests: the cases that were kept, and then new ones for a bounded time.
//!
//! A body is a function of an [`Input`] that makes of its bytes what a parser is given, and asserts what must hold:
//!
//! ```no_run
//! use netshunt_fuzz::{Input, fuzz};
//!
//! fn nothing_is_longer_than_it_was(input: &mut Input<'_>) {
//!     let bytes = input.bytes(64);
//!     let text = String::from_utf8_lossy(&bytes);
//!     assert!(text.trim().len() <= text.len());
//!     input.reached(text.trim().len());
//! }
//!
//! fuzz("trim", nothing_is_longer_than_it_was);
//! ```
//!
//! Knows nothing of what it runs. How to run it longer, and how to keep a case: README.md.

#![forbid(unsafe_code)]

mod attempt;
mod cases;
mod input;
mod random;
mod run;
mod shrink;
mod watch;

pub use input::Input;
pub use run::fuzz;
