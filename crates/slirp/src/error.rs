//! Why a slirp link cannot open; the source of [`netshunt_backend::Error::Open`].

use crate::plan::MTU_MAX;

/// What stands in the way of a link.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The MTU is outside what libslirp and the enabled protocols can carry.
    #[error("an MTU of {mtu} bytes is not within {least} to {}", MTU_MAX)]
    Mtu {
        /// The one asked for, in bytes.
        mtu: u16,
        /// The least for the protocols enabled.
        least: u16,
    },
    /// `slirp_new` returned nothing; libslirp has printed why to standard error.
    #[error("libslirp {version} refused its configuration")]
    Refused {
        /// The version of the library at run time.
        version: String,
    },
    /// This process has a slirp link already.
    #[error("a second slirp link in one process: libslirp's global state allows one")]
    Second,
}
