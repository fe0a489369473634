//! A kernel that runs out of memory says so, and lives.

mod common;

use std::net::SocketAddr;

use netshunt_lkl::{Clock, Kernel, Socket, Statistic};

use common::{boot, now, pair, until};

/// Opens connections that nobody reads and fills them, until something is refused.
fn fill(kernel: &Kernel, address: SocketAddr, sockets: &mut Vec<Socket>) -> i32 {
    let block = vec![0; 65536];
    let listener = kernel.socket(libc::AF_INET, libc::SOCK_STREAM, 0, 0).expect("the first");
    sockets.push(listener);
    kernel.bind(listener, address).expect("bind");
    kernel.listen(listener, 4096).expect("listen");
    for _ in 0..100_000 {
        let client = match kernel.socket(libc::AF_INET, libc::SOCK_STREAM, 0, 0) {
            Ok(client) => client,
            Err(error) => return error.raw_os_error().expect("an errno"),
        };
        sockets.push(client);
        match kernel.connect(client, address) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => {
                return error.raw_os_error().expect("an errno");
            }
            _ => kernel.poll(),
        }
        match kernel.accept(listener, 0) {
            Ok(served) => sockets.push(served),
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => return libc::ENOMEM,
            // A lost segment: the connection is not up yet.
            Err(_) => {}
        }
        loop {
            match kernel.send(client, &block) {
                Ok(_) => kernel.poll(),
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => break,
                Err(error) => return error.raw_os_error().expect("an errno"),
            }
        }
    }
    panic!("100,000 connections in 24 MiB");
}

#[test]
fn out_of_memory_is_an_errno() {
    let kernel = boot(24 << 20, Clock::Host);
    for round in 0..3 {
        let mut sockets = Vec::new();
        let port = 7000 + round;
        let errno = fill(&kernel, SocketAddr::from(([127, 0, 0, 1], port)), &mut sockets);
        let free = kernel.statistic(Statistic::FreeMemory) >> 10;
        println!("round {round}: errno {errno} after {} sockets, {free} KiB free", sockets.len());
        assert!([libc::ENOMEM, libc::ENOBUFS].contains(&errno), "errno {errno}");
        sockets.into_iter().for_each(|socket| kernel.abort(socket));
        until(&kernel, || (kernel.statistic(Statistic::FreeMemory) > 4 << 20).then_some(()));
    }

    // As good as before.
    let (_listener, client, served) = pair(&kernel, "127.0.0.1:8000");
    kernel.send(client, b"alive").unwrap();
    let mut into = [0; 8];
    assert_eq!(until(&kernel, || now(kernel.recv(served, &mut into))), 5);
}
