//! Real servers and clients over the link: the client as a guest, and the server as a guest whose port is published.
//! What each pair does and checks is in `src/pairs`; docs/programs.md lists them.

use std::path::Path as FilePath;

use netshunt_tests::{Pair, Path, World};

macro_rules! pairs {
    ($($name:ident: $pair:expr;)+) => {
        $(mod $name {
            use super::*;

            fn pair(world: &World) -> Pair {
                let pair: fn(&World) -> Pair = $pair;
                pair(world)
            }

            #[test]
            fn client() {
                let world = World::new();
                pair(&world).client(&world, Path::Stack);
            }

            #[test]
            fn published() {
                let world = World::new();
                pair(&world).published(&world);
            }
        })+
    };
}

pairs! {
    dnsmasq_dig: Pair::dnsmasq_dig;
    dtls: Pair::dtls;
    go: Pair::go;
    iperf3: Pair::iperf3;
    iperf3_udp: Pair::iperf3_udp;
    java: Pair::java;
    nginx_wrk: Pair::nginx_wrk;
    node: Pair::node;
    postgresql: Pair::postgresql;
    python_asyncio: Pair::python_asyncio;
    python_http: Pair::python_http;
    quic: |world| Pair::quic(world, FilePath::new(env!("CARGO_BIN_EXE_quic_echo")));
    redis: Pair::redis;
    tokio: |world| Pair::tokio(world, FilePath::new(env!("CARGO_BIN_EXE_tokio_echo")));
    unbound_dig: Pair::unbound_dig;
}
