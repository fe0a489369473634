//! What a call was given: its registers, and the memory of who makes it. A notification has both; tests have some of
//! their own, to hold what is read from them against the host's kernel.

#[cfg(test)]
pub(crate) mod written;

use netshunt_notify::{Fault, Notification, TargetAddr};

/// Of one call.
pub(crate) trait Arguments {
    /// A register: 0 to 5.
    fn arg(&self, i: usize) -> u64;

    /// Reads all of `into`.
    fn read(&self, at: TargetAddr, into: &mut [u8]) -> Result<(), Fault>;

    /// Writes all of `bytes`.
    fn write(&self, at: TargetAddr, bytes: &[u8]) -> Result<(), Fault>;

    /// A pointer.
    fn addr_arg(&self, i: usize) -> TargetAddr {
        TargetAddr(self.arg(i))
    }

    /// An `int`, of which only the low word counts.
    fn int_arg(&self, i: usize) -> i32 {
        self.arg(i) as i32
    }
}

impl Arguments for Notification {
    fn arg(&self, i: usize) -> u64 {
        Notification::arg(self, i)
    }

    fn read(&self, at: TargetAddr, into: &mut [u8]) -> Result<(), Fault> {
        Notification::read(self, at, into)
    }

    fn write(&self, at: TargetAddr, bytes: &[u8]) -> Result<(), Fault> {
        Notification::write(self, at, bytes)
    }
}
