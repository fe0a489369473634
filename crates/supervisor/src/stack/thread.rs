//! The loop that drives the kernel library, the link and the relays. Nothing here waits but poll(2).

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use netshunt_backend::{Link, PollFd, Turned};
use netshunt_lkl::{Clock, Config, Event, Kernel, Library, Nic};
use netshunt_notify::Features;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::runtime::Handle;
use tracing::{error, info, warn};

use super::connections::Connection;
use super::direct::{Directs, SOME};
use super::listeners::Listeners;
use super::looks::Looks;
use super::pump::Datagram;
use super::relay::SCRATCH;
use super::wire::{Nowhere, Wire, add_nic, configure, open};
use super::{Command, Shared};
use crate::Error;
use crate::ends::Ends;
use crate::park::Closed;
use crate::points::STACK_UP;
use crate::sockets::{Cookie, Sockets};
use crate::sys;

/// What the thread starts from.
pub(super) struct Setup {
    pub(super) library: PathBuf,
    /// Comes while the kernel boots. Without one there is only the loopback, and no kernel until it is needed.
    pub(super) link: Option<mpsc::Receiver<Box<dyn Link>>>,
    pub(super) closed: Closed,
    pub(super) sockets: Arc<Sockets>,
    pub(super) ends: Arc<Ends>,
    pub(super) shared: Arc<Shared>,
    pub(super) features: Features,
    /// The first port of the host's that guests may bind.
    pub(super) first_port: u16,
    /// Where guests' sockets are looked for.
    pub(super) runtime: Handle,
}

/// Runs the thread; reports once whether the stack is up.
pub(super) fn run(setup: Setup, report: &mpsc::SyncSender<Result<(), Error>>) {
    /// However it ends, by a panic too: nobody is to wait for it.
    struct Over(Arc<Shared>);
    impl Drop for Over {
        fn drop(&mut self) {
            self.0.close();
        }
    }
    let shared = setup.shared.clone();
    let _over = Over(shared.clone());
    let first = if setup.link.is_none() {
        let _ = report.send(Ok(()));
        match first_commands(&shared) {
            Ok(first) => first,
            Err(error) => return error!(%error, "the stack cannot wait for its first command"),
        }
    } else {
        Vec::new()
    };
    if first.iter().any(is_stop) {
        return;
    }
    let stopped = match Machine::boot(setup) {
        Ok(mut machine) => {
            // A maker that no longer waits has dropped us: the stop command is on its way.
            let _ = report.try_send(Ok(()));
            first.into_iter().for_each(|command| machine.obey(command));
            machine.run().map_err(Error::system("turn the stack"))
        }
        Err(error) => match report.try_send(Err(error)) {
            // Nobody waits for it: guests run already.
            Err(mpsc::TrySendError::Full(Err(error)) | mpsc::TrySendError::Disconnected(Err(error))) => {
                Err(error)
            }
            _ => return,
        },
    };
    if let Err(error) = stopped {
        error!(%error, "the stack stopped: guests' connections are lost");
        // What is asked from now on fails.
        while first_commands(&shared).is_ok_and(|commands| !commands.iter().any(is_stop)) {}
    }
}

fn is_stop(command: &Command) -> bool {
    matches!(command, Command::Stop)
}

/// Waits until something is to be done.
fn first_commands(shared: &Shared) -> io::Result<Vec<Command>> {
    loop {
        if shared.sleeps() {
            let mut ready = [PollFd { fd: shared.ready_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 }];
            sys::poll(&mut ready, None)?;
            shared.clear_ready();
        }
        let mut commands = shared.take_commands();
        commands.retain(|command| !matches!(command, Command::Drain { .. }));
        if !commands.is_empty() {
            return Ok(commands);
        }
    }
}

/// A stack socket's number in events and in epoll.
pub(super) type Id = u64;

/// How often closed sockets are looked for of which nobody tells us.
const SWEEP: Duration = Duration::from_secs(1);

/// In epoll: there are commands. Numbers of sockets begin with 1.
const COMMANDS: Id = 0;

/// Busy rounds before a look at the descriptors: who waits there is not to wait until nobody has
/// anything to do.
const PATIENCE: u32 = 16;

pub(super) struct Machine {
    pub(super) kernel: Kernel,
    /// The link's, if there is one.
    pub(super) nic: Option<Nic>,
    pub(super) wire: Rc<Wire>,
    pub(super) dead: bool,
    pub(super) closed: Closed,
    pub(super) sockets: Arc<Sockets>,
    pub(super) shared: Arc<Shared>,
    pub(super) connections: HashMap<Id, Connection>,
    /// The newest connection of each guest socket.
    pub(super) current: HashMap<Cookie, Id>,
    pub(super) listeners: Listeners,
    pub(super) directs: Directs,
    pub(super) looks: Looks,
    pub(super) ends: Arc<Ends>,
    pub(super) datagrams: HashMap<Id, Datagram>,
    pub(super) first_port: u16,
    /// For one of theirs; there is none before there is a socket.
    pub(super) datagram_room: Vec<u8>,
    /// How many sockets were left when they were last looked through, and when they will be again.
    pub(super) swept: usize,
    pub(super) sweep_at: Option<Instant>,
    pub(super) next: Id,
    pub(super) epoll: Epoll,
    pub(super) runnable: VecDeque<Id>,
    pub(super) scratch: Box<[u8]>,
    pub(super) events: Vec<Event>,
    pub(super) fds: Vec<PollFd>,
}

impl Machine {
    fn boot(setup: Setup) -> Result<Self, Error> {
        let Setup { library, link, closed, sockets, ends, shared, features, first_port, runtime } = setup;
        let library = Library::load(&library)?;
        let kernel = Kernel::boot(&library, &Config::default(), Clock::Host)?;
        let is_alone = link.is_none();
        let link = match link {
            Some(link) => link.recv().map_err(|_| Error::System {
                doing: "open a link",
                source: io::Error::other("nobody wants a stack any more"),
            })?,
            None => Box::new(Nowhere::new()),
        };
        let network = link.network().clone();
        let wire = Rc::new(Wire::new(link));
        open(&kernel).map_err(Error::system("configure the stack"))?;
        let nic = match is_alone {
            true => None,
            false => {
                let nic = add_nic(&kernel, &network, wire.clone(), shared.clone())?;
                configure(&kernel, nic, &network).map_err(Error::system("configure the stack"))?;
                Some(nic)
            }
        };
        let v4 = network.v4.map(|v4| v4.address.to_string());
        let v6 = network.v6.map(|v6| v6.address.to_string());
        info!(kernel = library.version(), v4, v6, mtu = network.mtu, "{STACK_UP}");
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map_err(|e| Error::System { doing: "make an epoll instance", source: e.into() })?;
        // An edge needs no read of the counter.
        epoll
            .add(shared.ready_fd(), EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, COMMANDS))
            .map_err(|e| Error::System { doing: "watch an eventfd", source: e.into() })?;
        super::confine::enter()?;
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
            listeners: Listeners::new(),
            directs: Directs::default(),
            looks: Looks::new(features, runtime),
            ends,
            datagrams: HashMap::new(),
            first_port,
            datagram_room: Vec::new(),
            swept: 0,
            sweep_at: None,
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
        let mut rounds = 0;
        loop {
            for command in self.shared.take_commands() {
                if matches!(command, Command::Stop) {
                    return Ok(());
                }
                self.obey(command);
            }
            let mut busy = self.work();
            let mut deadline = None;
            if !busy {
                deadline = self.kernel.run();
                busy = self.work();
            }
            rounds += 1;
            if busy && rounds < PATIENCE {
                continue;
            }
            rounds = 0;
            self.wait(if busy { Some(0) } else { deadline })?;
        }
    }

    /// One round over everything that can run; returns whether anything did.
    pub(super) fn work(&mut self) -> bool {
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
        let Some(nic) = self.nic else { return false };
        let (kernel, traffic) = (&self.kernel, &self.shared.traffic);
        let received = self.wire.link.borrow_mut().receive(&mut |frame| {
            traffic.received(frame.len());
            // Out of memory or a full queue loses the frame, as a card would.
            let _ = kernel.receive(nic, frame);
        });
        self.wire.flush();
        if received {
            // A link that never rests lets nobody wait: a frame that it refused is offered here as well.
            self.kernel.wake(nic);
        }
        received
    }

    /// Waits for a command, a relay's guest, the link or the stack's next timer.
    pub(super) fn wait(&mut self, deadline: Option<u64>) -> io::Result<()> {
        let entry = |fd| PollFd { fd, events: libc::POLLIN, revents: 0 };
        self.fds.clear();
        self.fds.push(entry(self.epoll.0.as_raw_fd()));
        let now = Instant::now();
        let link = (!self.dead).then(|| self.wire.link.borrow_mut().interests(now, &mut self.fds)).flatten();
        let link = link.map(|at| at.saturating_duration_since(now).as_nanos() as u64);
        let kernel = deadline.map(|at| at.saturating_sub(self.kernel.now()));
        let look = self.look(now).map(|wait| wait.as_nanos() as u64);
        let sweep = self.sweep_at.map(|at| at.saturating_duration_since(now).as_nanos() as u64);
        let timeout = [link, kernel, look, sweep].into_iter().flatten().min();
        let timeout = if self.shared.sleeps() { timeout } else { Some(0) };
        sys::poll(&mut self.fds, timeout)?;
        if self.fds[0].revents != 0 {
            self.guest_events()?;
        }
        if sweep == Some(0) {
            self.sweep();
            self.sweep_next_directs(SOME);
            let is_idle = self.datagrams.is_empty() && self.directs.is_empty();
            self.sweep_at = (!is_idle).then(|| Instant::now() + SWEEP);
        }
        if let Some(nic) = self.nic.filter(|_| !self.dead) {
            let turned = self.wire.link.borrow_mut().turn(Instant::now(), &self.fds[1..]);
            match turned {
                Ok(Turned::Alive) => {}
                Ok(Turned::Renewed) => self.renewed(),
                Err(error) => {
                    error!(%error, "the network is dead: connections over it time out");
                    self.dead = true;
                }
            }
            self.wire.flush();
            self.kernel.wake(nic);
        }
        Ok(())
    }

    /// Closed sockets of which nobody tells us are looked for once a second while there are any.
    pub(super) fn sweep_soon(&mut self) {
        self.sweep_at.get_or_insert_with(|| Instant::now() + SWEEP);
    }

    /// The link's far side has forgotten every connection: nobody would answer a guest that sends, and
    /// nothing would wake one that waits. Those that are being opened begin again.
    fn renewed(&mut self) {
        self.shared.renew(&**self.wire.link.borrow());
        self.lose_arrived();
        let (mut open, mut opening) = (Vec::new(), Vec::new());
        for (&id, connection) in &self.connections {
            match connection {
                Connection::Open { .. } => open.push(id),
                Connection::Opening { .. } => opening.push(id),
                Connection::Direct(_) => {}
            }
        }
        warn!(reset = open.len(), opening = opening.len(), "the link has a new far side, which knows nobody");
        for id in open {
            if let Some(Connection::Open { relay, .. }) = self.connections.get(&id) {
                relay.cut(&self.kernel);
            }
            self.end(id);
        }
        opening.into_iter().for_each(|id| self.begin_again(id));
    }

    fn guest_events(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::ZERO) {
                Err(nix::errno::Errno::EINTR) => continue,
                other => other?,
            };
            for event in &events[..count] {
                let id = event.data();
                if self.listeners.know(id) {
                    self.listener_event(id);
                    continue;
                }
                if let Some(Connection::Open { relay, .. }) = self.connections.get_mut(&id) {
                    relay.noted(event.events());
                }
                self.enqueue(id);
            }
            if count < events.len() {
                return Ok(());
            }
        }
    }

    fn stack_event(&mut self, id: Id) {
        match self.connections.get(&id) {
            Some(Connection::Open { .. }) => self.enqueue(id),
            Some(Connection::Opening { stack, .. }) => self.progress(id, *stack),
            Some(Connection::Direct(_)) => {}
            None if self.listeners.know(id) => self.listener_event(id),
            None => self.enqueue_datagram(id),
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Accepted { id, cookie } => self.accepted(id, cookie),
            Command::Bind(request) => self.bind(*request),
            Command::Connect(request) => self.connect(request),
            Command::Datagram(asking) => self.ask_datagram(*asking),
            Command::Drain { survivors } => self.drain(survivors),
            Command::Drop { cookie } => self.drop_connection(cookie),
            Command::Interfaces(asked) => self.shared.reply(asked.answer(&self.kernel)),
            Command::Left { id } => self.enqueue_datagram(id),
            Command::Listen { request, backlog } => self.listen(*request, backlog),
            Command::LocalName { cookie, question } => self.local_name(cookie, question),
            Command::Make(make) => self.make(*make),
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
}
