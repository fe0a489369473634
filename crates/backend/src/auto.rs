//! `--net=auto`: the first link that works here.

use std::fmt::Write as _;

use async_trait::async_trait;
use tracing::info;

use crate::registry::{self, AUTO};
use crate::{Backend, Error, Link, Registration, Role, Settings};

inventory::submit! {
    Registration {
        name: AUTO,
        role: Role::Link,
        auto: None,
        summary: "the first link that works here; -v says which, and why not another",
        build: Auto::boxed,
    }
}

/// Tries links in the order of their [`Registration::auto`].
#[derive(Debug)]
struct Auto {
    links: Vec<Candidate>,
}

/// A link that is built, or the reason why it cannot be.
type Candidate = (&'static str, Result<Box<dyn Backend>, Error>);

impl Auto {
    fn boxed(settings: &Settings) -> Result<Box<dyn Backend>, Error> {
        settings.none_of(AUTO)?;
        let mut links = Vec::new();
        for registration in registry::automatic() {
            let built = (registration.build)(settings);
            // A mistake in the configuration is not a reason to take another link.
            if let Err(error @ (Error::Options { .. } | Error::Publish { .. })) = built {
                return Err(error);
            }
            links.push((registration.name, built));
        }
        Ok(Box::new(Auto { links }))
    }
}

#[async_trait]
impl Backend for Auto {
    fn name(&self) -> &'static str {
        AUTO
    }

    fn role(&self) -> Role {
        Role::Link
    }

    async fn open(&self) -> Result<Box<dyn Link>, Error> {
        let mut reasons = String::new();
        for (name, built) in &self.links {
            let refused = match built {
                Ok(link) => match link.open().await {
                    Ok(open) => {
                        info!(link = name, "chosen by --net=auto");
                        return Ok(open);
                    }
                    Err(error) => described(&error),
                },
                Err(error) => described(error),
            };
            info!(link = name, reason = refused, "passed over by --net=auto");
            let _ = write!(reasons, "\n  {refused}");
        }
        Err(Error::Auto { reasons })
    }
}

/// An error with its causes.
fn described(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link that never opens.
    #[derive(Debug)]
    struct Broken(&'static str);

    #[async_trait]
    impl Backend for Broken {
        fn name(&self) -> &'static str {
            self.0
        }

        fn role(&self) -> Role {
            Role::Link
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn when_none_works_every_reason_is_told() {
        let missing = Error::NotALink { name: "glass" };
        let auto = Auto { links: vec![("glass", Err(missing)), ("tin", Ok(Box::new(Broken("tin"))))] };
        assert_eq!(
            auto.open().await.unwrap_err().to_string(),
            "--net=auto: no link works here\n  backend `glass` is not a link: it cannot carry frames\n  \
             backend `tin` is not a link: it cannot carry frames"
        );
    }
}
