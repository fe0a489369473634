//! What can go wrong before the first frame.

use std::error::Error as StdError;
use std::io;

use crate::{Publish, Role};

/// Errors of naming, composing and opening backends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `--net=auto` found no link that works.
    #[error("--net=auto: no link works here{reasons}")]
    Auto {
        /// A line for each link that was tried.
        reasons: String,
    },
    /// A link's peer went away.
    #[error("link {name} is dead: {reason}")]
    Dead {
        /// The backend.
        name: &'static str,
        /// Its last words.
        reason: String,
    },
    /// `--net=` names a backend twice, or two of one role.
    #[error(
        "--net={spec}: `{second}` is a second {role}, after `{first}`; name at most one link and one shunt"
    )]
    Conflict {
        /// The whole value of `--net=`.
        spec: String,
        /// The role both play.
        role: Role,
        /// The one named first.
        first: &'static str,
        /// The one named second.
        second: &'static str,
    },
    /// `--net=none` was combined with a backend.
    #[error("--net={spec}: `none` stands alone")]
    None {
        /// The whole value of `--net=`.
        spec: String,
    },
    /// A shunt was asked to carry frames.
    #[error("backend `{name}` is not a link: it cannot carry frames")]
    NotALink {
        /// The backend.
        name: &'static str,
    },
    /// The link could not be opened.
    #[error("cannot open link {name} ({advice})")]
    Open {
        /// The backend.
        name: &'static str,
        /// What to do about it.
        advice: String,
        /// What the system said.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The backend's own table of the configuration is wrong.
    #[error("[{name}] of the configuration: {}", source.message())]
    Options {
        /// The backend.
        name: &'static str,
        /// What is wrong, and what would be right.
        source: toml::de::Error,
    },
    /// A port of the host cannot be published.
    #[error("cannot publish {publish} ({at}): {}", advice(source))]
    Publish {
        /// What was to be published.
        publish: Publish,
        /// The address at fault.
        at: String,
        /// Of bind(2).
        source: io::Error,
    },
    /// No such backend.
    #[error("--net={spec}: there is no backend `{name}`; this program has {registered}")]
    Unknown {
        /// The whole value of `--net=`.
        spec: String,
        /// The unknown word.
        name: String,
        /// The registered names, sorted, or `none`.
        registered: String,
    },
}

/// What helps against an error of bind(2).
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => "this host has no such address",
        io::ErrorKind::PermissionDenied => "a low port takes a privilege, choose a higher one",
        _ => "end what has the port, or choose another",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_helps_against_a_port_that_cannot_be_published_depends_on_why() {
        let says = |kind: io::ErrorKind| {
            let publish = "80:8080".parse().expect("the form is right");
            Error::Publish { publish, at: "0.0.0.0:80".to_owned(), source: kind.into() }.to_string()
        };
        let start = "cannot publish 80:8080/tcp (0.0.0.0:80): ";
        assert!(says(io::ErrorKind::AddrInUse).starts_with(&format!("{start}end what has")));
        assert!(says(io::ErrorKind::AddrNotAvailable).starts_with(&format!("{start}this host has no")));
        assert!(says(io::ErrorKind::PermissionDenied).starts_with(&format!("{start}a low port")));
    }
}
