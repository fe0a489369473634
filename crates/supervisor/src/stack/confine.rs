//! What the thread that turns the stack keeps of its rights.
//!
//! There the bytes of the network meet C: the kernel library, libslirp, and what passt writes into shared memory. It
//! makes sockets and reads a few files, and so may whoever takes it over; not start programs, write files, or make
//! memory executable. Its memory is that of the other threads, which are not confined: this is a hurdle, no wall.

use std::io;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    Scope, path_beneath_rules,
};
use netshunt_notify::Program;

use crate::Error;

/// `build/main.rs` compiles it.
const COMPILED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stack.bpf"));

/// Where resolv.conf(5) is, or leads to. Anything else is closed.
const READABLE: [&str; 2] = ["/etc", "/run"];

/// Confines the calling thread, and what it starts from now on: by Landlock as far as this kernel goes, and by seccomp.
pub(super) fn enter() -> Result<(), Error> {
    let refused = |source| Error::System { doing: "confine the stack's thread", source };
    enter_landlock().map_err(|error| refused(io::Error::other(error)))?;
    Program::from_compiled(COMPILED).confine().map_err(refused)
}

fn enter_landlock() -> Result<(), RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))?
        .scope(Scope::Signal)?
        .create()?
        .add_rules(path_beneath_rules(READABLE, read))?
        .restrict_self()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::{TcpListener, TcpStream};
    use std::process::Command;
    use std::thread;

    use nix::errno::Errno;

    use super::*;

    /// What a confined thread of this program says.
    fn confined<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> T {
        thread::spawn(|| {
            enter().unwrap();
            what()
        })
        .join()
        .unwrap()
    }

    fn is_refused<T>(result: io::Result<T>) -> bool {
        matches!(result.err().and_then(|error| error.raw_os_error()), Some(libc::EPERM | libc::EACCES))
    }

    #[test]
    fn the_stacks_thread_starts_no_program() {
        assert!(Command::new("true").status().unwrap().success());
        assert!(confined(|| Command::new("true").status().is_err()));
    }

    #[test]
    fn the_stacks_thread_reads_what_it_needs_and_writes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "secret").unwrap();
        let [file, hosts] = [path.clone(), "/etc/hosts".into()].map(|path| move || fs::read(path));
        assert!(is_refused(confined(file)));
        assert!(confined(hosts).is_ok());
        assert!(is_refused(confined(move || fs::write(path, "other"))));
        assert_eq!(fs::read(folder.path().join("file")).unwrap(), b"secret");
    }

    #[test]
    fn the_stacks_thread_makes_sockets_of_the_internet_and_threads() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        assert!(confined(move || TcpStream::connect(address)).is_ok());
        assert_eq!(confined(|| thread::spawn(|| 7).join().unwrap()), 7);
    }

    #[test]
    fn the_stacks_thread_has_no_other_calls() {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
        let of = |family, kind| confined(move || socket(family, kind, SockFlag::empty(), None).map(drop));
        assert_eq!(of(AddressFamily::Packet, SockType::Datagram), Err(Errno::EPERM));
        assert_eq!(of(AddressFamily::Inet, SockType::Raw), Err(Errno::EPERM));
        assert_eq!(of(AddressFamily::Inet, SockType::Datagram), Ok(()));
        assert_eq!(confined(nix::unistd::setsid), Err(Errno::EPERM));
        assert_eq!(confined(|| nix::sys::signal::kill(nix::unistd::Pid::this(), None)), Err(Errno::EPERM));
    }
}
