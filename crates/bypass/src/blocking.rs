//! connect(2) on a blocking socket, off the event loop.
//!
//! The wait is the kernel's own (`SO_SNDTIMEO`, errno and socket state are native). Dropping the
//! future interrupts it the way a signal would: connect(2) gives `EINTR` and the socket stays
//! connecting, so a restarted call takes up the wait.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use netshunt_backend::on_a_thread;
use tokio::sync::oneshot;

use crate::sys::{self, Thread};

/// How often an interrupt is repeated: the signal is lost when it comes just before connect(2).
const AGAIN: Duration = Duration::from_millis(5);

/// Where the thread is. Held while it is signalled, so that it cannot end meanwhile.
#[derive(Debug)]
enum Stage {
    Cancelled,
    Done,
    Queued,
    Running(Thread),
    /// The same, interrupted since.
    Interrupted(Thread),
}

/// Connects `socket` and waits as connect(2) does.
pub(crate) async fn connect(socket: OwnedFd, to: SocketAddr) -> io::Result<()> {
    let stage = Arc::new(Mutex::new(Stage::Queued));
    let guard = Interrupt(stage.clone());
    let (tell, told) = oneshot::channel();
    on_a_thread(move || {
        let result = run(&stage, &socket, to);
        // Given back before anybody hears of it.
        drop(socket);
        // Nobody may wait any more.
        let _ = tell.send(result);
    })?;
    let result = told.await;
    drop(guard);
    result.map_err(io::Error::other)?
}

fn run(stage: &Mutex<Stage>, socket: &OwnedFd, to: SocketAddr) -> io::Result<()> {
    {
        let mut stage = lock(stage);
        if matches!(*stage, Stage::Cancelled) {
            return Err(io::Error::from_raw_os_error(libc::EINTR));
        }
        *stage = Stage::Running(Thread::current());
    }
    loop {
        let result = sys::connect(socket.as_fd(), to);
        let mut stage = lock(stage);
        let ours = matches!(*stage, Stage::Running(_));
        match result {
            // A signal that is not for the guest: the next call takes up the wait.
            Err(error) if ours && error.kind() == io::ErrorKind::Interrupted => {}
            result => {
                *stage = Stage::Done;
                return result;
            }
        }
    }
}

/// Interrupts the thread when the future is dropped; does nothing once the thread is done.
struct Interrupt(Arc<Mutex<Stage>>);

impl Drop for Interrupt {
    fn drop(&mut self) {
        if !interrupt(&self.0) {
            return;
        }
        let stage = self.0.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                while interrupt(&stage) {
                    tokio::time::sleep(AGAIN).await;
                }
            });
        }
    }
}

/// Signals the thread if it is in connect(2); returns whether it must be tried again.
fn interrupt(stage: &Mutex<Stage>) -> bool {
    let mut stage = lock(stage);
    match *stage {
        Stage::Queued => {
            *stage = Stage::Cancelled;
            false
        }
        Stage::Running(thread) | Stage::Interrupted(thread) => {
            *stage = Stage::Interrupted(thread);
            thread.interrupt();
            true
        }
        Stage::Cancelled | Stage::Done => false,
    }
}

fn lock(stage: &Mutex<Stage>) -> std::sync::MutexGuard<'_, Stage> {
    // Nothing panics while it is held, and a stage is valid on its own.
    stage.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;
    use std::time::Instant;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};
    use nix::sys::time::TimeVal;

    use super::*;

    fn fresh() -> OwnedFd {
        socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap()
    }

    /// A listener whose queue is full: its further connections stay in SYN_SENT.
    struct Full {
        listener: TcpListener,
        _queued: Vec<OwnedFd>,
    }

    fn full() -> Full {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let to = listener.local_addr().unwrap();
        let queued = (0..4)
            .map(|_| {
                let fd =
                    socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).unwrap();
                let _ = sys::connect(fd.as_fd(), to);
                fd
            })
            .collect();
        Full { listener, _queued: queued }
    }

    #[tokio::test]
    async fn connects_and_refuses_as_the_kernel_does() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        connect(fresh(), to).await.unwrap();
        drop(listener);
        assert_eq!(connect(fresh(), to).await.unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
    }

    #[tokio::test]
    async fn honours_the_send_timeout() {
        let full = full();
        let fd = fresh();
        setsockopt(&fd, sockopt::SendTimeout, &TimeVal::new(0, 50_000)).unwrap();
        let error = connect(fd, full.listener.local_addr().unwrap()).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn dropping_interrupts_the_wait_and_leaves_the_socket_connecting() {
        let full = full();
        let fd = fresh();
        let copy = fd.try_clone().unwrap();
        let waiting = connect(fd, full.listener.local_addr().unwrap());
        assert!(tokio::time::timeout(Duration::from_millis(30), waiting).await.is_err());
        // The thread gives the duplicate back: ours is then the only one left.
        let deadline = Instant::now() + Duration::from_secs(5);
        let inode = nix::sys::stat::fstat(&copy).unwrap().st_ino;
        while descriptors_of(inode) > 1 {
            assert!(Instant::now() < deadline, "the connecting thread was not interrupted");
            tokio::task::yield_now().await;
        }
        assert_eq!(state(&copy), 2, "TCP_SYN_SENT");
    }

    fn descriptors_of(inode: u64) -> usize {
        std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|e| std::fs::read_link(e.unwrap().path()).ok())
            .filter(|l| l.to_string_lossy() == format!("socket:[{inode}]"))
            .count()
    }

    fn state(fd: &OwnedFd) -> u8 {
        let stat = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let inode = nix::sys::stat::fstat(fd).unwrap().st_ino.to_string();
        assert!(fd.as_raw_fd() >= 0);
        stat.lines()
            .map(|l| l.split_whitespace().collect::<Vec<_>>())
            .find(|f| f.get(9) == Some(&inode.as_str()))
            .map(|f| u8::from_str_radix(f[3], 16).unwrap())
            .unwrap()
    }
}
