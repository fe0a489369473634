//! The stack path: a thread of its own runs the kernel library, the link and the relays, and does
//! what the handlers of guests' calls ask for.
//!
//! Commands go in through a mailbox, in order. Answers that need no guest memory are given from
//! here; the others come back as [`Reply`] and are written by the thread that serves guests, which
//! may be lost in guest memory when this one may not.

mod arrivals;
mod confine;
mod connections;
mod datagrams;
mod direct;
mod drain;
mod host;
mod interfaces;
mod listeners;
mod looks;
mod neighbours;
mod pump;
mod relay;
mod thread;
mod wire;

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netshunt_backend::Link;
use netshunt_notify::{Duplicate, Features, Notification, TargetAddr, Waker};
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::runtime::Handle;

use arrivals::Arrivals;
pub(crate) use arrivals::{Arrival, Stage};
pub(crate) use datagrams::{Ask, Asking, ErrorMessage, LONGEST, Make, Outgoing, To};
pub(crate) use interfaces::Interfaces;
pub(crate) use listeners::Bind;

use crate::Error;
use crate::calls::ReceiveCall;
use crate::ends::{End, Ends};
use crate::flows::Open;
use crate::holders::Caller;
use crate::options::StackOption;
use crate::park::{Closed, Space};
use crate::pending::Pending;
use crate::sockets::{Cookie, Sockets};

/// What the thread that serves guests asks for.
#[derive(Debug)]
pub(crate) enum Command {
    /// A guest has accepted a connection, which is that socket of its from now on.
    Accepted { id: u64, cookie: Cookie },
    /// Bind a socket of the stack.
    Bind(Box<Bind>),
    /// Connect on behalf of a parked socket.
    Connect(Box<Connect>),
    /// Do something with a datagram or netlink socket.
    Datagram(Box<Asking>),
    /// The command has ended: send what it has sent. Whether there are `survivors`.
    Drain { survivors: bool },
    /// Give up a connection: the guest dissolved it.
    Drop { cookie: Cookie },
    /// Say something of the interfaces.
    Interfaces(Box<Interfaces>),
    /// A receive is done with the sender of what lies in a guest's queue.
    Left { id: u64 },
    /// Let a socket of the stack listen.
    Listen { request: Box<Bind>, backlog: i32 },
    /// Read a socket's own address.
    LocalName { cookie: Cookie, question: Question },
    /// Make a datagram or netlink socket.
    Make(Box<Make>),
    /// Read an option.
    Read { cookie: Cookie, level: i32, name: i32, size: usize, question: Question },
    /// Set an option; the answer, if one is owed, goes to the guest directly.
    Set { cookie: Cookie, option: StackOption, asked: Option<Notification> },
    /// Some of the guests' sockets that are being connected were looked for.
    Looked { looked: Vec<Cookie>, missing: Vec<Cookie>, took: Duration },
    /// End the thread.
    Stop,
    /// Another blocking connect(2) waits for the same connection.
    Wait { cookie: Cookie, pending: Pending },
}

/// A connection to open.
#[derive(Debug)]
pub(crate) struct Connect {
    pub(crate) cookie: Cookie,
    /// A duplicate of the guest's socket, held until the connection is up or has failed.
    pub(crate) guest: Arc<Duplicate>,
    pub(crate) caller: Caller,
    pub(crate) v6: bool,
    pub(crate) space: Space,
    pub(crate) destination: SocketAddr,
    /// As the guest said, and as it is told.
    pub(crate) shown: SocketAddr,
    pub(crate) bound: Option<SocketAddr>,
    pub(crate) options: Vec<StackOption>,
    pub(crate) waiting: Vec<Pending>,
    pub(crate) flow: Open,
}

/// A notification whose answer needs guest memory; kept whole until the reply is written.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) notification: Notification,
    /// Whether the guest's socket is an AF_INET6 one.
    pub(crate) v6: bool,
}

/// The answer to a [`Question`], or what somebody waits for.
#[derive(Debug)]
pub(crate) enum Reply {
    /// Somebody has come to a listener on which a guest waits.
    Accept {
        listener: Cookie,
    },
    /// There is something for the calls that wait.
    Arrived(Arc<End>),
    /// What the error queue had.
    Errors {
        notification: Notification,
        receive: ReceiveCall,
        got: Result<ErrorMessage, i32>,
    },
    /// A new socket of the guest's.
    Inject {
        notification: Notification,
        guest: OwnedFd,
        cloexec: bool,
    },
    LocalName {
        question: Question,
        result: Result<SocketAddr, i32>,
    },
    /// A `struct sockaddr_*`, for getsockname(2) and getpeername(2).
    Name {
        notification: Notification,
        name: Result<Vec<u8>, i32>,
    },
    /// A send waits for room: until then, or for ever. These messages of it are sent.
    Stalled {
        pending: Pending,
        until: Option<Instant>,
        sent: Vec<(TargetAddr, usize)>,
    },
    Read {
        question: Question,
        result: Result<Vec<u8>, i32>,
    },
    /// What is to be written, and where; and what the call returns then.
    Write {
        notification: Notification,
        pieces: Result<Vec<(TargetAddr, Vec<u8>)>, i32>,
        value: i64,
    },
}

/// Frames and bytes over the link. Written by the stack thread, read by anyone.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) frames_out: AtomicU64,
    pub(crate) frames_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
}

impl Traffic {
    fn sent(&self, bytes: usize) {
        self.frames_out.fetch_add(1, Ordering::Relaxed);
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn received(&self, bytes: usize) {
        self.frames_in.fetch_add(1, Ordering::Relaxed);
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// As many commands may wait for a thread that has nothing else to do: a guest gives them.
const LEFT: usize = 64;

/// What both threads see.
#[derive(Debug)]
struct Shared {
    mailbox: Mutex<Mailbox>,
    /// Wakes the thread.
    ready: EventFd,
    replies: Mutex<Replies>,
    /// The link's own processes.
    others: Mutex<Vec<i32>>,
    arrivals: Arrivals,
    traffic: Traffic,
}

#[derive(Debug, Default)]
struct Mailbox {
    commands: Vec<Command>,
    /// The thread waits, or is about to, and has not been woken.
    asleep: bool,
    /// The thread has ended: what is asked is dropped, which answers it.
    over: bool,
}

#[derive(Debug, Default)]
struct Replies {
    queue: VecDeque<Reply>,
    waker: Option<Waker>,
}

/// The running stack. Stops when dropped.
pub(crate) struct Stack {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack").finish_non_exhaustive()
    }
}

impl Stack {
    /// Boots the kernel library on a new thread: at once if it will have a link, else when it is needed.
    /// `first_port` is the host's first that guests may bind. Inside a tokio runtime.
    pub(crate) fn start(
        library: &Path,
        has_link: bool,
        first_port: u16,
        sockets: Arc<Sockets>,
        ends: Arc<Ends>,
        features: Features,
    ) -> Result<Booting, Error> {
        let ready = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|e| Error::System { doing: "make an eventfd", source: e.into() })?;
        let shared = Arc::new(Shared {
            mailbox: Mutex::default(),
            ready,
            replies: Mutex::default(),
            others: Mutex::default(),
            arrivals: Arrivals::default(),
            traffic: Traffic::default(),
        });
        let closed = Closed::new().map_err(Error::system("bind a loopback port"))?;
        let (report, booted) = mpsc::sync_channel(1);
        let (give, link) = match has_link {
            true => Some(mpsc::channel()).unzip(),
            false => (None, None),
        };
        let (library, runtime) = (library.to_owned(), Handle::current());
        let setup = thread::Setup {
            library,
            link,
            closed,
            sockets,
            ends,
            shared: shared.clone(),
            features,
            first_port,
            runtime,
        };
        let thread = std::thread::Builder::new()
            .name("netshunt-stack".to_owned())
            .spawn(move || thread::run(setup, &report))
            .map_err(Error::system("start the stack thread"))?;
        Ok(Booting { link: give, stack: Stack { shared, thread: Mutex::new(Some(thread)) }, booted })
    }

    /// Something that can be asked by whoever outlives a call.
    pub(crate) fn asker(&self) -> Asker {
        Asker(self.shared.clone())
    }

    /// Queues a command.
    pub(crate) fn ask(&self, command: Command) {
        self.shared.ask(command);
    }

    /// Queues a command that can wait until the thread has something to do.
    pub(crate) fn leave(&self, command: Command) {
        self.shared.leave(command);
    }

    /// The command has ended: stops when what it sent before has gone out, and waits for that. Whether other guests
    /// live on.
    pub(crate) fn finish(&self, survivors: bool) {
        self.ask(Command::Drain { survivors });
        self.stop();
    }

    fn stop(&self) {
        self.ask(Command::Stop);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // An answered call that is the last to know of us may end on that very thread.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id()) {
            // A panic there has been reported by the panic hook.
            let _ = thread.join();
        }
    }

    /// Who to wake when there are replies.
    pub(crate) fn wake(&self, waker: Waker) {
        self.shared.replies().waker = Some(waker);
    }

    /// The oldest reply not yet taken. One at a time: whoever takes it may be lost in the guest's
    /// memory, and the others are then another's.
    pub(crate) fn next_reply(&self) -> Option<Reply> {
        self.shared.replies().queue.pop_front()
    }

    /// What waits in the queues of guests' listeners.
    pub(crate) fn arrivals(&self) -> &Arrivals {
        &self.shared.arrivals
    }

    pub(crate) fn traffic(&self) -> &Traffic {
        &self.shared.traffic
    }

    /// The link's own processes, which are no guests.
    pub(crate) fn others(&self) -> Vec<i32> {
        self.shared.others()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Queues commands; when the stack has stopped, what they hold is dropped.
#[derive(Debug)]
pub(crate) struct Asker(Arc<Shared>);

impl Asker {
    pub(crate) fn ask(&self, command: Command) {
        self.0.ask(command);
    }

    /// Has the watch serve the calls that wait for something of that socket's.
    pub(crate) fn arrived(&self, end: Arc<End>) {
        self.0.reply(Reply::Arrived(end));
    }
}

/// A stack that boots while its maker does something else.
#[derive(Debug)]
pub(crate) struct Booting {
    /// The thread waits for it: dropped before the stack, which waits for the thread.
    link: Option<mpsc::Sender<Box<dyn Link>>>,
    stack: Stack,
    booted: mpsc::Receiver<Result<(), Error>>,
}

impl Booting {
    /// Configures the stack for its link.
    pub(crate) fn connect(&mut self, link: Box<dyn Link>) {
        self.stack.shared.renew(&*link);
        // A thread that has failed says so when it is waited for.
        let _ = self.link.take().map(|give| give.send(link));
    }

    /// Waits for the kernel (milliseconds), unless it is to boot later.
    pub(crate) fn finish(self) -> Result<Stack, Error> {
        match self.booted.recv() {
            Ok(result) => result.map(|()| self.stack),
            Err(_) => Err(Error::System {
                doing: "boot the stack",
                source: std::io::Error::other("its thread ended"),
            }),
        }
    }
}

impl Shared {
    fn replies(&self) -> MutexGuard<'_, Replies> {
        self.replies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reply(&self, reply: Reply) {
        let mut replies = self.replies();
        replies.queue.push_back(reply);
        if let Some(waker) = &replies.waker {
            waker.wake();
        }
    }

    fn others(&self) -> Vec<i32> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn renew(&self, link: &dyn Link) {
        *self.others.lock().unwrap_or_else(PoisonError::into_inner) = link.processes();
    }

    fn mailbox(&self) -> MutexGuard<'_, Mailbox> {
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, command: Command) {
        let mut mailbox = self.mailbox();
        if mailbox.over {
            // Not with the lock held: to drop it may be to ask.
            drop(mailbox);
            return drop(command);
        }
        mailbox.commands.push(command);
        self.wake(mailbox);
    }

    /// From now on nobody does what is asked.
    fn close(&self) {
        let mut mailbox = self.mailbox();
        mailbox.over = true;
        let left = std::mem::take(&mut mailbox.commands);
        drop(mailbox);
        drop(left);
    }

    fn leave(&self, command: Command) {
        let mut mailbox = self.mailbox();
        if mailbox.over {
            drop(mailbox);
            return drop(command);
        }
        mailbox.commands.push(command);
        if mailbox.commands.len() > LEFT {
            self.wake(mailbox);
        }
    }

    fn wake(&self, mut mailbox: MutexGuard<'_, Mailbox>) {
        let asleep = std::mem::take(&mut mailbox.asleep);
        drop(mailbox);
        if asleep {
            // It cannot be full: nobody wakes the thread so often.
            let _ = self.ready.write(1);
        }
    }

    /// Those that have come; the wake-up for them may still be due.
    fn take_commands(&self) -> Vec<Command> {
        let mut mailbox = self.mailbox();
        mailbox.asleep = false;
        std::mem::take(&mut mailbox.commands)
    }

    /// The thread is about to wait: whether it may, as there are no commands.
    fn sleeps(&self) -> bool {
        let mut mailbox = self.mailbox();
        mailbox.asleep = mailbox.commands.is_empty();
        mailbox.asleep
    }

    fn ready_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.ready.as_fd()
    }

    /// For who waits for a level, not for an edge.
    fn clear_ready(&self) {
        // Nothing to read is as good.
        let _ = self.ready.read();
    }
}
