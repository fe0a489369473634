//! Sockets over the kernel's own loopback.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{IoSlice, IoSliceMut};
use std::net::{Shutdown, SocketAddr};
use std::time::Instant;

use netshunt_lkl::{Event, Kernel, Socket};

use common::{Pattern, errno, kernel, now, pair, until};

const EPOLLIN: u32 = libc::EPOLLIN as u32;
const EPOLLOUT: u32 = libc::EPOLLOUT as u32;

/// Sends `total` bytes from one to the other, checked.
fn transfer(kernel: &Kernel, from: Socket, to: Socket, total: u64) {
    let (mut sent, mut got) = (Pattern::new(), Pattern::new());
    let (mut out, mut into) = (vec![0; 100_000], vec![0; 70_000]);
    let mut waiting = 0..0;
    until(kernel, || {
        loop {
            if waiting.is_empty() && sent.position() < total {
                let n = out.len().min((total - sent.position()) as usize);
                sent.fill(&mut out[..n]);
                waiting = 0..n;
            }
            let piece = &out[waiting.clone()];
            let Some(n) = (!piece.is_empty()).then(|| now(kernel.send(from, piece))).flatten() else {
                break;
            };
            waiting.start += n;
        }
        while let Some(n) = now(kernel.recv(to, &mut into)) {
            assert_ne!(n, 0, "an early end");
            got.check(&into[..n]);
        }
        (got.position() == total).then_some(())
    });
}

#[test]
fn streams_over_both_families() {
    for address in ["127.0.0.1:8000", "[::1]:8000"] {
        let kernel = kernel();
        let (listener, client, served) = pair(&kernel, address);
        assert_eq!(kernel.peer_address(client).unwrap(), address.parse().unwrap());
        assert_eq!(kernel.peer_address(served).unwrap(), kernel.local_address(client).unwrap());
        let start = Instant::now();
        transfer(&kernel, client, served, 16 << 20);
        transfer(&kernel, served, client, 16 << 20);
        println!("{address}: 2 x 16 MiB in {:?}", start.elapsed());

        // Half-close: the other direction goes on.
        kernel.shutdown(client, Shutdown::Write).unwrap();
        until(&kernel, || now(kernel.recv(served, &mut [0; 8])).filter(|&n| n == 0));
        transfer(&kernel, served, client, 1 << 20);
        for socket in [listener, client, served] {
            kernel.close(socket);
        }
    }
}

#[test]
fn a_thousand_connections() {
    let kernel = kernel();
    let address: SocketAddr = "127.0.0.1:7".parse().unwrap();
    let listener = kernel.socket(libc::AF_INET, libc::SOCK_STREAM, 0, 0).unwrap();
    kernel.bind(listener, address).unwrap();
    kernel.listen(listener, 4096).unwrap();
    let clients: Vec<Socket> = (0..1000)
        .map(|n| {
            let client = kernel.socket(libc::AF_INET, libc::SOCK_STREAM, 0, n).unwrap();
            assert_eq!(errno(kernel.connect(client, address)), Some(libc::EINPROGRESS));
            kernel.poll();
            client
        })
        .collect();
    let mut served = Vec::new();
    until(&kernel, || {
        while let Some(socket) = now(kernel.accept(listener, 5000)) {
            served.push(socket);
        }
        (served.len() == clients.len()).then_some(())
    });
    for (n, &client) in clients.iter().enumerate() {
        kernel.send(client, &n.to_le_bytes()).unwrap();
    }
    let mut sum = 0;
    for &socket in &served {
        let mut bytes = [0; 8];
        until(&kernel, || now(kernel.recv(socket, &mut bytes)));
        sum += usize::from_le_bytes(bytes);
    }
    assert_eq!(sum, 999 * 1000 / 2);
    clients.iter().chain(&served).for_each(|&socket| kernel.close(socket));
}

#[test]
fn events_are_edges() {
    let kernel = kernel();
    let (_listener, client, served) = pair(&kernel, "127.0.0.1:8001");
    let mut events = Vec::new();
    kernel.events(&mut events);
    let seen = |cookie| events.iter().find(|e| e.cookie == cookie).map_or(0, |e| e.mask);
    assert_ne!(seen(1) & EPOLLIN, 0, "the listener: {events:?}");
    assert_ne!(seen(2) & EPOLLOUT, 0, "the client: {events:?}");

    let quiet = |kernel: &Kernel| {
        let mut events = Vec::new();
        kernel.events(&mut events);
        events
    };
    assert_eq!(quiet(&kernel), []);
    kernel.send(client, b"ping").unwrap();
    kernel.poll();
    let events = quiet(&kernel);
    assert!(matches!(events[..], [Event { cookie: 3, mask }] if mask & EPOLLIN != 0), "{events:?}");
    assert_eq!(quiet(&kernel), []);
    assert_eq!(kernel.readiness(served) & (EPOLLIN | EPOLLOUT), EPOLLIN | EPOLLOUT);

    // Full: readiness arms the edge that says when there is room.
    let block = [0; 65536];
    until(&kernel, || now(kernel.send(client, &block)).is_none().then_some(()));
    assert_eq!(kernel.readiness(client) & EPOLLOUT, 0);
    quiet(&kernel);
    let mut into = vec![0; 1 << 20];
    until(&kernel, || {
        while now(kernel.recv(served, &mut into)).is_some() {}
        quiet(&kernel).iter().any(|e| e.cookie == 2 && e.mask & EPOLLOUT != 0).then_some(())
    });
}

#[test]
fn datagrams_keep_their_senders() {
    let kernel = kernel();
    for (domain, ip) in [(libc::AF_INET, "127.0.0.1"), (libc::AF_INET6, "[::1]")] {
        let at = |port: u16| format!("{ip}:{port}").parse::<SocketAddr>().unwrap();
        let one = kernel.socket(domain, libc::SOCK_DGRAM, 0, 1).unwrap();
        let two = kernel.socket(domain, libc::SOCK_DGRAM, 0, 2).unwrap();
        kernel.bind(one, at(1001)).unwrap();
        kernel.bind(two, at(1002)).unwrap();
        assert_eq!(kernel.send_to(one, b"a datagram", at(1002)).unwrap(), 10);
        kernel.poll();
        let mut into = [0; 100];
        assert_eq!(kernel.recv_with(two, &mut into[..4], libc::MSG_PEEK | libc::MSG_TRUNC).unwrap(), 10);
        assert_eq!(kernel.recv_from(two, &mut into).unwrap(), (10, at(1001)));
        assert_eq!(&into[..10], b"a datagram");
        assert_eq!(errno(kernel.recv(two, &mut into)), Some(libc::EAGAIN));
    }
}

#[test]
fn several_buffers_at_once() {
    let kernel = kernel();
    let (_listener, client, served) = pair(&kernel, "127.0.0.1:8002");
    let pieces = [IoSlice::new(b"some"), IoSlice::new(b""), IoSlice::new(b"thing")];
    assert_eq!(kernel.send_vectored(client, &pieces).unwrap(), 9);
    let (mut left, mut right) = ([0; 2], [0; 20]);
    let mut into = [IoSliceMut::new(&mut left), IoSliceMut::new(&mut right)];
    assert_eq!(until(&kernel, || now(kernel.recv_vectored(served, &mut into))), 9);
    assert_eq!((&left[..], &right[..7]), (&b"so"[..], &b"mething"[..]));
}

#[test]
fn refused_and_reset_say_so() {
    let kernel = kernel();
    let socket = kernel.socket(libc::AF_INET, libc::SOCK_STREAM, 0, 9).unwrap();
    let nobody = "127.0.0.1:9".parse().unwrap();
    assert_eq!(errno(kernel.connect(socket, nobody)), Some(libc::EINPROGRESS));
    let error = until(&kernel, || kernel.take_error(socket).unwrap());
    assert_eq!(error, libc::ECONNREFUSED);
    assert_eq!(errno(kernel.peer_address(socket)), Some(libc::ENOTCONN));

    let (_listener, client, served) = pair(&kernel, "127.0.0.1:8003");
    kernel.abort(client);
    let error = until(&kernel, || match kernel.recv(served, &mut [0; 1]) {
        Err(error) if error.raw_os_error() != Some(libc::EAGAIN) => Some(error),
        _ => None,
    });
    assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
}

#[test]
fn a_lingering_close_does_not_wait() {
    let kernel = kernel();
    let (_listener, client, served) = pair(&kernel, "127.0.0.1:8004");
    let block = [0; 65536];
    until(&kernel, || now(kernel.send(client, &block)).is_none().then_some(()));
    // struct linger: on, 30 s
    let linger: Vec<u8> = [1_i32, 30].iter().flat_map(|n| n.to_ne_bytes()).collect();
    kernel.set_option(client, libc::SOL_SOCKET, libc::SO_LINGER, &linger).unwrap();
    let start = Instant::now();
    kernel.close(client);
    assert!(start.elapsed().as_secs() < 5, "close took {:?}", start.elapsed());
    // What was sent arrives, and then the end.
    let mut into = vec![0; 1 << 20];
    until(&kernel, || {
        while let Some(n) = now(kernel.recv(served, &mut into)) {
            if n == 0 {
                return Some(());
            }
        }
        None
    });
}

#[test]
fn options_are_the_kernels() {
    let kernel = kernel();
    let (_listener, client, _served) = pair(&kernel, "127.0.0.1:8005");
    kernel.set_option(client, libc::IPPROTO_TCP, libc::TCP_CONGESTION, b"bbr").unwrap();
    let mut name = [0; 16];
    let n = kernel.option(client, libc::IPPROTO_TCP, libc::TCP_CONGESTION, &mut name).unwrap();
    assert_eq!(&name[..n.min(3)], b"bbr");
    let unknown = kernel.set_option(client, libc::IPPROTO_TCP, 9999, &[0; 4]);
    assert_eq!(errno(unknown), Some(libc::ENOPROTOOPT));
    // struct sock_fprog holds a pointer, which nobody could check.
    let filter = kernel.set_option(client, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &[0; 16]);
    assert_eq!(errno(filter), Some(libc::ENOPROTOOPT));
}

#[test]
fn stale_and_foreign_handles_are_refused() {
    let (kernel, other) = (kernel(), kernel());
    let socket = kernel.socket(libc::AF_INET, libc::SOCK_STREAM, 0, 0).unwrap();
    assert_eq!(errno(other.listen(socket, 1)), Some(libc::EBADF));
    kernel.close(socket);
    assert_eq!(errno(kernel.listen(socket, 1)), Some(libc::EBADF));
    assert_eq!(errno(kernel.send(socket, b"x")), Some(libc::EBADF));
    assert_eq!(errno(kernel.take_error(socket)), Some(libc::EBADF));
    assert_eq!(kernel.readiness(socket), libc::POLLNVAL as u32);
    kernel.close(socket);
    kernel.abort(socket);
    // The slot is taken again: the old handle is not the new socket.
    for _ in 0..100 {
        let new = kernel.socket(libc::AF_INET, libc::SOCK_STREAM, 0, 0).unwrap();
        assert_ne!(new, socket);
        assert_eq!(errno(kernel.listen(socket, 1)), Some(libc::EBADF));
        kernel.close(new);
    }
}
