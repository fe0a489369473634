//! Which backends this program has.
//!
//! A backend crate registers itself with `inventory::submit!`; a program links it by naming the
//! crate once (`use netshunt_slirp as _;`). What is only in `Cargo.toml` is silently absent, so a
//! program's tests should pin [`names`].

use std::fmt;

use crate::{Backend, Error, Role, Settings};

/// The name of the link that is the first of [`automatic`] which works.
pub const AUTO: &str = "auto";

/// One registered backend: data now, behaviour built later.
pub struct Registration {
    /// The word in `--net=`.
    pub name: &'static str,
    /// What it is for.
    pub role: Role,
    /// A link's place in the order in which `--net=auto` tries them, lowest first; `None` for one that
    /// must be named. Say it only of a link whose [`open`](Backend::open) finds out whether it works.
    pub auto: Option<u8>,
    /// One line for `netshunt backends`.
    pub summary: &'static str,
    /// Builds it. Does no I/O that could leave something behind.
    pub build: fn(&Settings) -> Result<Box<dyn Backend>, Error>,
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("name", &self.name)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

inventory::collect!(Registration);

/// Every registered backend, sorted by name: link order differs between build profiles.
#[must_use]
pub fn all() -> Vec<&'static Registration> {
    let mut all: Vec<_> = inventory::iter::<Registration>.into_iter().collect();
    all.sort_by_key(|r| r.name);
    all
}

/// The registered names, sorted.
#[must_use]
pub fn names() -> Vec<&'static str> {
    all().iter().map(|r| r.name).collect()
}

/// The links that `--net=auto` ([`AUTO`]) tries, in that order.
#[must_use]
pub fn automatic() -> Vec<&'static Registration> {
    let mut links: Vec<_> = all().into_iter().filter(|r| r.auto.is_some()).collect();
    links.sort_by_key(|r| r.auto);
    links
}

/// The backend of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Registration> {
    all().into_iter().find(|r| r.name == name)
}
