//! The wire to a running passt, whichever protocol it speaks.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, IoSlice};
use std::time::Duration;

use netshunt_backend::{PollFd, Sent};

/// One connection to a running passt. No method waits.
pub(crate) trait Wire: Send + fmt::Debug {
    /// Takes one Ethernet frame, given in pieces, or nothing of it. What is taken may stay here until
    /// the next call of any other method.
    fn send(&mut self, frame: &[IoSlice<'_>]) -> Sent;

    /// Delivers frames that have arrived, oldest first, a bounded number of them; whether there were any.
    fn receive(&mut self, deliver: &mut dyn FnMut(&[u8])) -> Result<bool, Lost>;

    /// Appends the descriptors to poll; after how long at the latest to call [`turn`](Self::turn), if at all.
    fn interests(&mut self, fds: &mut Vec<PollFd>) -> Option<Duration>;

    /// What it has taken and passt has not, in bytes or frames: 0 for nothing.
    fn unsent(&mut self) -> u64;

    /// Does what the polled descriptors allow. `fds` are the entries that `interests` appended.
    fn turn(&mut self, fds: &[PollFd]) -> Result<(), Lost>;
}

/// Why a wire is of no more use: the far side is gone, or not to be trusted any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    /// The far side closed its end.
    #[error("it closed its socket")]
    Closed,
    /// A system call failed.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What for.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It said what no passt says.
    #[error("it broke the protocol: {0}")]
    Protocol(Cow<'static, str>),
}
