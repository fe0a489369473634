//! Where we were started, as far as no error of a system call would tell it.

use std::error::Error as _;
use std::io;
use std::path::Path;

use anyhow::{Context, Error, ensure};

/// Checks that /proc is there and shows our own pid namespace. Guests are looked up there by the
/// numbers that the kernel gives us: elsewhere these are other processes.
///
/// # Errors
/// What is wrong with it, and what to do.
pub(crate) fn proc() -> anyhow::Result<()> {
    let own = Path::new("/proc/self").read_link().context(
        "/proc shows no processes of this pid namespace; mount it (`mount -t proc proc /proc`, `unshare --mount-proc`)",
    )?;
    ensure!(
        own == Path::new(&std::process::id().to_string()),
        "/proc shows another pid namespace than ours; mount it anew (`mount -t proc proc /proc`, `unshare --mount-proc`)"
    );
    Ok(())
}

/// Whether we run under somebody else's filter already (proc_pid_status(5)). Unknown is no.
pub(crate) fn filtered() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("Seccomp:")).is_some_and(|mode| mode.trim() != "0")
}

/// Names the filter above us if an error looks like its doing.
pub(crate) fn explain(error: netshunt_supervisor::Error) -> Error {
    let suspicious = filters_doing(&error);
    let error = Error::from(error);
    if suspicious && filtered() {
        return error
            .context("netshunt runs under a seccomp filter here; it does not run inside another netshunt");
    }
    error
}

/// A second listener is EBUSY (seccomp(2)); netshunt itself has no netlink sockets for its guests.
fn filters_doing(error: &netshunt_supervisor::Error) -> bool {
    let mut cause = error.source();
    while let Some(one) = cause {
        let errno = one.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        if let Some(libc::EBUSY | libc::EPROTONOSUPPORT) = errno {
            return true;
        }
        cause = one.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use netshunt_supervisor::Error as Failure;

    use super::*;

    #[test]
    fn only_what_a_filter_answers_is_laid_to_one() {
        let system = |errno| Failure::System { doing: "…", source: io::Error::from_raw_os_error(errno) };
        assert!(filters_doing(&system(libc::EPROTONOSUPPORT)));
        assert!(filters_doing(&system(libc::EBUSY)));
        assert!(!filters_doing(&system(libc::EMFILE)));
        assert!(!filters_doing(&Failure::NotFound { command: "curl".into() }));
    }

    #[test]
    fn the_proc_of_these_tests_is_our_own() {
        proc().unwrap();
    }
}
