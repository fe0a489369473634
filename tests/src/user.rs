//! Who netshunt is run as.

use std::env;
use std::os::unix::fs::chown;
use std::path::Path;

use nix::unistd::User;

/// Names the user; unset, netshunt runs as root.
const VARIABLE: &str = "NETSHUNT_TEST_USER";

/// The user that netshunt and its guests run as.
#[derive(Clone, Debug)]
pub struct TestUser {
    /// `None` is root.
    ordinary: Option<User>,
}

impl TestUser {
    /// The one the environment asks for.
    pub(crate) fn from_environment() -> Self {
        let ordinary = env::var(VARIABLE).ok().filter(|name| name != "root").map(|name| {
            let found = User::from_name(&name).expect("/etc/passwd is readable");
            found.unwrap_or_else(|| panic!("{VARIABLE}={name}: there is no such user"))
        });
        Self { ordinary }
    }

    /// Whether this is root.
    pub fn is_root(&self) -> bool {
        self.ordinary.is_none()
    }

    /// The words that make the command after them this user's, without any capability, and let it die
    /// with the thread that started it.
    ///
    /// A change of user clears the parent-death signal (prctl(2)), so setpriv must set it, not we.
    pub(crate) fn launcher(&self) -> Vec<String> {
        let mut words = root_launcher();
        if let Some(user) = &self.ordinary {
            words.push(format!("--reuid={}", user.uid));
            words.push(format!("--regid={}", user.gid));
            words.extend(["--clear-groups", "--bounding-set=-all", "--inh-caps=-all"].map(str::to_owned));
        }
        words
    }

    /// Makes a file or folder this user's.
    pub fn own(&self, path: &Path) {
        if let Some(user) = &self.ordinary {
            chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("root may give files away");
        }
    }
}

/// The same for a command that stays root, a server for one.
pub(crate) fn root_launcher() -> Vec<String> {
    ["setpriv", "--pdeathsig=KILL"].map(str::to_owned).to_vec()
}
