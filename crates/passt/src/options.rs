//! The table `[passt]` of the configuration.

use std::path::PathBuf;

use serde::Deserialize;

/// What the configuration says for passt.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Options {
    /// The program; without it, the first `passt` in `PATH` and the usual folders.
    pub(crate) program: Option<PathBuf>,
    /// How frames get there.
    pub(crate) mode: Mode,
    /// Which addresses the stack has.
    pub(crate) addresses: Addresses,
}

/// How frames get to passt.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// The best that works.
    #[default]
    Auto,
    /// In a row over a socket. Every passt knows it.
    Stream,
    /// In rings of shared memory.
    VhostUser,
}

/// Which addresses the stack has.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Addresses {
    /// Those of the host.
    Host,
    /// Its own.
    #[default]
    Own,
}

#[cfg(test)]
mod tests {
    use netshunt_backend::Settings;

    use super::*;

    fn parse(table: &str) -> Result<Options, String> {
        let mut settings = Settings::default();
        settings.backends = format!("[passt]\n{table}").parse().unwrap();
        settings.of("passt").map_err(|error| error.to_string())
    }

    #[test]
    fn a_table_says_all_or_nothing() {
        assert_eq!(parse(""), Ok(Options::default()));
        let all = parse("program = '/opt/passt'\nmode = 'vhost-user'\naddresses = 'host'").unwrap();
        assert_eq!(
            all,
            Options { program: Some("/opt/passt".into()), mode: Mode::VhostUser, addresses: Addresses::Host }
        );
        assert_eq!(parse("mode = 'stream'").unwrap().mode, Mode::Stream);
    }

    #[test]
    fn mistakes_say_what_would_be_right() {
        let error = parse("mode = 'fast'").unwrap_err();
        assert!(error.contains("[passt]") && error.contains("`vhost-user`"), "{error}");
        let error = parse("programme = 'passt'").unwrap_err();
        assert!(error.contains("programme") && error.contains("`program`"), "{error}");
    }
}
