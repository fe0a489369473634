//! Patterns over path names, in bytes: file names need not be UTF-8.

/// Whether `path` matches `pattern`. Both are absolute, without empty, `.` and `..` components.
///
/// `*` is any run of bytes within one component; a component `**` is any number of components,
/// but at the end at least one.
pub(crate) fn matches(pattern: &str, path: &[u8]) -> bool {
    components(&pattern.as_bytes()[1..], path.get(1..).unwrap_or_default())
}

fn components(pattern: &[u8], path: &[u8]) -> bool {
    let (head, rest) = split(pattern);
    if head == b"**" {
        let Some(rest) = rest else { return !path.is_empty() };
        // Every suffix of the path that starts a component, the whole of it first.
        let mut tail = Some(path);
        while let Some(path) = tail {
            if components(rest, path) {
                return true;
            }
            tail = split(path).1;
        }
        return false;
    }
    let (name, tail) = split(path);
    component(head, name)
        && match (rest, tail) {
            (Some(rest), Some(tail)) => components(rest, tail),
            (None, None) => true,
            _ => false,
        }
}

/// The first component, and what is behind its slash.
fn split(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    match path.iter().position(|b| *b == b'/') {
        Some(slash) => (&path[..slash], Some(&path[slash + 1..])),
        None => (path, None),
    }
}

/// Greedy with one point of return, so linear in practice and quadratic at worst.
fn component(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, n));
            p += 1;
        } else if pattern.get(p) == Some(&name[n]) {
            p += 1;
            n += 1;
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            p = at + 1;
            n = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        for path in yes {
            assert!(matches(pattern, path.as_bytes()), "{pattern} should match {path}");
        }
        for path in no {
            assert!(!matches(pattern, path.as_bytes()), "{pattern} should not match {path}");
        }
    }

    #[test]
    fn a_star_stays_in_its_component() {
        check("/run/a.sock", &["/run/a.sock"], &["/run/a.sock/x", "/run", "/run/a.sockx", "/a/run/a.sock"]);
        check(
            "/run/user/*/bus",
            &["/run/user/1000/bus"],
            &["/run/user/bus", "/run/user/1/2/bus", "/run/user/1/bus2"],
        );
        check("/tmp/dbus-*", &["/tmp/dbus-", "/tmp/dbus-x"], &["/tmp/dbus-x/y", "/tmp/xdbus-"]);
        check("/a/*b*c", &["/a/bc", "/a/xbxbxc"], &["/a/xbx", "/a/cb"]);
    }

    #[test]
    fn two_stars_cross_components() {
        check("/run/x/**", &["/run/x/a", "/run/x/a/b"], &["/run/x", "/run/xy/a"]);
        check(
            "/**/docker.sock",
            &["/docker.sock", "/a/docker.sock", "/a/b/docker.sock"],
            &["/a/docker.sock/x", "/xdocker.sock"],
        );
        check("/run/s/**/io.*", &["/run/s/io.a", "/run/s/a/io.b"], &["/run/io.a", "/run/s/io.a/b"]);
    }

    #[test]
    fn nothing_short_or_strange_panics() {
        for path in [&b""[..], b"/", b"x", b"//", b"\xff/\xfe"] {
            assert!(!matches("/run/**/x*", path));
        }
    }
}
