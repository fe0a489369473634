//! The backend `slirp`: settings checked, link not yet open.

use netshunt_backend::{
    Backend, Error, Link, Network, Publish, Registration, Role, Settings, async_trait, inventory,
};

use crate::{SlirpLink, plan, sys};

const NAME: &str = "slirp";

inventory::submit! {
    Registration {
        name: NAME,
        role: Role::Link,
        auto: Some(200),
        summary: "frames to libslirp, in this process: no privilege, no helper; TCP, UDP and ping",
        build: Slirp::boxed,
    }
}

/// The backend. Holds no resources until [`open`](Backend::open).
#[derive(Clone, Debug)]
pub struct Slirp {
    network: Network,
    publish: Vec<Publish>,
}

impl Slirp {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Open`] with [`Error::Mtu`](crate::Error::Mtu) as its source; [`Error::Publish`].
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let network = plan::network(settings).map_err(|source| {
            open_error("choose a size within that range; or none, for what suits slirp", source)
        })?;
        settings.check_published()?;
        Ok(Slirp { network, publish: settings.publish.clone() })
    }

    /// The network that the link will have.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Opens the link as its own type; [`Backend::open`] boxes it.
    ///
    /// # Errors
    /// [`Error::Open`]: this process has a slirp link already, or libslirp refused. [`Error::Publish`].
    pub fn link(&self) -> Result<SlirpLink, Error> {
        let mut link = SlirpLink::open(self.network.clone()).map_err(|source| {
            let advice = match source {
                crate::Error::Second => "close the other link first, or give each its own process",
                _ => "its message on standard error says why; `netshunt doctor` shows the versions",
            };
            open_error(advice, source)
        })?;
        self.publish.iter().try_for_each(|publish| link.publish(publish))?;
        Ok(link)
    }

    fn boxed(settings: &Settings) -> Result<Box<dyn Backend>, Error> {
        settings.none_of(NAME)?;
        Ok(Box::new(Slirp::new(settings)?))
    }
}

fn open_error(advice: &str, source: crate::Error) -> Error {
    Error::Open { name: NAME, advice: advice.to_owned(), source: Box::new(source) }
}

#[async_trait]
impl Backend for Slirp {
    fn name(&self) -> &'static str {
        NAME
    }

    fn role(&self) -> Role {
        Role::Link
    }

    fn relies_on(&self) -> Option<String> {
        Some(format!("libslirp {}", sys::version()))
    }

    async fn open(&self) -> Result<Box<dyn Link>, Error> {
        Ok(Box::new(self.link()?))
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use netshunt_backend::registry;

    use super::*;

    #[test]
    fn it_is_registered_as_a_link() {
        let found = registry::find("slirp").expect("submitted above");
        assert_eq!(found.role, Role::Link);
        let built = (found.build)(&Settings::default()).unwrap();
        assert_eq!((built.name(), built.role()), ("slirp", Role::Link));
    }

    #[test]
    fn a_second_link_waits_for_the_first_to_close() {
        let backend = Slirp::new(&Settings::default()).unwrap();
        let first = backend.link().unwrap();
        let error = backend.link().unwrap_err();
        assert!(error.to_string().contains("close the other link first"), "{error}");
        assert!(error.source().unwrap().to_string().contains("a second slirp link in one process"));
        drop(first);
        drop(backend.link().unwrap());
    }
}
