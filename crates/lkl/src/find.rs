//! Where the kernel library may lie.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use crate::Error;

const NAME: &str = "liblkl.so";

/// Finds the kernel library: `explicit` if given, and nothing else then; otherwise the first of
/// 1. `../lib/netshunt/` beside the program's folder, an installation;
/// 2. `target/lkl/`, where `cargo xtask kernel` puts it, for a program below `target/<profile>/`;
/// 3. `$XDG_CACHE_HOME/netshunt/`, or `~/.cache/netshunt/`.
///
/// # Errors
/// [`Error::Missing`] names every place; [`Error::Insecure`] if we are root and anybody may write
/// the file or its folder.
pub fn find(explicit: Option<&Path>) -> Result<PathBuf, Error> {
    let looked = match explicit {
        Some(path) => vec![path.to_owned()],
        None => candidates(
            env::current_exe().ok().as_deref(),
            env::var_os("XDG_CACHE_HOME").map(PathBuf::from),
            env::var_os("HOME").map(PathBuf::from),
        ),
    };
    let Some(found) = looked.iter().find(|path| path.is_file()) else {
        return Err(Error::Missing { looked });
    };
    // What a link points to is what will be loaded and must be judged.
    let found = found.canonicalize().unwrap_or_else(|_| found.clone());
    if geteuid().is_root() {
        private(&found)?;
    }
    Ok(found)
}

fn candidates(program: Option<&Path>, cache: Option<PathBuf>, home: Option<PathBuf>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Some(folder) = program.and_then(Path::parent) {
        let above = |levels| folder.ancestors().nth(levels).map(Path::to_owned);
        found.extend(above(1).map(|prefix| prefix.join("lib/netshunt").join(NAME)));
        // target/<profile>/ holds programs, target/<profile>/deps/ and examples/ tests.
        found.extend(above(1).map(|target| target.join("lkl").join(NAME)));
        found.extend(above(2).map(|target| target.join("lkl").join(NAME)));
    }
    // The XDG specification: a relative path is to be ignored.
    let cache = cache.filter(|path| path.is_absolute()).or_else(|| home.map(|home| home.join(".cache")));
    found.extend(cache.map(|cache| cache.join("netshunt").join(NAME)));
    found
}

/// Nobody but the owner and the owner's group may write the file or put another in its place.
fn private(library: &Path) -> Result<(), Error> {
    for path in library.ancestors().take(2) {
        let writable = fs::metadata(path).map_or(true, |m| m.permissions().mode() & 0o002 != 0);
        if writable {
            return Err(Error::Insecure { path: path.to_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(program: &str, cache: Option<&str>, home: Option<&str>) -> Vec<String> {
        let found = candidates(Some(Path::new(program)), cache.map(Into::into), home.map(Into::into));
        found.iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn places_in_their_order() {
        assert_eq!(
            shown("/w/target/debug/deps/test-1", None, Some("/home/ann")),
            [
                "/w/target/debug/lib/netshunt/liblkl.so",
                "/w/target/debug/lkl/liblkl.so",
                "/w/target/lkl/liblkl.so",
                "/home/ann/.cache/netshunt/liblkl.so"
            ]
        );
        assert_eq!(shown("/usr/bin/netshunt", Some("/c"), None).last().unwrap(), "/c/netshunt/liblkl.so");
        assert_eq!(
            shown("/usr/bin/netshunt", Some("relative"), Some("/h")).last().unwrap(),
            "/h/.cache/netshunt/liblkl.so"
        );
    }

    #[test]
    fn an_explicit_path_is_the_only_one() {
        let error = find(Some(Path::new("/nonexistent/liblkl.so"))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no kernel library at /nonexistent/liblkl.so; build it with `cargo xtask kernel`"
        );
    }

    #[test]
    fn root_takes_nothing_that_anybody_may_replace() {
        let folder = env::temp_dir().join(format!("netshunt-find-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let file = folder.join(NAME);
        fs::write(&file, "").unwrap();
        let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        chmod(&folder, 0o755);
        chmod(&file, 0o644);
        assert!(private(&file).is_ok());
        chmod(&file, 0o646);
        assert!(matches!(private(&file), Err(Error::Insecure { path }) if path == file));
        chmod(&file, 0o644);
        chmod(&folder, 0o777);
        assert!(matches!(private(&file), Err(Error::Insecure { path }) if path == folder));
        fs::remove_dir_all(&folder).unwrap();
    }
}
