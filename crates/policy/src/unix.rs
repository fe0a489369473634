//! Verdicts for connect(2) and sends on AF_UNIX.

use std::borrow::Cow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use crate::deputies::{ALIASES, DEPUTIES};
use crate::glob;

/// Which AF_UNIX sockets a guest may connect to. Sockets made inside are always open to it.
///
/// Abstract names of the outside are refused by all but [`Allow`](UnixPolicy::Allow): they have
/// no owner and no permissions, and a Landlock domain (ABI 6, Linux 6.12) closes them as well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UnixPolicy {
    /// `default`: every path name but the [`DEPUTIES`].
    #[default]
    Default,
    /// `allow`: everything.
    Allow,
    /// `deny`: nothing of the outside.
    Deny,
    /// `PATH[,PATH]…`: of the outside only these path names, and what lies below them.
    Paths(Vec<PathBuf>),
    /// `--strict`: nothing of the outside.
    Inside,
}

/// The name a guest connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnixName<'a> {
    /// An abstract name, without its leading zero byte (unix(7)).
    Abstract(&'a [u8]),
    /// A path name as resolved: absolute, without symbolic links, `.` and `..`.
    Path(&'a Path),
}

/// What becomes of the connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnixVerdict {
    /// It is performed.
    Allow,
    /// It answers [`ECONNREFUSED`](crate::Errno::ECONNREFUSED); the text says why, for the log.
    Deny(&'static str),
}

/// A value of `--unix=` that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnixPolicyError {
    /// An item of a list of paths is empty, or the whole value is.
    #[error(
        "--unix={text}: a path is missing; write default, allow, deny, or absolute paths and commas between"
    )]
    Empty {
        /// The whole value.
        text: String,
    },
    /// Not an absolute path.
    #[error(
        "--unix={text}: `{item}` is neither default, allow, deny nor an absolute path; a path starts with `/`"
    )]
    NotAbsolute {
        /// The whole value.
        text: String,
        /// The item at fault.
        item: String,
    },
    /// A path with `..`: what it means depends on symbolic links.
    #[error("--unix={text}: `{item}` holds `..`; write the path that realpath(1) prints")]
    NotResolved {
        /// The whole value.
        text: String,
        /// The item at fault.
        item: String,
    },
}

impl FromStr for UnixPolicy {
    type Err = UnixPolicyError;

    fn from_str(text: &str) -> Result<Self, UnixPolicyError> {
        match text {
            "allow" => Ok(UnixPolicy::Allow),
            "default" => Ok(UnixPolicy::Default),
            "deny" => Ok(UnixPolicy::Deny),
            _ => {
                text.split(',').map(|item| path(text, item)).collect::<Result<_, _>>().map(UnixPolicy::Paths)
            }
        }
    }
}

fn path(text: &str, item: &str) -> Result<PathBuf, UnixPolicyError> {
    let text = || text.to_owned();
    if item.is_empty() {
        return Err(UnixPolicyError::Empty { text: text() });
    }
    let path = Path::new(item);
    if !path.is_absolute() {
        return Err(UnixPolicyError::NotAbsolute { text: text(), item: item.to_owned() });
    }
    if canonical(path).is_none() {
        return Err(UnixPolicyError::NotResolved { text: text(), item: item.to_owned() });
    }
    Ok(path.to_owned())
}

impl UnixPolicy {
    /// The verdict for connecting to `name`, a socket that a guest bound if `made_inside`.
    ///
    /// A path name that is not resolved (relative, or with `..`) is refused unless everything is
    /// allowed: what it would reach is not known here.
    #[must_use]
    pub fn judge(&self, name: UnixName<'_>, made_inside: bool) -> UnixVerdict {
        if made_inside || *self == UnixPolicy::Allow {
            return UnixVerdict::Allow;
        }
        let path = match name {
            UnixName::Abstract(_) => return UnixVerdict::Deny("an abstract socket made outside"),
            UnixName::Path(path) => path,
        };
        let Some(path) = canonical(path) else {
            return UnixVerdict::Deny("a path name that is not resolved");
        };
        match self {
            UnixPolicy::Allow => UnixVerdict::Allow,
            UnixPolicy::Default => DEPUTIES
                .iter()
                .find(|deputy| glob::matches(deputy.pattern, &path))
                .map_or(UnixVerdict::Allow, |deputy| UnixVerdict::Deny(deputy.reason)),
            UnixPolicy::Deny => UnixVerdict::Deny("--unix=deny: the socket was made outside"),
            UnixPolicy::Inside => UnixVerdict::Deny("--strict: the socket was made outside"),
            UnixPolicy::Paths(open) => {
                if open.iter().filter_map(|open| canonical(open)).any(|open| is_below(&path, &open)) {
                    UnixVerdict::Allow
                } else {
                    UnixVerdict::Deny("not among the paths of --unix=")
                }
            }
        }
    }
}

/// Whether `path` is `top` or below it. Both canonical.
fn is_below(path: &[u8], top: &[u8]) -> bool {
    let top = top.strip_suffix(b"/").unwrap_or(top);
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// The bytes of an absolute path without doubled slashes and `.`, under the first of its names
/// (`/run`, not `/var/run`). None if it is relative or holds `..`.
fn canonical(path: &Path) -> Option<Cow<'_, [u8]>> {
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return None;
    }
    // `components` leaves out what means nothing; collecting writes it back without.
    let clean: PathBuf = path.components().collect();
    let bytes = clean.as_os_str().as_bytes();
    for (alias, real) in
        ALIASES.iter().map(|(alias, real)| (alias.trim_end_matches('/'), real.trim_end_matches('/')))
    {
        if let Some(rest) =
            bytes.strip_prefix(alias.as_bytes()).filter(|rest| matches!(rest, [] | [b'/', ..]))
        {
            return Some([real.as_bytes(), rest].concat().into());
        }
    }
    Some(bytes.to_vec().into())
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use super::*;

    fn judge(policy: &UnixPolicy, path: &str) -> UnixVerdict {
        policy.judge(UnixName::Path(Path::new(path)), false)
    }

    #[track_caller]
    fn refused(policy: &UnixPolicy, path: &str) {
        assert!(
            matches!(judge(policy, path), UnixVerdict::Deny(_)),
            "{path} should be refused by {policy:?}"
        );
    }

    #[track_caller]
    fn open(policy: &UnixPolicy, path: &str) {
        assert_eq!(judge(policy, path), UnixVerdict::Allow, "{path} by {policy:?}");
    }

    #[test]
    fn the_folder_of_an_alias_is_the_one_it_leads_to() {
        let policy = "/var/run".parse().unwrap();
        open(&policy, "/run/x");
        open(&policy, "/var/run/x");
        refused(&policy, "/var/running/x");
        refused(&"/run".parse().unwrap(), "/var/running");
    }

    #[test]
    fn the_default_refuses_the_deputies_and_nothing_else() {
        for path in [
            "/run/nscd/socket",
            "/run/systemd/resolve/io.systemd.Resolve",
            "/run/avahi-daemon/socket",
            "/run/dbus/system_bus_socket",
            "/run/user/1000/bus",
            "/tmp/dbus-8ZxU2",
            "/run/docker.sock",
            "/home/someone/.docker/run/docker.sock",
            "/run/containerd/containerd.sock",
            "/run/podman/podman.sock",
            "/run/user/1000/podman/podman.sock",
            "/run/user/1000/docker.sock",
            "/run/crio/crio.sock",
            "/run/systemd/private",
            "/run/user/1000/systemd/private",
            "/run/systemd/io.systemd.Import",
            "/run/systemd/machine/io.systemd.Machine",
            "/run/systemd/userdb/io.systemd.DynamicUser",
            "/run/libvirt/libvirt-sock",
            "/var/lib/incus/unix.socket",
            "/run/snapd.socket",
            "/tmp/tmux-1000/default",
            "/home/someone/.ssh/cm-host:22",
            "/home/someone/.ssh/controlmasters/host",
        ] {
            refused(&UnixPolicy::Default, path);
        }
        for path in [
            "/run/systemd/journal/socket",
            "/run/systemd/notify",
            "/dev/log",
            "/run/postgresql/.s.PGSQL.5432",
            "/tmp/ssh-XXXXabc/agent.123",
            "/home/someone/.ssh/agent/s.abc",
            "/run/user/1000/wayland-0",
            "/run/user/1000/gnupg/S.gpg-agent",
            "/tmp/.X11-unix/X0",
            "/home/someone/app.sock",
            "/run/nscd/socket2",
        ] {
            open(&UnixPolicy::Default, path);
        }
    }

    #[test]
    fn var_run_and_sloppy_spelling_are_the_same_socket() {
        refused(&UnixPolicy::Default, "/var/run/docker.sock");
        refused(&UnixPolicy::Default, "/var/run/nscd/socket");
        refused(&UnixPolicy::Default, "//run/./nscd//socket");
        refused(&UnixPolicy::Default, "/run/host/run/dbus/system_bus_socket");
        open(&"/run/app".parse().unwrap(), "/var/run/app/socket");
        open(&"/var/run/app".parse().unwrap(), "/run/app/socket");
    }

    #[test]
    fn a_path_that_is_not_resolved_is_refused() {
        for path in ["relative.sock", "", "/tmp/../run/other.sock", ".."] {
            refused(&UnixPolicy::Default, path);
            refused(&"/".parse().unwrap(), path);
            open(&UnixPolicy::Allow, path);
        }
    }

    #[test]
    fn abstract_names_are_open_only_when_made_inside() {
        let all = [
            UnixPolicy::Default,
            UnixPolicy::Deny,
            UnixPolicy::Inside,
            UnixPolicy::Paths(vec![PathBuf::from("/")]),
        ];
        for policy in all {
            assert!(matches!(policy.judge(UnixName::Abstract(b"x"), false), UnixVerdict::Deny(_)));
            assert_eq!(policy.judge(UnixName::Abstract(b"x"), true), UnixVerdict::Allow);
        }
        assert_eq!(UnixPolicy::Allow.judge(UnixName::Abstract(b""), false), UnixVerdict::Allow);
    }

    #[test]
    fn deny_and_strict_leave_only_the_guests_own() {
        for policy in [UnixPolicy::Deny, UnixPolicy::Inside] {
            refused(&policy, "/home/someone/app.sock");
            let own = UnixName::Path(Path::new("/tmp/dbus-own"));
            assert_eq!(policy.judge(own, true), UnixVerdict::Allow);
        }
    }

    #[test]
    fn listed_paths_open_themselves_and_what_is_below() {
        let policy: UnixPolicy = "/run/docker.sock,/srv/app/".parse().unwrap();
        open(&policy, "/run/docker.sock");
        open(&policy, "/srv/app/a/b");
        refused(&policy, "/run/docker.sock2");
        refused(&policy, "/srv/application");
        refused(&policy, "/tmp/x");
    }

    #[test]
    fn values_are_read_and_faults_are_named() {
        assert_eq!("default".parse(), Ok(UnixPolicy::Default));
        assert_eq!("allow".parse(), Ok(UnixPolicy::Allow));
        assert_eq!("deny".parse(), Ok(UnixPolicy::Deny));
        assert_eq!("/a,/b".parse(), Ok(UnixPolicy::Paths(vec!["/a".into(), "/b".into()])));
        let wrong = |text: &str| text.parse::<UnixPolicy>().unwrap_err().to_string();
        assert!(wrong("refuse").contains("neither default, allow, deny nor an absolute path"));
        assert!(wrong("").contains("a path is missing"));
        assert!(wrong("/a,").contains("a path is missing"));
        assert!(wrong("/a,b").contains("`b`"));
        assert!(wrong("/a/../b").contains("realpath"));
    }
}
