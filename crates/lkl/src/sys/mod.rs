//! The kernel library's C interface. Unsafe code lives here because everything behind these calls
//! is C: loading it, the memory it is given, and the functions it calls back.
//!
//! What the calls rely on, by the header `kernel/arch/lk/include/asm/lk.h`:
//! - **one thread**: an [`Instance`] is made by a successful start and is neither `Send` nor `Sync`;
//! - **no calls from callbacks, before the start or after the end**: the library answers errors;
//! - **handles** are checked by the library: any number is allowed;
//! - **buffers** are used during the call only: the library refuses the options and flags that
//!   would keep them.
#![allow(unsafe_code)]

mod answer;
mod api;
mod host;
mod instance;
mod memory;
mod socket;

pub(crate) use api::{Api, Event, NIC_GRO, NIC_RXCSUM, NIC_TXCSUM};
pub(crate) use instance::{Instance, Link};
