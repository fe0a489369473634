//! Error numbers as values.

use std::fmt;

/// A Linux error number: what a refused guest sees.
///
/// The numbers are those of `asm-generic/errno.h`, which x86-64, AArch64 and RISC-V share.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Errno(i32);

impl Errno {
    /// Permission denied: the answer to a destination the policy refuses.
    pub const EACCES: Errno = Errno(13);
    /// Connection refused: the answer to a refused AF_UNIX connect.
    pub const ECONNREFUSED: Errno = Errno(111);

    /// The error of that number, positive as in `errno.h`.
    #[must_use]
    pub const fn new(raw: i32) -> Self {
        Errno(raw)
    }

    /// The number, positive as in `errno.h`.
    #[must_use]
    pub const fn raw(self) -> i32 {
        self.0
    }

    /// The symbol, such as `"EACCES"`; `"E?"` for a number no socket call answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(raw, _)| *raw == self.0).map_or("E?", |(_, name)| name)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            "E?" => write!(f, "errno {}", self.0),
            name => f.write_str(name),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What socket calls answer (socket(2), connect(2), ip(7), tcp(7), unix(7)), by number.
const NAMES: &[(i32, &str)] = &[
    (1, "EPERM"),
    (2, "ENOENT"),
    (4, "EINTR"),
    (5, "EIO"),
    (9, "EBADF"),
    (11, "EAGAIN"),
    (12, "ENOMEM"),
    (13, "EACCES"),
    (14, "EFAULT"),
    (16, "EBUSY"),
    (19, "ENODEV"),
    (20, "ENOTDIR"),
    (22, "EINVAL"),
    (23, "ENFILE"),
    (24, "EMFILE"),
    (32, "EPIPE"),
    (36, "ENAMETOOLONG"),
    (38, "ENOSYS"),
    (40, "ELOOP"),
    (71, "EPROTO"),
    (88, "ENOTSOCK"),
    (89, "EDESTADDRREQ"),
    (90, "EMSGSIZE"),
    (91, "EPROTOTYPE"),
    (92, "ENOPROTOOPT"),
    (93, "EPROTONOSUPPORT"),
    (94, "ESOCKTNOSUPPORT"),
    (95, "EOPNOTSUPP"),
    (96, "EPFNOSUPPORT"),
    (97, "EAFNOSUPPORT"),
    (98, "EADDRINUSE"),
    (99, "EADDRNOTAVAIL"),
    (100, "ENETDOWN"),
    (101, "ENETUNREACH"),
    (102, "ENETRESET"),
    (103, "ECONNABORTED"),
    (104, "ECONNRESET"),
    (105, "ENOBUFS"),
    (106, "EISCONN"),
    (107, "ENOTCONN"),
    (110, "ETIMEDOUT"),
    (111, "ECONNREFUSED"),
    (112, "EHOSTDOWN"),
    (113, "EHOSTUNREACH"),
    (114, "EALREADY"),
    (115, "EINPROGRESS"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_the_name_the_standard_library_describes() {
        assert_eq!(Errno::EACCES.name(), "EACCES");
        assert_eq!(Errno::ECONNREFUSED.name(), "ECONNREFUSED");
        for &(raw, name) in NAMES {
            // A number that Linux does not have would read "Unknown error N".
            let text = std::io::Error::from_raw_os_error(raw).to_string();
            assert!(!text.starts_with("Unknown"), "{name}: {text}");
            assert_eq!(Errno::new(raw).name(), name);
        }
    }

    #[test]
    fn an_unlisted_number_shows_as_a_number() {
        assert_eq!(Errno::new(4095).name(), "E?");
        assert_eq!(Errno::new(4095).to_string(), "errno 4095");
    }
}
