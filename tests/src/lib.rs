//! The harness of netshunt's end-to-end tests: real programs against real servers, in network
//! namespaces that each test makes for itself and that nothing outlives.
//!
//! A [`World`] is two network namespaces joined by a cable. netshunt and its guests run on the *host*
//! side, servers on the *far* side. A [`Launch`] describes one program to run in it; its [`Run`] is
//! what came of it, with the flows netshunt logged and the frames it counted as proof of the path.
//!
//! The harness must be root. netshunt runs as root too, or, with `NETSHUNT_TEST_USER=nobody` in the
//! environment, as that user and without any capability. The link is libslirp, or with
//! `NETSHUNT_TEST_LINK` another ([`TestLink`]). `cargo xtask test` does all of it.
//!
//! ```no_run
//! use netshunt_tests::{Path, World};
//!
//! let world = World::new();
//! let web = world.nginx(256 << 10);
//! let run = world.netshunt(Path::Stack, &[web.port]).command(["curl", "-s", &web.url()]).run();
//! run.assert_success();
//! run.assert_path(Path::Stack, web.address(), web.file.len);
//! ```
#![forbid(unsafe_code)]

mod files;
mod launch;
mod link;
mod namespace;
mod nightly;
mod pairs;
mod processes;
mod report;
mod run;
mod servers;
mod turns;
mod user;
mod wait;
mod world;

pub use files::{Blob, copy_program, sha256};
pub use launch::{Launch, Running};
pub use link::TestLink;
pub use namespace::Namespace;
pub use nightly::is_nightly;
pub use pairs::{Pair, Transport};
pub use report::{Flow, Stats};
pub use run::Run;
pub use servers::{Service, Sshd, Trap, Web, hears_datagrams, listens};
pub use user::TestUser;
pub use wait::{DEADLINE, eventually, until};
pub use world::{FAR4, FAR6, HOST4, HOST6, Path, World};
