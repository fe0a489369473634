//! Real servers and clients that meet on the host, by rules, or inside one netshunt: nothing goes over a link.
//! What each pair does and checks is in `src/pairs`; docs/programs.md lists them.

use std::path::Path as FilePath;

use netshunt_tests::{Pair, Path, World};

/// What each pair is tried for. dnsmasq hangs up on who comes by an address that no interface of its network has, and the
/// host's are none: it does not serve on the host.
macro_rules! pairs {
    ($($name:ident: $pair:expr, [$($way:ident)+];)+) => {
        $(mod $name {
            use super::*;

            $(#[test]
            fn $way() {
                let world = World::new();
                let pair: fn(&World) -> Pair = $pair;
                super::$way(&pair(&world), &world);
            })+
        })+
    };
}

pairs! {
    dnsmasq_dig: Pair::dnsmasq_dig, [client_on_the_host inside];
    dtls: Pair::dtls, [client_on_the_host inside server_on_the_host];
    go: Pair::go, [client_on_the_host inside server_on_the_host];
    iperf3: Pair::iperf3, [client_on_the_host inside server_on_the_host];
    iperf3_udp: Pair::iperf3_udp, [client_on_the_host inside server_on_the_host];
    java: Pair::java, [client_on_the_host inside server_on_the_host];
    nginx_wrk: Pair::nginx_wrk, [client_on_the_host inside server_on_the_host];
    node: Pair::node, [client_on_the_host inside server_on_the_host];
    postgresql: Pair::postgresql, [client_on_the_host inside server_on_the_host];
    python_asyncio: Pair::python_asyncio, [client_on_the_host inside server_on_the_host];
    python_http: Pair::python_http, [client_on_the_host inside server_on_the_host];
    quic: |world| Pair::quic(world, FilePath::new(env!("CARGO_BIN_EXE_quic_echo"))), [client_on_the_host inside server_on_the_host];
    redis: Pair::redis, [client_on_the_host inside server_on_the_host];
    tokio: |world| Pair::tokio(world, FilePath::new(env!("CARGO_BIN_EXE_tokio_echo"))),
        [client_on_the_host inside server_on_the_host];
    unbound_dig: Pair::unbound_dig, [inside server_on_the_host];
}

fn client_on_the_host(pair: &Pair, world: &World) {
    pair.client(world, Path::Bypass);
}

fn inside(pair: &Pair, world: &World) {
    pair.inside(world);
}

fn server_on_the_host(pair: &Pair, world: &World) {
    pair.on_the_host(world);
}
