//! The ways to a server that are compared.

use std::path::{Path, PathBuf};

/// How the measured program reaches the server, and on what host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Way {
    pub(crate) road: Road,
    pub(crate) host: Host,
}

/// What lies between the program and the host's network.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Road {
    /// netshunt, past the stack; there is none.
    Bypass,
    /// netshunt, past the stack, which is there for others.
    BypassBeside,
    /// Nothing.
    Native,
    /// netshunt, through the stack and passt.
    Passt(Mode, Release),
    /// A peer: passt on a network namespace.
    Pasta(Release),
    /// netshunt, through the stack and libslirp.
    Slirp,
    /// A peer: libslirp on a network namespace.
    Slirp4netns,
}

/// How netshunt speaks to passt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mode {
    Stream,
    VhostUser,
}

/// Whose passt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Release {
    /// This machine's.
    Own,
    /// Debian sid's; see `passt_sid`.
    Sid,
}

/// `net.ipv4.tcp_wmem` of the host: uploads through passt and pasta stall with a small default.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Host {
    /// As it is.
    Default,
    /// With [`TUNED`].
    Tuned,
}

/// Least, first and largest send buffer of a tuned host.
pub(crate) const TUNED: &str = "1048576 4194304 16777216";

const fn on_default(road: Road) -> Way {
    Way { road, host: Host::Default }
}

const fn on_tuned(road: Road) -> Way {
    Way { road, host: Host::Tuned }
}

impl Way {
    pub(crate) const NATIVE: Self = on_default(Road::Native);
    pub(crate) const BYPASS: Self = on_default(Road::Bypass);
    pub(crate) const BYPASS_BESIDE: Self = on_default(Road::BypassBeside);
    pub(crate) const SLIRP: Self = on_default(Road::Slirp);
    /// The mode that netshunt takes by itself where passt offers it.
    pub(crate) const PASST_BEST: Self = on_default(Road::Passt(Mode::VhostUser, Release::Sid));
    pub(crate) const PASST_BEST_TUNED: Self = on_tuned(Road::Passt(Mode::VhostUser, Release::Sid));
    pub(crate) const PASTA: Self = on_default(Road::Pasta(Release::Own));
    pub(crate) const PASTA_SID: Self = on_default(Road::Pasta(Release::Sid));
    pub(crate) const PASTA_TUNED: Self = on_tuned(Road::Pasta(Release::Own));
    pub(crate) const PASTA_SID_TUNED: Self = on_tuned(Road::Pasta(Release::Sid));
    pub(crate) const SLIRP4NETNS: Self = on_default(Road::Slirp4netns);

    /// In the order of the report.
    pub(crate) const ALL: [Self; 15] = [
        Self::NATIVE,
        Self::BYPASS,
        Self::BYPASS_BESIDE,
        Self::SLIRP,
        on_default(Road::Passt(Mode::Stream, Release::Own)),
        on_default(Road::Passt(Mode::Stream, Release::Sid)),
        Self::PASST_BEST,
        Self::PASTA,
        Self::PASTA_SID,
        Self::SLIRP4NETNS,
        on_tuned(Road::Native),
        on_tuned(Road::Passt(Mode::Stream, Release::Own)),
        Self::PASST_BEST_TUNED,
        Self::PASTA_TUNED,
        Self::PASTA_SID_TUNED,
    ];

    /// As it is called in the report.
    pub(crate) fn name(self) -> String {
        let road = match self.road {
            Road::Bypass => "host-bypass",
            Road::BypassBeside => "slirp,host-bypass",
            Road::Native => "native",
            Road::Passt(Mode::Stream, Release::Own) => "passt stream",
            Road::Passt(Mode::Stream, Release::Sid) => "passt stream, sid",
            Road::Passt(Mode::VhostUser, Release::Own) => "passt vhost-user",
            Road::Passt(Mode::VhostUser, Release::Sid) => "passt vhost-user, sid",
            Road::Pasta(Release::Own) => "pasta",
            Road::Pasta(Release::Sid) => "pasta, sid",
            Road::Slirp => "slirp",
            Road::Slirp4netns => "slirp4netns",
        };
        match self.host {
            Host::Default => road.to_owned(),
            Host::Tuned => format!("{road}, tuned host"),
        }
    }

    /// The words before the command.
    pub(crate) fn words(self, programs: &Programs, netshunt: &[&str]) -> Vec<String> {
        let folder = programs.folder.display();
        match self.road {
            Road::Native => Vec::new(),
            Road::Bypass | Road::BypassBeside | Road::Passt(..) | Road::Slirp => {
                let mut words = vec![format!("{folder}/netshunt")];
                words.extend(self.options(&programs.folder));
                words.extend(netshunt.iter().map(|&word| word.to_owned()));
                words.push("--".to_owned());
                words
            }
            Road::Pasta(release) => {
                let mut words = vec![programs.passt(release, "pasta")];
                // Addresses and routes as the host has them, and the host itself out of reach.
                let options =
                    "--quiet --ipv4-only --config-net --no-map-gw -t none -u none -T none -U none --";
                words.extend(options.split(' ').map(str::to_owned));
                if self.host == Host::Tuned {
                    // A new namespace takes after the machine, not after the namespace it is made in.
                    let script = format!("echo {TUNED} >/proc/sys/net/ipv4/tcp_wmem && exec \"$@\"");
                    words.extend(["sh", "-c", &script, "sh"].map(str::to_owned));
                }
                words
            }
            Road::Slirp4netns => {
                let helper = programs.slirp4netns.as_deref().unwrap_or(Path::new("slirp4netns"));
                [&format!("{folder}/nsrun"), &*helper.to_string_lossy(), "--disable-host-loopback", "--"]
                    .map(str::to_owned)
                    .to_vec()
            }
        }
    }

    /// How netshunt is composed.
    fn options(self, folder: &Path) -> Vec<String> {
        let bypass = "--bypass=192.0.2.0/24/tcp";
        match self.road {
            Road::Bypass => ["--net=host-bypass", bypass].map(str::to_owned).to_vec(),
            Road::BypassBeside => ["--net=slirp,host-bypass", bypass].map(str::to_owned).to_vec(),
            Road::Passt(mode, release) => {
                let file = folder.join(configuration(mode, release));
                vec!["--net=passt".to_owned(), format!("--config={}", file.display())]
            }
            Road::Slirp => vec!["--net=slirp".to_owned()],
            Road::Native | Road::Pasta(_) | Road::Slirp4netns => Vec::new(),
        }
    }

    /// The verdict that netshunt's flow log must show.
    pub(crate) fn verdict(self) -> Option<&'static str> {
        match self.road {
            Road::Bypass | Road::BypassBeside => Some("bypass"),
            Road::Passt(..) | Road::Slirp => Some("stack"),
            Road::Native | Road::Pasta(_) | Road::Slirp4netns => None,
        }
    }
}

/// Where everything is that a way may need.
#[derive(Debug)]
pub(crate) struct Programs {
    /// Ours, where everybody may run them.
    folder: PathBuf,
    /// This machine's passt, if it has one; pasta lies beside it.
    passt: Option<PathBuf>,
    slirp4netns: Option<PathBuf>,
}

impl Programs {
    pub(crate) fn new(folder: &Path) -> Self {
        let found = crate::shell::find_program;
        Self { folder: folder.to_owned(), passt: found("passt"), slirp4netns: found("slirp4netns") }
    }

    /// The files that tell netshunt about passt, and their text.
    pub(crate) fn configurations(&self) -> Vec<(PathBuf, String)> {
        let mut files = Vec::new();
        for mode in [Mode::Stream, Mode::VhostUser] {
            for release in [Release::Own, Release::Sid] {
                let word = if mode == Mode::Stream { "stream" } else { "vhost-user" };
                let program = self.passt(release, "passt");
                let text = format!("[passt]\nmode = \"{word}\"\nprogram = \"{program}\"\n");
                files.push((self.folder.join(configuration(mode, release)), text));
            }
        }
        files
    }

    /// What of a way this machine lacks, and how to get it.
    pub(crate) fn lacks(&self, way: Way) -> Option<&'static str> {
        let (present, advice) = match way.road {
            Road::Passt(_, Release::Own) | Road::Pasta(Release::Own) => {
                (self.passt.is_some(), "install the Debian package passt")
            }
            Road::Passt(_, Release::Sid) | Road::Pasta(Release::Sid) => (
                self.folder.join("passt-sid").exists(),
                "`cargo xtask setup` fetches it, where the machine's archive has Debian sid",
            ),
            Road::Slirp4netns => (self.slirp4netns.is_some(), "install the Debian package slirp4netns"),
            Road::Bypass | Road::BypassBeside | Road::Native | Road::Slirp => (true, ""),
        };
        (!present).then_some(advice)
    }

    fn passt(&self, release: Release, name: &str) -> String {
        let program = match (release, &self.passt) {
            (Release::Own, Some(passt)) => passt.with_file_name(name),
            (Release::Own, None) => PathBuf::from(name),
            (Release::Sid, _) => self.folder.join("passt-sid").join(name),
        };
        program.display().to_string()
    }
}

/// The name of a configuration file.
fn configuration(mode: Mode, release: Release) -> String {
    let mode = if mode == Mode::Stream { "stream" } else { "vhost-user" };
    let release = if release == Release::Own { "own" } else { "sid" };
    format!("passt-{mode}-{release}.toml")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_way_has_a_name_of_its_own() {
        let names: BTreeSet<String> = Way::ALL.iter().map(|way| way.name()).collect();
        assert_eq!(names.len(), Way::ALL.len());
    }

    #[test]
    fn what_is_not_there_is_told() {
        let programs = Programs { folder: PathBuf::from("/nonexistent"), passt: None, slirp4netns: None };
        let lacking = Way::ALL.iter().filter(|way| programs.lacks(**way).is_some()).count();
        assert_eq!(lacking, Way::ALL.len() - 5);
    }

    #[test]
    fn netshunt_is_told_which_passt() {
        let programs = Programs {
            folder: PathBuf::from("/f"),
            passt: Some(PathBuf::from("/usr/bin/passt")),
            slirp4netns: None,
        };
        let words = Way::PASST_BEST.words(&programs, &["-v"]);
        assert_eq!(
            words,
            ["/f/netshunt", "--net=passt", "--config=/f/passt-vhost-user-sid.toml", "-v", "--"]
        );
        let files = programs.configurations();
        let (_, text) = files.iter().find(|(path, _)| words[2].ends_with(path.to_str().unwrap())).unwrap();
        assert_eq!(text, "[passt]\nmode = \"vhost-user\"\nprogram = \"/f/passt-sid/passt\"\n");
        assert_eq!(Way::PASTA.words(&programs, &[])[0], "/usr/bin/pasta");
    }
}
