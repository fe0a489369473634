//! The backend `passt`: settings checked, nothing started.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::OnceLock;

use netshunt_backend::{Backend, Error, Link, Publish, Registration, Role, Settings, async_trait, inventory};
use tracing::info;

use crate::options::{Addresses, Mode, Options};
use crate::probe::{Probe, glance, probe};
use crate::start::{Recipe, Running};
use crate::{Error as Reason, PasstLink, host, plan};

pub(crate) const NAME: &str = "passt";

const VHOST: &str = "--vhost-user";

inventory::submit! {
    Registration {
        name: NAME,
        role: Role::Link,
        auto: Some(100),
        summary: "frames to Debian's passt, a child process: fast; TCP, UDP and ping over IPv4 and IPv6",
        build: Passt::boxed,
    }
}

/// The backend. Starts nothing until [`open`](Backend::open).
#[derive(Clone, Debug)]
pub struct Passt {
    options: Options,
    mtu: u16,
    ipv6: bool,
    publish: Vec<Publish>,
    /// How it was opened.
    mode: OnceLock<&'static str>,
}

impl Passt {
    /// Checks the settings, and `[passt]` in them.
    ///
    /// # Errors
    /// [`Error::Options`], [`Error::Publish`], or [`Error::Open`] with [`Mtu`](Reason::Mtu) as its source.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let options: Options = settings.of(NAME)?;
        let mtu = plan::mtu(settings).map_err(|source| open_error(source, &options))?;
        settings.check_published()?;
        let publish = settings.publish.clone();
        Ok(Passt { options, mtu, ipv6: settings.ipv6, publish, mode: OnceLock::new() })
    }

    /// The program that the configuration names, if any.
    #[must_use]
    pub fn program(&self) -> Option<&Path> {
        self.options.program.as_deref()
    }

    /// Opens the link as its own type; [`Backend::open`] boxes it. Inside a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Open`]: there is no passt, or it does not work here.
    pub async fn link(&self) -> Result<PasstLink, Error> {
        // Dropped with this future, `life` makes the thread give up and end the child.
        let (life, owner) = UnixStream::pair().map_err(|source| self.cannot_start(source))?;
        let this = self.clone();
        let opened = tokio::task::spawn_blocking(move || this.start(&owner)).await;
        drop(life);
        match opened {
            Ok(Ok(link)) => {
                let _ = self.mode.set(link.mode());
                Ok(link)
            }
            Ok(Err(reason)) => Err(open_error(reason, &self.options)),
            Err(stopped) => Err(self.cannot_start(std::io::Error::other(stopped))),
        }
    }

    fn cannot_start(&self, source: std::io::Error) -> Error {
        let program = self.options.program.clone().unwrap_or_else(|| NAME.into());
        open_error(Reason::Start { program, source }, &self.options)
    }

    /// Finds out how the installed passt works here, best way first. Waits.
    fn start(&self, owner: &UnixStream) -> Result<PasstLink, Reason> {
        let probe = glance(self.options.program.as_deref())?;
        let network = match self.options.addresses {
            Addresses::Host => host::network(self.mtu, self.ipv6)?,
            Addresses::Own => plan::own(self.mtu, self.ipv6),
        };
        let arguments = plan::arguments(&network, &self.publish, &probe)?;
        let recipe = Recipe {
            program: probe.program.clone(),
            arguments,
            network,
            vhost: self.vhost(&probe)?,
            old: !probe.offers(VHOST),
        };
        let link = |recipe: Recipe, running: Running| {
            let resolver = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
            let network = plan::working(&recipe.network, running.v4, running.v6, &resolver);
            let program = recipe.program.clone();
            PasstLink::new(network, recipe, running).map_err(|source| Reason::Start { program, source })
        };
        match recipe.start(owner) {
            Ok(running) => link(recipe, running),
            Err(Reason::Broken { why }) if recipe.vhost && self.options.mode == Mode::Auto => {
                info!(why, "passt does not work with vhost-user here: as a stream, then");
                let recipe = Recipe { vhost: false, ..recipe };
                recipe.start(owner).and_then(|running| link(recipe, running))
            }
            Err(reason) => Err(reason),
        }
    }

    fn vhost(&self, probe: &Probe) -> Result<bool, Reason> {
        match self.options.mode {
            Mode::Auto => Ok(probe.offers(VHOST)),
            Mode::Stream => Ok(false),
            Mode::VhostUser if probe.offers(VHOST) => Ok(true),
            Mode::VhostUser => Err(Reason::TooOld { program: probe.program.clone(), option: VHOST }),
        }
    }

    fn boxed(settings: &Settings) -> Result<Box<dyn Backend>, Error> {
        Ok(Box::new(Passt::new(settings)?))
    }
}

fn open_error(source: Reason, options: &Options) -> Error {
    let advice = match &source {
        Reason::Host { .. } => "let the stack have addresses of its own: `addresses = \"own\"` in [passt]",
        Reason::Missing { .. } if options.program.is_some() => {
            "correct `program` in [passt], or install the Debian package passt and leave it out"
        }
        Reason::Missing { .. } => "install the Debian package passt",
        Reason::Mtu { .. } => "choose a size within that range; or none, for what suits passt",
        Reason::Start { .. } => "look at the program's permissions, and at what else limits processes here",
        Reason::TooOld { option: VHOST, .. } => {
            "install a passt of 2025 or newer, or leave out `mode = \"vhost-user\"` in [passt]"
        }
        Reason::TooOld { .. } => "install a passt of March 2023 or newer",
        Reason::Broken { .. } | Reason::Cancelled => "`--net=slirp` needs no helper program",
    };
    Error::Open { name: NAME, advice: advice.to_owned(), source: Box::new(source) }
}

#[async_trait]
impl Backend for Passt {
    fn name(&self) -> &'static str {
        NAME
    }

    fn role(&self) -> Role {
        Role::Link
    }

    async fn open(&self) -> Result<Box<dyn Link>, Error> {
        Ok(Box::new(self.link().await?))
    }

    fn relies_on(&self) -> Option<String> {
        let probe = probe(self.program()).ok()?;
        let mode = self.mode.get().copied().unwrap_or("not opened");
        Some(format!("passt {}, {}, {mode}", probe.version, probe.program.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use netshunt_backend::registry;

    use super::*;

    #[test]
    fn it_is_registered_as_a_link() {
        let found = registry::find("passt").expect("submitted above");
        assert_eq!((found.role, found.auto), (Role::Link, Some(100)));
        let built = (found.build)(&Settings::default()).unwrap();
        assert_eq!((built.name(), built.role()), ("passt", Role::Link));
    }

    #[test]
    fn mistakes_in_the_settings_are_found_before_anything_starts() {
        let mut settings = Settings::default();
        settings.backends = "[passt]\nmode = 'slow'".parse().unwrap();
        assert!(matches!(Passt::new(&settings), Err(Error::Options { .. })));
        let mut settings = Settings::default();
        settings.mtu = Some(65521);
        let error = Passt::new(&settings).unwrap_err();
        assert!(error.to_string().contains("choose a size"), "{error}");
        assert!(error.source().unwrap().to_string().contains("1280 to 65520"));
    }
}
