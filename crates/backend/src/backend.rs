//! The trait a plug-in implements.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use async_trait::async_trait;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{Error, Link, Publish};

/// What a backend is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Carries Ethernet frames for the stack.
    Link,
    /// Connects guest sockets on the host kernel.
    Shunt,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Link => "link",
            Role::Shunt => "shunt",
        })
    }
}

/// What every backend is told when it is built. More fields may come: start from `default()`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Largest IP packet of the link, in bytes (RFC 791; 1280 is the least for IPv6, RFC 8200);
    /// `None` for what suits the link best.
    pub mtu: Option<u16>,
    /// Whether the link should offer IPv6.
    pub ipv6: bool,
    /// Ports of the host that the link is to lead to the stack.
    pub publish: Vec<Publish>,
    /// What the configuration says for single backends: their tables, by their names.
    pub backends: toml::Table,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { mtu: None, ipv6: true, publish: Vec::new(), backends: toml::Table::new() }
    }
}

impl Settings {
    /// What the configuration says for the backend `name` alone; the default when it says nothing.
    ///
    /// # Errors
    /// [`Error::Options`]: `T` does not know a key, or wants another value.
    pub fn of<T: DeserializeOwned + Default>(&self, name: &'static str) -> Result<T, Error> {
        let Some(table) = self.backends.get(name) else { return Ok(T::default()) };
        table.clone().try_into().map_err(|source| Error::Options { name, source })
    }

    /// Finds out whether the ports to be published are to be had: for a link, before it opens.
    ///
    /// # Errors
    /// [`Error::Publish`]: one is not, or the link does not carry its family.
    pub fn check_published(&self) -> Result<(), Error> {
        for publish in &self.publish {
            let failed = |at: String, source| Error::Publish { publish: *publish, at, source };
            if publish.address.is_some_and(|address| address.is_ipv6()) && !self.ipv6 {
                let source = io::Error::from_raw_os_error(libc::EAFNOSUPPORT);
                return Err(failed("IPv6 is off".to_owned(), source));
            }
            publish.check(self.ipv6).map_err(|(at, source)| failed(at.to_string(), source))?;
        }
        Ok(())
    }

    /// For the backend `name` that has no options of its own: what the configuration says for it is
    /// a mistake.
    ///
    /// # Errors
    /// [`Error::Options`]: it says something.
    pub fn none_of(&self, name: &'static str) -> Result<(), Error> {
        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Nothing {}
        self.of::<Nothing>(name).map(drop)
    }
}

/// A plug-in named in `--net=`. Object safe; methods stand in the order they are called.
///
/// A backend implements the methods of its [`Role`] and leaves the others at their defaults.
#[async_trait]
pub trait Backend: Send + Sync + fmt::Debug {
    /// The name used in `--net=`, the same as in its [`Registration`](crate::Registration).
    fn name(&self) -> &'static str;

    /// Which of the two roles this backend plays.
    fn role(&self) -> Role;

    /// What it relies on, in words for `netshunt doctor`: a library or program, its version and place.
    /// May take a moment to find out, and is for people: whether it works is [`open`](Backend::open)'s
    /// to say.
    fn relies_on(&self) -> Option<String> {
        None
    }

    /// Opens the link. Called at most once, before the guest starts, inside a tokio runtime.
    ///
    /// Dropping the future leaves nothing behind (no child, socket or file).
    ///
    /// # Errors
    /// [`Error::NotALink`] by default; [`Error::Open`] with what to do when the link cannot start.
    async fn open(&self) -> Result<Box<dyn Link>, Error> {
        Err(Error::NotALink { name: self.name() })
    }

    /// Connects `socket`, a duplicate of the guest's own, on the host: its open file description
    /// is shared with the guest, so its status flags must not be changed.
    ///
    /// `blocking` is what the caller found the socket to be; the guest may change it at any moment,
    /// so it must not be asked again. Without it the first poll completes with what connect(2)
    /// returned, usually `EINPROGRESS`; the caller bears that the guest makes it wait after all.
    /// With it the future never blocks its thread, and waits as connect(2) would, `SO_SNDTIMEO`
    /// included; dropping it interrupts the wait and leaves the socket as a signal would.
    /// Calls for different sockets may run at the same time.
    ///
    /// # Errors
    /// The errno of connect(2); `EOPNOTSUPP` by default.
    async fn connect(&self, socket: BorrowedFd<'_>, to: SocketAddr, blocking: bool) -> io::Result<()> {
        let _ = (socket, to, blocking);
        Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP))
    }
}
