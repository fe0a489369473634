//! The loop that drives the kernel library, the link and the relays. Nothing here waits but poll(2).

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use netshunt_backend::{Link, Network, PollFd, Sent, Turned};
use netshunt_lkl::{Clock, Config, Event, Kernel, Library, Nic, NicConfig, Socket, Transmit};
use netshunt_notify::Features;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::runtime::Handle;
use tracing::{debug, error, info, warn};

use super::looks::{Looks, MISSES};
use super::relay::{Relay, SCRATCH, Step};
use super::{Command, Connect, Question, Reply, Shared};
use crate::Error;
use crate::address::for_family;
use crate::holders::Sought;
use crate::options::StackOption;
use crate::park::Closed;
use crate::pending::Pending;
use crate::points::{ABANDONED, CONNECTING, JOINED, REFUSED, RELAY_ENDED, STACK_UP};
use crate::sockets::{Cookie, Sockets, State};
use crate::sys;

/// What the thread starts from.
pub(super) struct Setup {
    pub(super) library: PathBuf,
    pub(super) link: Box<dyn Link>,
    pub(super) closed: Closed,
    pub(super) sockets: Arc<Sockets>,
    pub(super) shared: Arc<Shared>,
    pub(super) features: Features,
    /// Where guests' sockets are looked for.
    pub(super) runtime: Handle,
}

/// Runs the thread; reports once whether the stack is up.
pub(super) fn run(setup: Setup, report: &mpsc::SyncSender<Result<(), Error>>) {
    match Machine::boot(setup) {
        Ok(mut machine) => {
            // A maker that no longer waits has dropped us: the stop command is on its way.
            let _ = report.send(Ok(()));
            if let Err(error) = machine.run() {
                error!(%error, "the stack stopped: guests' connections are lost");
            }
        }
        Err(error) => drop(report.send(Err(error))),
    }
}

/// A stack socket's number in events and in epoll.
type Id = u64;

/// One connection of a guest.
enum Connection {
    /// `misses`: how many times in a row nobody had the guest's socket.
    Opening {
        request: Box<Connect>,
        stack: Socket,
        misses: u8,
    },
    Open {
        cookie: Cookie,
        relay: Relay,
        stack: Socket,
        names: (SocketAddr, SocketAddr),
        queued: bool,
    },
}

struct Machine {
    kernel: Kernel,
    nic: Nic,
    wire: Rc<Wire>,
    dead: bool,
    closed: Closed,
    sockets: Arc<Sockets>,
    shared: Arc<Shared>,
    connections: HashMap<Id, Connection>,
    /// The newest connection of each guest socket.
    current: HashMap<Cookie, Id>,
    looks: Looks,
    next: Id,
    epoll: Epoll,
    runnable: VecDeque<Id>,
    scratch: Box<[u8]>,
    events: Vec<Event>,
    fds: Vec<PollFd>,
}

impl Machine {
    fn boot(setup: Setup) -> Result<Self, Error> {
        let Setup { library, link, closed, sockets, shared, features, runtime } = setup;
        let library = Library::load(&library)?;
        let network = link.network().clone();
        let kernel = Kernel::boot(&library, &Config::default(), Clock::Host)?;
        let wire = Rc::new(Wire { link: RefCell::new(link), outbox: RefCell::default() });
        let nic = add_nic(&kernel, &network, wire.clone(), shared.clone())?;
        configure(&kernel, nic, &network).map_err(Error::system("configure the stack"))?;
        let v4 = network.v4.map(|v4| v4.address.to_string());
        let v6 = network.v6.map(|v6| v6.address.to_string());
        info!(kernel = library.version(), v4, v6, mtu = network.mtu, "{STACK_UP}");
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map_err(|e| Error::System { doing: "make an epoll instance", source: e.into() })?;
        Ok(Machine {
            kernel,
            nic,
            wire,
            dead: false,
            closed,
            sockets,
            shared,
            connections: HashMap::new(),
            current: HashMap::new(),
            looks: Looks::new(features, runtime),
            next: 1,
            epoll,
            runnable: VecDeque::new(),
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            events: Vec::new(),
            fds: Vec::new(),
        })
    }

    /// Turns until told to stop: work while there is any, then wait.
    fn run(&mut self) -> io::Result<()> {
        loop {
            for command in self.shared.take_commands() {
                if matches!(command, Command::Stop) {
                    return Ok(());
                }
                self.obey(command);
            }
            if self.work() {
                continue;
            }
            let deadline = self.kernel.run();
            if self.work() {
                continue;
            }
            self.wait(deadline)?;
        }
    }

    /// One round over everything that can run; returns whether anything did.
    fn work(&mut self) -> bool {
        let mut busy = self.receive();
        self.kernel.poll();
        self.kernel.events(&mut self.events);
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            busy = true;
            self.stack_event(event.cookie);
        }
        self.events = events;
        for _ in 0..self.runnable.len() {
            let Some(id) = self.runnable.pop_front() else { break };
            busy = true;
            self.turn(id);
        }
        busy
    }

    /// Hands the frames that have arrived to the stack.
    fn receive(&mut self) -> bool {
        let (kernel, nic, traffic) = (&self.kernel, self.nic, &self.shared.traffic);
        let received = self.wire.link.borrow_mut().receive(&mut |frame| {
            traffic.received(frame.len());
            // Out of memory or a full queue loses the frame, as a card would.
            let _ = kernel.receive(nic, frame);
        });
        self.wire.flush();
        if received {
            // A link that never rests lets nobody wait: a frame that it refused is offered here as well.
            self.kernel.wake(self.nic);
        }
        received
    }

    /// Waits for a command, a relay's guest, the link or the stack's next timer.
    fn wait(&mut self, deadline: Option<u64>) -> io::Result<()> {
        let entry = |fd| PollFd { fd, events: libc::POLLIN, revents: 0 };
        self.fds.clear();
        self.fds.push(entry(self.shared.ready_fd().as_raw_fd()));
        self.fds.push(entry(self.epoll.0.as_raw_fd()));
        let now = Instant::now();
        let link = (!self.dead).then(|| self.wire.link.borrow_mut().interests(now, &mut self.fds)).flatten();
        let link = link.map(|at| at.saturating_duration_since(now).as_nanos() as u64);
        let kernel = deadline.map(|at| at.saturating_sub(self.kernel.now()));
        let look = self.look(now).map(|wait| wait.as_nanos() as u64);
        let timeout = [link, kernel, look].into_iter().flatten().min();
        sys::poll(&mut self.fds, timeout)?;
        if self.fds[0].revents != 0 {
            self.shared.awake();
        }
        if self.fds[1].revents != 0 {
            self.guest_events()?;
        }
        if !self.dead {
            let turned = self.wire.link.borrow_mut().turn(Instant::now(), &self.fds[2..]);
            match turned {
                Ok(Turned::Alive) => {}
                Ok(Turned::Renewed) => self.renewed(),
                Err(error) => {
                    error!(%error, "the network is dead: connections over it time out");
                    self.dead = true;
                }
            }
            self.wire.flush();
            self.kernel.wake(self.nic);
        }
        Ok(())
    }

    /// Has the sockets looked for whose turn it is; returns how long until the next one's.
    fn look(&mut self, now: Instant) -> Option<Duration> {
        let is_opening = |cookie| {
            let id = self.current.get(&cookie);
            id.is_some_and(|id| matches!(self.connections.get(id), Some(Connection::Opening { .. })))
        };
        let wait = self.looks.wait(now, is_opening)?;
        if !wait.is_zero() {
            return Some(wait);
        }
        let mut sought = Vec::new();
        for cookie in self.looks.take(now) {
            let Some(id) = self.current.get(&cookie) else { continue };
            let Some(Connection::Opening { request, .. }) = self.connections.get(id) else { continue };
            // A thread in connect(2) has the socket, whatever becomes of the descriptor.
            let waits = request.waiting.iter().any(Pending::is_open);
            match sys::inode(request.guest.as_fd()) {
                Ok(inode) if !waits => sought.push(Sought { caller: request.caller, cookie, inode }),
                _ => self.looks.add(cookie, now),
            }
        }
        if !sought.is_empty() {
            self.looks.look(sought, self.shared.clone());
        }
        None
    }

    fn looked(&mut self, looked: &[Cookie], missing: &[Cookie]) {
        let now = Instant::now();
        for &cookie in looked {
            let Some(&id) = self.current.get(&cookie) else { continue };
            let Some(Connection::Opening { misses, .. }) = self.connections.get_mut(&id) else { continue };
            *misses = if missing.contains(&cookie) { *misses + 1 } else { 0 };
            match *misses {
                MISSES => self.abandon(id),
                _ => self.looks.add(cookie, now),
            }
        }
    }

    /// Nobody has the guest's socket any more.
    fn abandon(&mut self, id: Id) {
        let Some(Connection::Opening { request, stack, .. }) = self.connections.remove(&id) else { return };
        let Connect { cookie, guest, v6, destination, flow, .. } = *request;
        self.give_up(stack, destination);
        self.current.remove(&cookie);
        // Should it be in flight after all (SCM_RIGHTS): whoever receives it finds that it failed.
        self.sockets.lock().set(cookie, State::Failed { errno: libc::ECONNABORTED });
        let _ = self.closed.refuse(guest.as_fd(), v6);
        debug!(dst = %destination, "{ABANDONED}");
        flow.close(Ok(()));
    }

    /// Ends a stack socket that was to be connected, also on the far side of the link.
    fn give_up(&self, stack: Socket, destination: SocketAddr) {
        let local = self.kernel.local_address(stack);
        self.kernel.abort(stack);
        if let Ok(local) = local {
            self.wire.link.borrow_mut().abandon(local, destination);
        }
    }

    /// The link's far side has forgotten every connection: nobody would answer a guest that sends, and
    /// nothing would wake one that waits. Those that are being opened begin again.
    fn renewed(&mut self) {
        self.shared.renew(&**self.wire.link.borrow());
        let is_open = |connection: &Connection| matches!(connection, Connection::Open { .. });
        let (open, opening): (Vec<Id>, Vec<Id>) =
            self.connections.keys().partition(|&id| self.connections.get(id).is_some_and(is_open));
        warn!(reset = open.len(), opening = opening.len(), "the link has a new far side, which knows nobody");
        for id in open {
            if let Some(Connection::Open { relay, .. }) = self.connections.get(&id) {
                relay.cut(&self.kernel);
            }
            self.end(id);
        }
        opening.into_iter().for_each(|id| self.begin_again(id));
    }

    /// Connects another socket in the place of one whose SYN is lost: Linux would repeat that only after a
    /// second (RFC 6298, section 2).
    fn begin_again(&mut self, id: Id) {
        let Some(Connection::Opening { mut request, stack, .. }) = self.connections.remove(&id) else {
            return;
        };
        // The guest may have asked for its name already.
        request.bound = request.bound.or(self.kernel.local_address(stack).ok());
        self.kernel.abort(stack);
        match self.start(id, &request) {
            Ok(stack) => {
                self.connections.insert(id, Connection::Opening { request, stack, misses: 0 });
                self.progress(id, stack);
            }
            Err(error) => {
                self.current.remove(&request.cookie);
                self.refuse(*request, error.raw_os_error().unwrap_or(libc::EIO));
            }
        }
    }

    fn guest_events(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::ZERO) {
                Err(nix::errno::Errno::EINTR) => continue,
                other => other?,
            };
            for event in &events[..count] {
                self.enqueue(event.data());
            }
            if count < events.len() {
                return Ok(());
            }
        }
    }

    /// Puts a relay in the line, once.
    fn enqueue(&mut self, id: Id) {
        if let Some(Connection::Open { queued, .. }) = self.connections.get_mut(&id)
            && !std::mem::replace(queued, true)
        {
            self.runnable.push_back(id);
        }
    }

    fn turn(&mut self, id: Id) {
        let Some(Connection::Open { relay, queued, .. }) = self.connections.get_mut(&id) else { return };
        *queued = false;
        match relay.step(&self.kernel, &mut self.scratch) {
            Step::Done => self.end(id),
            Step::More => self.enqueue(id),
            Step::Wait => {}
        }
    }

    /// A relay is over: its socket's names stay known.
    fn end(&mut self, id: Id) {
        let Some(Connection::Open { cookie, names: (local, peer), .. }) = self.connections.remove(&id) else {
            return;
        };
        if self.current.get(&cookie) == Some(&id) {
            self.current.remove(&cookie);
            self.sockets.lock().set(cookie, State::Ended { local, peer });
        }
        debug!(dst = %peer, "{RELAY_ENDED}");
    }

    fn stack_event(&mut self, id: Id) {
        match self.connections.get(&id) {
            Some(Connection::Open { .. }) => self.enqueue(id),
            Some(Connection::Opening { stack, .. }) => self.progress(id, *stack),
            None => {}
        }
    }

    /// Looks whether an opening connection is up or has failed.
    fn progress(&mut self, id: Id, stack: Socket) {
        match self.kernel.take_error(stack) {
            // A reset without a connection is a refusal: this one was up for a moment.
            Ok(Some(libc::ECONNRESET)) => self.up_and_reset(id),
            Ok(Some(errno)) => self.fail(id, errno),
            Ok(None) if self.kernel.readiness(stack) & libc::EPOLLOUT as u32 != 0 => self.up(id),
            Ok(None) => {}
            Err(error) => self.fail(id, error.raw_os_error().unwrap_or(libc::EIO)),
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Connect(request) => self.connect(request),
            Command::Drop { cookie } => self.drop_connection(cookie),
            Command::Interfaces(asked) => self.shared.reply(asked.answer(&self.kernel)),
            Command::LocalName { cookie, question } => self.local_name(cookie, question),
            Command::Read { cookie, level, name, size, question } => {
                self.read(cookie, level, name, size, question);
            }
            Command::Looked { looked, missing, took } => {
                self.looks.looked(took);
                self.looked(&looked, &missing);
            }
            Command::Set { cookie, option, asked } => {
                let result = self.set(cookie, &option);
                if let Some(notification) = asked {
                    crate::pending::answer(notification, result);
                }
            }
            Command::Stop => {}
            Command::Wait { cookie, pending } => self.wait_for(cookie, pending),
        }
    }

    fn connect(&mut self, request: Box<Connect>) {
        let id = self.next;
        self.next += 1;
        match self.start(id, &request) {
            Ok(stack) => {
                debug!(dst = %request.destination, "{CONNECTING}");
                self.current.insert(request.cookie, id);
                self.looks.add(request.cookie, Instant::now());
                self.connections.insert(id, Connection::Opening { request, stack, misses: 0 });
                // Over the stack's own loopback it may be decided already.
                self.progress(id, stack);
            }
            Err(error) => {
                self.refuse(*request, error.raw_os_error().unwrap_or(libc::EIO));
            }
        }
    }

    /// Opens the stack's socket and starts to connect it.
    fn start(&self, id: Id, request: &Connect) -> io::Result<Socket> {
        let v6 = request.destination.is_ipv6();
        let domain = if v6 { libc::AF_INET6 } else { libc::AF_INET };
        let stack = self.kernel.socket(domain, libc::SOCK_STREAM, 0, id)?;
        let started =
            self.prepare(stack, request).and_then(|()| self.kernel.connect(stack, request.destination));
        match started {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => {
                self.kernel.close(stack);
                Err(error)
            }
            _ => Ok(stack),
        }
    }

    fn prepare(&self, stack: Socket, request: &Connect) -> io::Result<()> {
        for StackOption { level, name, value } in &request.options {
            if let Err(error) = self.kernel.set_option(stack, *level, *name, value) {
                debug!(level, name, %error, "the stack does not take an option");
            }
        }
        match request.bound {
            Some(local) => self.kernel.bind(stack, for_family(local, request.destination.is_ipv6())),
            None => Ok(()),
        }
    }

    /// The stack's connection is up: join the guest's socket and start the relay.
    fn up(&mut self, id: Id) {
        let Some(Connection::Opening { request, stack, .. }) = self.connections.remove(&id) else { return };
        let Connect { cookie, guest, v6, space, destination, waiting, flow, .. } = *request;
        // Locked: from the join on the guest has its event, and may ask who its peer is.
        let mut sockets = self.sockets.lock();
        let joined = self.kernel.local_address(stack).and_then(|local| {
            let p = space.join()?;
            let flags =
                EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
            self.epoll.add(p.as_fd(), EpollEvent::new(flags, id))?;
            sockets.set(cookie, State::Connected { local, peer: destination });
            Ok((local, p))
        });
        drop(sockets);
        let (local, p) = match joined {
            Ok(joined) => joined,
            Err(error) => {
                // The guest closed its socket meanwhile, or took it elsewhere.
                debug!(dst = %destination, %error, "nobody waits for this connection any more");
                self.kernel.abort(stack);
                self.forget(cookie, id);
                flow.close(Ok(()));
                return answer_all(&waiting, Err(libc::ECONNABORTED));
            }
        };
        if waiting.iter().any(Pending::is_open) {
            // A blocking connect(2) leaves its socket connected, not connecting: the next one
            // must say EISCONN.
            let _ = sys::connect(guest.as_fd(), space.again(v6));
        }
        flow.close(Ok(()));
        answer_all(&waiting, Ok(()));
        debug!(dst = %destination, "{JOINED}");
        let relay = Relay::new(p, stack);
        let names = (local, destination);
        self.connections.insert(id, Connection::Open { cookie, relay, stack, names, queued: false });
        self.enqueue(id);
    }

    fn up_and_reset(&mut self, id: Id) {
        self.up(id);
        if let Some(Connection::Open { relay, .. }) = self.connections.get(&id) {
            relay.cut(&self.kernel);
            self.end(id);
        }
    }

    fn fail(&mut self, id: Id, errno: i32) {
        let Some(Connection::Opening { request, stack, .. }) = self.connections.remove(&id) else { return };
        self.give_up(stack, request.destination);
        self.current.remove(&request.cookie);
        self.refuse(*request, errno);
    }

    /// Tells the guest that its connection failed.
    fn refuse(&mut self, request: Connect, errno: i32) {
        let Connect { cookie, guest, v6, waiting, flow, .. } = request;
        let blocking = waiting.iter().any(Pending::is_open);
        // Known before the guest can see an event. A blocking call has its errno as answer, and
        // SO_ERROR is then 0, as natively.
        let state = if blocking { State::Idle } else { State::Failed { errno } };
        // Locked: the guest may ask for SO_ERROR as soon as it has its event, and half-way through
        // there would be another error to come.
        let mut sockets = self.sockets.lock();
        sockets.set(cookie, state);
        let ended = match blocking {
            // tcp_disconnect() leaves ECONNRESET behind.
            true => sys::disconnect(guest.as_fd())
                .and_then(|()| sys::int_option(guest.as_fd(), libc::SOL_SOCKET, libc::SO_ERROR).map(drop)),
            false => self.closed.refuse(guest.as_fd(), v6),
        };
        drop(sockets);
        debug!(errno, "{REFUSED}");
        if let Err(error) = ended {
            debug!(%error, "cannot end a parked socket");
        }
        flow.close(Err(errno));
        answer_all(&waiting, Err(errno));
    }

    fn forget(&mut self, cookie: Cookie, id: Id) {
        if self.current.get(&cookie) == Some(&id) {
            self.current.remove(&cookie);
            self.sockets.lock().forget(cookie);
        }
    }

    fn drop_connection(&mut self, cookie: Cookie) {
        let Some(id) = self.current.remove(&cookie) else { return };
        match self.connections.remove(&id) {
            Some(Connection::Opening { request, stack, .. }) => {
                self.give_up(stack, request.destination);
                answer_all(&request.waiting, Err(libc::ECONNABORTED));
            }
            Some(Connection::Open { stack, .. }) => self.kernel.abort(stack),
            None => {}
        }
    }

    fn wait_for(&mut self, cookie: Cookie, pending: Pending) {
        let opening = self.current.get(&cookie).and_then(|id| self.connections.get_mut(id));
        match opening {
            Some(Connection::Opening { request, .. }) => request.waiting.push(pending),
            Some(Connection::Open { .. }) => pending.answer(Ok(())),
            None => {
                let mut sockets = self.sockets.lock();
                let errno = match sockets.state(cookie) {
                    State::Failed { errno } => {
                        sockets.set(cookie, State::Idle);
                        errno
                    }
                    _ => libc::ECONNABORTED,
                };
                drop(sockets);
                pending.answer(Err(errno));
            }
        }
    }

    fn stack_of(&self, cookie: Cookie) -> Option<Socket> {
        match self.connections.get(self.current.get(&cookie)?)? {
            Connection::Open { stack, .. } | Connection::Opening { stack, .. } => Some(*stack),
        }
    }

    fn local_name(&self, cookie: Cookie, question: Question) {
        let result = self.on_stack(cookie, Kernel::local_address);
        self.shared.reply(Reply::LocalName { question, result });
    }

    fn read(&self, cookie: Cookie, level: i32, name: i32, size: usize, question: Question) {
        let result = self.on_stack(cookie, |kernel, stack| {
            let mut value = vec![0; size];
            let len = kernel.option(stack, level, name, &mut value)?;
            value.truncate(len);
            Ok(value)
        });
        self.shared.reply(Reply::Read { question, result });
    }

    fn set(&self, cookie: Cookie, option: &StackOption) -> Result<(), i32> {
        self.on_stack(cookie, |kernel, stack| {
            kernel.set_option(stack, option.level, option.name, &option.value)
        })
    }

    fn on_stack<T>(
        &self,
        cookie: Cookie,
        call: impl FnOnce(&Kernel, Socket) -> io::Result<T>,
    ) -> Result<T, i32> {
        let stack = self.stack_of(cookie).ok_or(libc::ENOTCONN)?;
        call(&self.kernel, stack).map_err(|e| e.raw_os_error().unwrap_or(libc::EIO))
    }
}

fn answer_all(waiting: &[Pending], result: Result<(), i32>) {
    for pending in waiting {
        pending.answer(result);
    }
}

/// The link, and the frames it could not be given at once.
struct Wire {
    link: RefCell<Box<dyn Link>>,
    /// Frames that the stack sent while the link was handing it one: it may answer at once.
    outbox: RefCell<VecDeque<Vec<u8>>>,
}

impl Wire {
    fn send(&self, frame: &[IoSlice<'_>]) -> Sent {
        let mut outbox = self.outbox.borrow_mut();
        match self.link.try_borrow_mut() {
            Ok(mut link) if outbox.is_empty() => link.send(frame),
            _ => {
                outbox.push_back(frame.iter().flat_map(|piece| piece.iter().copied()).collect());
                Sent::Taken
            }
        }
    }

    /// Sends what had to wait, as far as the link has room.
    fn flush(&self) {
        let mut outbox = self.outbox.borrow_mut();
        let mut link = self.link.borrow_mut();
        while let Some(frame) = outbox.front() {
            match link.send(&[IoSlice::new(frame)]) {
                Sent::Busy => return,
                Sent::Taken => drop(outbox.pop_front()),
            }
        }
    }
}

fn add_nic(kernel: &Kernel, network: &Network, wire: Rc<Wire>, shared: Arc<Shared>) -> Result<Nic, Error> {
    let config = NicConfig {
        tx_checksum_offload: network.trusted,
        rx_checksum_offload: network.trusted,
        ..NicConfig::new(network.mac, network.mtu)
    };
    let transmit = move |frame: &[IoSlice<'_>]| match wire.send(frame) {
        Sent::Busy => Transmit::Busy,
        Sent::Taken => {
            shared.traffic.sent(frame.iter().map(|piece| piece.len()).sum());
            Transmit::Taken
        }
    };
    Ok(kernel.add_nic(config, Box::new(transmit))?)
}

/// How to take losses on the wire (ip-sysctl.rst, the second since Linux 6.11).
///
/// passt drops what its own socket has no room for, though its window allowed it, offers no SACK, and tells
/// by fewer than three duplicate acknowledgements: an upload waited for 200 ms each time. A link is a queue
/// that never reorders, so one duplicate is a loss; and it is near, so silence is one soon.
const LOSS: [(&str, &str); 2] = [("net/ipv4/tcp_reordering", "1"), ("net/ipv4/tcp_rto_min_us", "10000")];

/// Gives the stack its addresses and routes, and makes it fit for the link.
fn configure(kernel: &Kernel, nic: Nic, network: &Network) -> io::Result<()> {
    LOSS.iter().try_for_each(|(name, value)| kernel.sysctl(name, value))?;
    let interface = nic.ifindex;
    kernel.interface_up(interface)?;
    if let Some(v4) = network.v4 {
        kernel.add_address(interface, v4.address.into())?;
        kernel.add_route(everything(v4.gateway.into()), Some(v4.gateway.into()), interface)?;
    }
    if let Some(v6) = network.v6 {
        kernel.add_address(interface, v6.address.into())?;
        kernel.add_route(everything(v6.gateway.into()), Some(v6.gateway.into()), interface)?;
    }
    Ok(())
}

/// The default destination of the gateway's family.
fn everything(gateway: IpAddr) -> ipnet::IpNet {
    match gateway {
        IpAddr::V4(_) => ipnet::Ipv4Net::default().into(),
        IpAddr::V6(_) => ipnet::Ipv6Net::default().into(),
    }
}
