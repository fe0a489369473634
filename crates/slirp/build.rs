//! Finds libslirp. The bindings are checked in (`src/sys/ffi.rs`), so neither its header nor
//! libclang is needed to build; a unit test compares the two.

use std::env;
use std::process;

use pkg_config::{Config, Library};

/// The first release with `slirp_handle_timer` and `SlirpConfig` version 4.
const LEAST: &str = "4.7";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // slirp.pc requires glib-2.0, but Debian's libslirp-dev does not bring glib's development files,
    // and a program that links libslirp dynamically needs none of them: ask about slirp alone
    // (pkgconf), and only then with all it requires (the older pkg-config has no such option).
    let found = probe(&["--maximum-traverse-depth=1"]).or_else(|_| probe(&[]));
    let library = match found {
        Ok(library) => library,
        Err(error) => {
            println!(
                "cargo::error=libslirp {LEAST} or newer is needed to build netshunt-slirp: \
                 `apt install libslirp-dev pkg-config` (Debian 12, Ubuntu 22.10 or newer)"
            );
            for line in error.to_string().lines().filter(|line| !line.trim().is_empty()) {
                println!("cargo::warning={line}");
            }
            process::exit(1);
        }
    };
    for path in &library.link_paths {
        println!("cargo::rustc-link-search=native={}", path.display());
    }
    println!("cargo::rustc-link-lib=slirp");

    // For the layout test. A traversal of depth 1 reports no paths.
    let include = library.include_paths.first().map_or_else(
        || env::var("NETSHUNT_SLIRP_INCLUDE").unwrap_or_else(|_| "/usr/include/slirp".to_owned()),
        |path| path.display().to_string(),
    );
    println!("cargo::rerun-if-env-changed=NETSHUNT_SLIRP_INCLUDE");
    println!("cargo::rustc-env=NETSHUNT_SLIRP_INCLUDE={include}");
}

fn probe(arguments: &[&str]) -> Result<Library, pkg_config::Error> {
    let mut config = Config::new();
    config.atleast_version(LEAST).cargo_metadata(false);
    for argument in arguments {
        config.arg(argument);
    }
    config.probe("slirp")
}
