//! What the library's calls cost: `cargo run --release -p netshunt-lkl --example costs -- WHAT N`.
//!
//! Wall-clock times inform; for a comparison count instructions: `valgrind --tool=callgrind`, twice
//! with different N, and subtract.

use std::env;
use std::error::Error;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

use netshunt_lkl::{Clock, Config, Kernel, Library, Message, MessageRoom, Name, Socket, Statistic, find};

const USAGE: &str = "usage: costs tcp|bulk|udp|message|memory N";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [what, rounds] = &arguments[..] else { return Err(USAGE.into()) };
    let rounds: u32 = rounds.parse()?;
    let library = Library::load(&find(env::var_os("NETSHUNT_LKL").map(PathBuf::from).as_deref())?)?;
    let kernel = Kernel::boot(&library, &Config::default(), Clock::Host)?;
    let start = Instant::now();
    match what.as_str() {
        "tcp" => tcp(&kernel, rounds, 64)?,
        "bulk" => tcp(&kernel, rounds, 64 << 10)?,
        "udp" => udp(&kernel, rounds)?,
        "message" => message(&kernel, rounds)?,
        "memory" => return Ok(memory(&kernel, rounds)?),
        _ => return Err(USAGE.into()),
    }
    let took = start.elapsed();
    println!("{what}: {rounds} rounds in {took:?}, {} ns each", took.as_nanos() / u128::from(rounds.max(1)));
    Ok(())
}

/// Messages of `size` bytes over one connection, one way.
fn tcp(kernel: &Kernel, rounds: u32, size: usize) -> io::Result<()> {
    let (client, served) = connection(kernel)?;
    let (data, mut into) = (vec![1; size], vec![0; size]);
    for _ in 0..rounds {
        assert_eq!(kernel.send(client, &data)?, size);
        kernel.poll();
        let mut got = 0;
        while got < size {
            got += kernel.recv(served, &mut into)?;
        }
    }
    Ok(())
}

fn connection(kernel: &Kernel) -> io::Result<(Socket, Socket)> {
    let address = SocketAddr::from(([127, 0, 0, 1], 8000));
    let listener = kernel.socket(libc::AF_INET, libc::SOCK_STREAM, 0, 0)?;
    kernel.bind(listener, address)?;
    kernel.listen(listener, 1)?;
    let client = kernel.socket(libc::AF_INET, libc::SOCK_STREAM, 0, 0)?;
    // EINPROGRESS: over loopback the next call finds it done.
    let _ = kernel.connect(client, address);
    kernel.run();
    Ok((client, kernel.accept(listener, 0)?))
}

/// An echo of 64 bytes: there and back.
fn udp(kernel: &Kernel, rounds: u32) -> io::Result<()> {
    let (client, server, address) = datagrams(kernel)?;
    let (data, mut into) = ([1; 64], [0; 64]);
    for _ in 0..rounds {
        kernel.send_to(client, &data, address)?;
        kernel.poll();
        let (n, from) = kernel.recv_from(server, &mut into)?;
        kernel.send_to(server, &into[..n], from)?;
        kernel.poll();
        assert_eq!(kernel.recv(client, &mut into)?, 64);
    }
    Ok(())
}

/// 64 bytes by sendmsg(2) and recvmsg(2), one way, with an address and a control message.
fn message(kernel: &Kernel, rounds: u32) -> io::Result<()> {
    let (client, server, address) = datagrams(kernel)?;
    kernel.set_option(server, libc::IPPROTO_IP, libc::IP_PKTINFO, &1_i32.to_ne_bytes())?;
    // struct cmsghdr: IP_TOS, a byte.
    let mut tos = [0; 24];
    tos[..8].copy_from_slice(&17_usize.to_ne_bytes());
    tos[12..16].copy_from_slice(&libc::IP_TOS.to_ne_bytes());
    tos[16] = 8;
    let to = Name::from(address);
    let (mut into, mut from, mut control) = ([0; 64], [0; 128], [0; 64]);
    for _ in 0..rounds {
        let data = [IoSlice::new(&[1; 64])];
        kernel.send_message(client, &Message { data: &data, to: to.bytes(), control: &tos }, 0)?;
        kernel.poll();
        let data = &mut [IoSliceMut::new(&mut into)];
        let mut room = MessageRoom { data, from: &mut from, control: &mut control };
        assert_eq!(kernel.receive_message(server, &mut room, 0)?.data, 64);
    }
    Ok(())
}

/// How much memory pairs of bound UDP sockets take.
fn memory(kernel: &Kernel, pairs: u32) -> io::Result<()> {
    let before = kernel.statistic(Statistic::FreeMemory);
    for _ in 0..pairs {
        datagrams(kernel)?;
    }
    let used = before - kernel.statistic(Statistic::FreeMemory);
    println!("{} bytes a pair of UDP sockets", used / u64::from(pairs.max(1)));
    Ok(())
}

fn datagrams(kernel: &Kernel) -> io::Result<(Socket, Socket, SocketAddr)> {
    let socket = || kernel.socket(libc::AF_INET, libc::SOCK_DGRAM, 0, 0);
    let (client, server) = (socket()?, socket()?);
    for socket in [client, server] {
        kernel.bind(socket, SocketAddr::from(([127, 0, 0, 1], 0)))?;
    }
    Ok((client, server, kernel.local_address(server)?))
}
