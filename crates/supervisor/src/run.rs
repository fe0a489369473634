//! From a configuration to an exit status.

use std::io;
use std::process::Child;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use netshunt_backend::{Backend, Network};
use netshunt_notify::{Features, Handler, Listener, Watch};
use netshunt_policy::Policy;
use nix::unistd::Pid;
use rustix::process::{Resource, Rlimit, WaitOptions, getrlimit, setrlimit, wait};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{debug, info, warn};

use crate::calls::{Accepts, Calls, Gate, Resolver, Sends};
use crate::config::{Config, Counters, Dns, End, Outcome};
use crate::ends::Ends;
use crate::heirlooms::Heirlooms;
use crate::job::{Incoming, command_ends};
use crate::park::Lot;
use crate::points::{COMMAND_ENDED, LINK_OPEN, LISTENER_TAKEN};
use crate::routes::Routes;
use crate::sockets::Sockets;
use crate::stack::{Booting, Stack};
use crate::waits::Waits;
use crate::{Error, descendants, guest, host, inherited, sys};

/// Runs the command to its end. Call it inside a tokio runtime with I/O and time enabled.
///
/// The calling process becomes a child subreaper (prctl(2)) and unreadable to its user's other
/// processes, and every child of it is reaped: a front end should have no others. It may hold as many
/// descriptors as its hard limit says. Signals that end programs are passed on to the command.
///
/// # Errors
/// Whatever keeps the command from running as configured; nothing is left behind then.
pub async fn run(mut config: Config) -> Result<Outcome, Error> {
    let features = Features::detect()?;
    check(&features, config.strict)?;
    inherited::check(&config.keep_fds)?;
    sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1).map_err(Error::system("become a child subreaper"))?;
    let job = config.job.take();
    let prepared = Prepared::new(config, features).await?;
    let (child, (service, signals)) = prepared.start()?;
    let command = Pid::from_raw(child.id().cast_signed());
    let end = command_ends(command, signals, job).await.map_err(Error::system("wait for the command"))?;
    debug!(?end, "{COMMAND_ENDED}");
    service.finish(end).await
}

/// We hold up to two descriptors for each of the guest's sockets. The soft limit, usually 1024, is for
/// programs that use select(2), and for the guest to raise: what it may have open, we must be able to serve.
fn take_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        warn!(%error, "the limit of open files stays as it is");
    }
}

/// `--strict` wants every layer.
fn check(features: &Features, strict: bool) -> Result<(), Error> {
    let missing = features.missing();
    for lack in &missing {
        debug!(lack = lack.name, "missing on this kernel");
    }
    if strict && !missing.is_empty() {
        let missing = missing.iter().map(|lack| lack.name).collect::<Vec<_>>().join(", ");
        return Err(Error::Strict { missing });
    }
    Ok(())
}

/// Everything but the guest.
struct Prepared {
    config: Config,
    features: Features,
    policy: Policy,
    near: Vec<ipnet::IpNet>,
    first_port: u16,
    sockets: Arc<Sockets>,
    ends: Arc<Ends>,
    resolver: Option<Resolver>,
    booting: Booting,
}

impl Prepared {
    async fn new(mut config: Config, features: Features) -> Result<Self, Error> {
        let (sockets, ends) = (Arc::new(Sockets::default()), Arc::new(Ends::default()));
        let library = netshunt_lkl::find(config.library.as_deref())?;
        // The kernel boots while the link opens, which may mean to start a program.
        let first_port = if config.keep_caps { 0 } else { host::first_unprivileged_port() };
        let has_link = config.link.is_some();
        let mut booting =
            Stack::start(&library, has_link, first_port, sockets.clone(), ends.clone(), features)?;
        let link = match &config.link {
            Some(backend) => Some(backend.open().await?),
            None => None,
        };
        let network: Option<Network> = link.as_ref().map(|l| l.network().clone());
        let around = host::surroundings(network.as_ref(), config.shunt.is_some(), config.dns == Dns::Link)
            .map_err(Error::system("list the host's addresses"))?;
        let near = around.guest.iter().copied().chain(network.iter().flat_map(host::near)).collect();
        let policy = Policy::new(std::mem::take(&mut config.rules), around)?;
        let resolver = network.as_ref().and_then(|network| Resolver::of(network, config.dns));
        if !host::can_start_connects() {
            warn!("net.ipv4.tcp_fastopen lacks bit 1: blocking connects through the stack fail");
        }
        if let Some(link) = link {
            debug!(?link, "{LINK_OPEN}");
            booting.connect(link);
        }
        Ok(Prepared { config, features, policy, near, first_port, sockets, ends, resolver, booting })
    }

    /// Forks the guest while the stack boots, and lets it go when both are ready.
    fn start(self) -> Result<(Child, (Service, Incoming)), Error> {
        let Prepared { config, features, policy, near, first_port, sockets, ends, resolver, booting } = self;
        let Config { command, shunt, unix, keep_fds, keep_caps, wait, flows, .. } = config;
        let options = guest::Options { features: &features, keep_fds: &keep_fds, keep_caps };
        let held = guest::start(&command, &options)?;
        let (namespace, namespace_inode) =
            host::namespace().map_err(Error::system("look at the network namespace"))?;
        let routes = Routes::new().map_err(Error::system("make a netlink socket"))?;
        held.release(|listener| {
            debug!("{LISTENER_TAKEN}");
            let stack = booting.finish()?;
            let calls = Arc::new(Calls {
                features,
                policy: RwLock::new(policy),
                routes,
                sends: Arc::new(Sends::new(&unix, inherited::has_datagram(&keep_fds))),
                unix: Arc::new(Gate::new(unix, &features)),
                sockets,
                ends,
                resolver,
                accepts: Accepts::default(),
                heirlooms: Heirlooms::default(),
                stack,
                shunt: shunt.map(Arc::<dyn Backend>::from),
                flows: flows.map(Arc::from),
                waits: Arc::default(),
                first_port,
                runtime: tokio::runtime::Handle::current(),
                near,
                namespace,
                namespace_inode,
                kinds: Mutex::default(),
                lot: Mutex::new(Lot::new()),
                diag: OnceLock::new(),
                counts: Mutex::default(),
                reported: Mutex::default(),
                waiting: Arc::default(),
            });
            // After the fork, so that the command inherits its limit and what is ignored, and before it runs.
            take_descriptors();
            let signals = Incoming::passed().map_err(Error::system("catch signals"))?;
            Ok((Service::start(listener, calls, wait)?, signals))
        })
    }
}

/// A guest being served.
struct Service {
    calls: Arc<Calls>,
    watch: Watch,
    wait: bool,
}

impl Service {
    fn start(listener: Listener, calls: Arc<Calls>, wait: bool) -> Result<Self, Error> {
        // Guests of our own user could otherwise read our memory and take our descriptors.
        sys::prctl(libc::PR_SET_DUMPABLE, 0).map_err(Error::system("become unreadable"))?;
        let handler: Arc<dyn Handler> = calls.clone();
        let watch = Watch::start(listener, handler, &calls.features)
            .map_err(Error::system("serve the seccomp listener"))?;
        calls.sends.wake(watch.waker());
        calls.stack.wake(watch.waker());
        calls.runtime.spawn(Waits::watch(calls.waits.clone()));
        Ok(Service { calls, watch, wait })
    }

    /// Sums up, after the last descendant has ended if that is asked for.
    async fn finish(self, end: End) -> Result<Outcome, Error> {
        if self.wait {
            self.last_guest().await.map_err(Error::system("wait for the last guest"))?;
        }
        let others = self.calls.stack.others();
        let left = || descendants::list(&others).map_or(0, |all| all.len());
        let survivors = if self.watch.hung_up() { 0 } else { left() };
        let counters = self.counters();
        info!(?counters, "done");
        self.watch.stop();
        self.calls.stack.finish(survivors > 0);
        Ok(Outcome { end, survivors, counters })
    }

    async fn last_guest(&self) -> io::Result<()> {
        let hangup = sys::async_fd(self.watch.hangup_fd().try_clone_to_owned()?)?;
        let mut children = signal(SignalKind::child())?;
        loop {
            tokio::select! {
                ready = hangup.readable() => return ready.map(drop),
                _ = children.recv() => reap_others(),
            }
        }
    }

    fn counters(&self) -> Counters {
        let notifications = self.calls.counts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let traffic = self.calls.stack.traffic();
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counters {
            notifications,
            frames_out: of(&traffic.frames_out),
            frames_in: of(&traffic.frames_in),
            bytes_out: of(&traffic.bytes_out),
            bytes_in: of(&traffic.bytes_in),
        }
    }
}

/// Reaps descendants that became our children.
fn reap_others() {
    while matches!(wait(WaitOptions::NOHANG), Ok(Some(_))) {}
}
