//! The `host-bypass` backend: connects a guest's own socket straight to its destination on the
//! host kernel. From then on its data never touches netshunt.
//!
//! The guest and the supervisor share one open file description, so the socket keeps every
//! duplicate, epoll registration and option it had. Two consequences shape this crate: the status
//! flags must never be changed (the guest would see `O_NONBLOCK` flicker), and a blocking socket
//! blocks whoever connects it, so that is done on a thread of its own, interruptible
//! when the guest takes a signal.
//!
//! Linux 5.14 or newer, as all of netshunt.
//!
//! ```
//! use netshunt_backend::registry;
//! use netshunt_bypass as _; // links the backend into this program
//!
//! assert_eq!(registry::names(), ["auto", "host-bypass"]);
//! ```
#![deny(unsafe_code)]

mod blocking;
mod sys;

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use netshunt_backend::{Backend, Error, Registration, Role, Settings, async_trait, inventory};

pub use sys::connect;

const NAME: &str = "host-bypass";

inventory::submit! {
    Registration {
        name: NAME,
        role: Role::Shunt,
        auto: None,
        summary: "connects the sockets a policy allows straight on the host kernel, at native speed",
        build: HostBypass::boxed,
    }
}

/// Connects guests' sockets on the host. Stateless: a bypassed socket is the host kernel's alone.
#[derive(Debug, Default)]
pub struct HostBypass;

impl HostBypass {
    fn boxed(settings: &Settings) -> Result<Box<dyn Backend>, Error> {
        settings.none_of(NAME)?;
        Ok(Box::new(HostBypass))
    }
}

#[async_trait]
impl Backend for HostBypass {
    fn name(&self) -> &'static str {
        NAME
    }

    fn role(&self) -> Role {
        Role::Shunt
    }

    async fn connect(&self, socket: BorrowedFd<'_>, to: SocketAddr, blocking: bool) -> io::Result<()> {
        if !blocking {
            return connect(socket, to);
        }
        blocking::connect(socket.try_clone_to_owned()?, to).await
    }
}
