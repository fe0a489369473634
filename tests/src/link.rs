//! The link under test: the same cases run over each.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::World;

/// Names the link; unset, it is slirp.
const VARIABLE: &str = "NETSHUNT_TEST_LINK";
/// The installations of passt, separated by colons; unset, the one in `PATH`.
const PASST: &str = "NETSHUNT_TEST_PASST";

/// What stands for the link under test in `--net=`.
const PLACEHOLDER: &str = "link";

/// The link that carries the guests' frames.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TestLink {
    /// passt over a socket, as every version speaks.
    Passt,
    /// passt over shared memory, as versions of 2025 and newer do.
    PasstVhostUser,
    /// libslirp.
    Slirp,
}

impl TestLink {
    /// The one the environment asks for.
    pub(crate) fn from_environment() -> Self {
        match env::var(VARIABLE).as_deref().unwrap_or("slirp") {
            "passt" => Self::Passt,
            "passt-vhost-user" => Self::PasstVhostUser,
            "slirp" => Self::Slirp,
            other => panic!("{VARIABLE}={other}: there are slirp, passt and passt-vhost-user"),
        }
    }

    /// Its word in `--net=`.
    pub fn backend(self) -> &'static str {
        match self {
            Self::Passt | Self::PasstVhostUser => "passt",
            Self::Slirp => "slirp",
        }
    }

    /// Whether it has addresses that lead to the host's loopback.
    pub fn reaches_the_host(self) -> bool {
        self == Self::Slirp
    }

    /// Options for netshunt, with this link in the place of `link` in `--net=`.
    pub(crate) fn fill_in(self, options: impl Iterator<Item = String>, world: &World) -> Vec<String> {
        let mut filled = Vec::new();
        for option in options {
            let Some(names) = option.strip_prefix("--net=").map(|names| names.split(',')) else {
                filled.push(option);
                continue;
            };
            let ours = names.clone().any(|name| name == PLACEHOLDER);
            let named: Vec<&str> =
                names.map(|name| if name == PLACEHOLDER { self.backend() } else { name }).collect();
            filled.push(format!("--net={}", named.join(",")));
            filled.extend(ours.then(|| world.passt_option(self)).flatten());
        }
        filled
    }
}

impl World {
    /// The option that makes netshunt use passt in just this way; nothing for another link.
    ///
    /// # Panics
    /// When no passt that can do it is installed.
    pub fn passt_option(&self, link: TestLink) -> Option<String> {
        let mode = match link {
            TestLink::Passt => "stream",
            TestLink::PasstVhostUser => "vhost-user",
            TestLink::Slirp => return None,
        };
        let file = self.folder().join(format!("passt-{mode}.toml"));
        if !file.exists() {
            let program = self.passt(link).display().to_string();
            let text = format!("[passt]\nprogram = \"{program}\"\nmode = \"{mode}\"\n");
            fs::write(&file, text).expect("a folder of ours");
        }
        Some(format!("--config={}", file.display()))
    }

    /// A passt that can do it, where netshunt's user can start it.
    fn passt(&self, link: TestLink) -> PathBuf {
        let found = installations().into_iter().find(|program| match link {
            TestLink::PasstVhostUser => offers_vhost_user(program),
            _ => true,
        });
        let program = found.unwrap_or_else(|| {
            panic!("no passt for {link:?}: `cargo xtask setup` installs it, `cargo xtask test` says where")
        });
        let own = program.parent().expect("a program lies in a folder");
        if own.starts_with("/usr") {
            return program;
        }
        // With what lies beside it: its own loader and libraries.
        let copy = self.folder().join("passt");
        let copied = Command::new("cp").arg("-r").arg(own).arg(&copy).status();
        assert!(copied.expect("coreutils has cp").success(), "cannot copy {}", own.display());
        copy.join(program.file_name().expect("a program has a name"))
    }
}

fn installations() -> Vec<PathBuf> {
    let named = env::var_os(PASST).map(|paths| env::split_paths(&paths).collect::<Vec<_>>());
    let in_path = || {
        let folders = env::split_paths(crate::launch::PATH);
        folders.map(|folder| folder.join("passt")).filter(|program| program.is_file()).collect()
    };
    named.unwrap_or_else(in_path)
}

fn offers_vhost_user(program: &Path) -> bool {
    // Debian 12's writes it to standard error.
    let said = Command::new(program).arg("--help").stdin(Stdio::null()).output();
    said.is_ok_and(|said| [said.stdout, said.stderr].concat().windows(12).any(|word| word == b"--vhost-user"))
}
