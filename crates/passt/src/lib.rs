//! A netshunt [`Link`](netshunt_backend::Link) over passt, a child process.
#![deny(unsafe_code)]
#![allow(dead_code, reason = "under construction")]

mod vhost;
mod wire;
