//! `serve PORT`: sends back what it gets. `check IP PORT`: 100 connections at once that compare.

use std::env;
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

const COUNT: usize = 100;
const SIZE: usize = 200_000;

#[tokio::main]
async fn main() -> Outcome {
    let words: Vec<String> = env::args().skip(1).collect();
    match &words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", port] => serve(port.parse()?).await,
        ["check", ip, port] => check(SocketAddr::new(ip.parse()?, port.parse()?)).await,
        _ => Err("serve PORT, or check IP PORT".into()),
    }
}

async fn serve(port: u16) -> Outcome {
    let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)).await?;
    loop {
        let (mut peer, _) = listener.accept().await?;
        tokio::spawn(async move {
            let (mut from, mut to) = peer.split();
            // A peer that resets is its own affair.
            let _ = copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        });
    }
}

async fn check(to: SocketAddr) -> Outcome {
    let mut all = JoinSet::new();
    for number in 0..COUNT {
        all.spawn(once(to, number));
    }
    while let Some(one) = all.join_next().await {
        one??;
    }
    println!("every byte came back");
    Ok(())
}

async fn once(to: SocketAddr, number: usize) -> Outcome {
    let mut peer = TcpStream::connect(to).await?;
    assert_eq!(peer.peer_addr()?, to);
    let sent: Vec<u8> = (0..SIZE).map(|at| (at * (number + 1) % 251) as u8).collect();
    let (mut from, mut into) = peer.split();
    let sending = async {
        into.write_all(&sent).await?;
        into.shutdown().await
    };
    let mut back = Vec::new();
    let (sending, receiving) = tokio::join!(sending, from.read_to_end(&mut back));
    sending?;
    receiving?;
    if back == sent { Ok(()) } else { Err(format!("{number}: {} bytes of {SIZE}", back.len()).into()) }
}
