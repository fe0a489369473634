//! Network devices.

use std::io::{self, IoSlice};

use crate::sys::{Link, NIC_GRO, NIC_RXCSUM, NIC_TXCSUM};
use crate::{Error, Kernel};

/// How a network device is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NicConfig {
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Largest IP packet in bytes, 68 to 65520.
    pub mtu: u16,
    /// The wire takes TCP and UDP frames whose checksum is only begun, in pieces.
    pub tx_checksum_offload: bool,
    /// TCP and UDP checksums of received frames need no verification.
    pub rx_checksum_offload: bool,
    /// Merge received segments of one connection (the kernel's GRO): pays with a small MTU.
    pub merge_received: bool,
}

impl NicConfig {
    /// A device on a wire that is not to be trusted: all checksums are computed and verified.
    pub fn new(mac: [u8; 6], mtu: u16) -> Self {
        Self { mac, mtu, tx_checksum_offload: false, rx_checksum_offload: false, merge_received: true }
    }
}

/// A network device of one [`Kernel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Nic {
    handle: u64,
    /// Its interface index.
    pub ifindex: u32,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Transmit {
    /// No room now: the kernel keeps the frame, and offers it again on [`Kernel::wake`].
    Busy,
    /// The wire took the frame (or lost it, as Ethernet may).
    Taken,
}

/// The wire of a network device: takes a frame in pieces.
pub type TransmitFn = Box<dyn FnMut(&[IoSlice<'_>]) -> Transmit>;

impl Kernel {
    /// Adds a network device, down and without addresses.
    ///
    /// `transmit` gets each Ethernet frame (no FCS) in pieces. It runs inside of the kernel's calls,
    /// possibly on a stack of 124 KiB, and must not call this kernel: that answers EDEADLK. It must
    /// not panic either: the program would be aborted.
    ///
    /// # Errors
    /// [`Error::Nic`]: EINVAL for a multicast MAC or an MTU out of range, ENOMEM.
    pub fn add_nic(&self, nic: NicConfig, transmit: TransmitFn) -> Result<Nic, Error> {
        let flags = [
            (nic.tx_checksum_offload, NIC_TXCSUM),
            (nic.rx_checksum_offload, NIC_RXCSUM),
            (nic.merge_received, NIC_GRO),
        ];
        let flags = flags.iter().filter(|(on, _)| *on).fold(0, |all, (_, flag)| all | flag);
        let link = Link { mac: nic.mac, mtu: nic.mtu.into(), flags, transmit };
        let (handle, ifindex) = self.instance.add_nic(link).map_err(|source| Error::Nic { source })?;
        Ok(Nic { handle, ifindex })
    }

    /// Queues a received Ethernet frame (no FCS). The kernel looks at it in the next
    /// [`poll`](Self::poll) or [`run`](Self::run): call that after a batch.
    ///
    /// # Errors
    /// The frame is dropped: ENOBUFS (4096 are waiting), ENOMEM, ENETDOWN (the interface is down),
    /// EINVAL (no frame of the device's MTU), EBADF.
    pub fn receive(&self, nic: Nic, frame: &[u8]) -> io::Result<()> {
        self.instance.receive(nic.handle, frame)
    }

    /// The wire has room again: the refused frame is offered again, and those behind it.
    ///
    /// Does nothing for a device of another kernel, or from inside of a callback.
    pub fn wake(&self, nic: Nic) {
        if let Err(error) = self.instance.wake(nic.handle) {
            tracing::debug!(?nic, %error, "wake");
        }
    }
}
