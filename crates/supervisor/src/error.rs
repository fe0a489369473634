//! Why a guest could not be run.

use std::ffi::OsString;
use std::io;

/// Errors of [`run`](crate::run): all are netshunt's own, never the command's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A backend could not be opened.
    #[error(transparent)]
    Backend(#[from] netshunt_backend::Error),
    /// The command exists but cannot be executed.
    #[error("cannot execute {}", command.display())]
    Execute {
        /// What was asked for.
        command: OsString,
        /// What execve(2) said.
        source: io::Error,
    },
    /// The command would inherit a socket that cannot be mediated.
    #[error(
        "descriptor {number} is an internet datagram or packet socket, with which the command could send anywhere; \
         redirect or close it ({number}<&-)"
    )]
    Inherited {
        /// Its number.
        number: i32,
    },
    /// The stack did not start.
    #[error(transparent)]
    Kernel(#[from] netshunt_lkl::Error),
    /// There is no such command.
    #[error("command not found: {}", command.display())]
    NotFound {
        /// What was asked for.
        command: OsString,
    },
    /// seccomp user notification is not to be had.
    #[error(transparent)]
    Notify(#[from] netshunt_notify::Error),
    /// The rules do not fit the backends.
    #[error(transparent)]
    Policy(#[from] netshunt_policy::PolicyError),
    /// `--strict` and a layer is missing.
    #[error("--strict: this kernel lacks {missing}; run without --strict to accept that")]
    Strict {
        /// What is missing, and since which kernel it exists.
        missing: String,
    },
    /// A system call of the supervisor's own failed.
    #[error("cannot {doing}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: says what was being done.
    pub(crate) fn system(doing: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::System { doing, source }
    }
}
