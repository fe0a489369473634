//! Our own exit status: the command's, or why there was none.

use std::process::ExitCode;

use netshunt_supervisor::{End, Error};

use crate::{say, sys};

/// netshunt itself failed, usage included. Like env(1), nohup(1) and timeout(1).
pub(crate) const FAILED: u8 = 125;
/// The command exists but cannot be executed.
const CANNOT_EXECUTE: u8 = 126;
/// There is no such command.
const NOT_FOUND: u8 = 127;

/// What to do when all is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// Exit with this status.
    Status(u8),
    /// Die of the signal that killed the command, so that our parent sees what it would have
    /// seen without us.
    Signal(i32),
}

impl From<End> for Leave {
    fn from(end: End) -> Self {
        match end {
            // The kernel keeps the low byte of exit(3).
            End::Exited(status) => Leave::Status((status & 0xff) as u8),
            End::Signaled(signal) => Leave::Signal(signal),
        }
    }
}

impl Leave {
    /// Ends: by the signal at once, else with the status to return from `main`.
    pub(crate) fn leave(self) -> ExitCode {
        match self {
            Leave::Status(status) => ExitCode::from(status),
            Leave::Signal(signal) => {
                sys::die_of(signal);
                // Only if the signal cannot kill: what a shell would have made of it.
                ExitCode::from(128_u8.saturating_add(u8::try_from(signal).unwrap_or(0)))
            }
        }
    }
}

/// Says what went wrong and gives the status that goes with it.
pub(crate) fn fail(error: &anyhow::Error) -> ExitCode {
    say::line(format_args!("{error:#}"));
    ExitCode::from(match error.downcast_ref::<Error>() {
        Some(Error::Execute { .. }) => CANNOT_EXECUTE,
        Some(Error::NotFound { .. }) => NOT_FOUND,
        _ => FAILED,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_what_wait_would_have_shown() {
        assert_eq!(Leave::from(End::Exited(3)), Leave::Status(3));
        assert_eq!(Leave::from(End::Signaled(libc::SIGTERM)), Leave::Signal(libc::SIGTERM));
    }
}
