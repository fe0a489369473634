//! Why passt does not work here; the source of [`netshunt_backend::Error::Open`].

use std::io;
use std::path::PathBuf;

use crate::plan::MTU_MAX;

/// What stands in the way of a passt link.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program started, and then did not do what it is for.
    #[error("passt does not work here: {why}")]
    Broken {
        /// How it ended, and its last words.
        why: String,
    },
    /// Whoever waited for the link has given up.
    #[error("given up")]
    Cancelled,
    /// The host's own addresses cannot be the guest's.
    #[error("cannot give the stack the host's addresses: {why}")]
    Host {
        /// What is missing.
        why: String,
    },
    /// There is no such program.
    #[error("there is no {}", program.display())]
    Missing {
        /// What was looked for.
        program: PathBuf,
    },
    /// The MTU is outside what passt and the enabled protocols can carry.
    #[error("an MTU of {mtu} bytes is not within {least} to {}", MTU_MAX)]
    Mtu {
        /// The one asked for, in bytes.
        mtu: u16,
        /// The least for the protocols enabled.
        least: u16,
    },
    /// It could not be started.
    #[error("cannot start {}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The program lacks an option that it is not safe without.
    #[error("{} does not know {option}", program.display())]
    TooOld {
        /// The program.
        program: PathBuf,
        /// The option.
        option: &'static str,
    },
}
