//! Databases.

use std::net::SocketAddr;

use super::{PORT, Pair, Transport, split};
use crate::World;

impl Pair {
    /// PostgreSQL, and pgbench with 50 connections from 4 threads, then psql, which adds up what was done.
    pub fn postgresql(world: &World) -> Self {
        let (server, client) = (world.program("pairs/postgresql.sh"), world.program("pairs/pgbench.sh"));
        Self {
            transport: Transport::Tcp,
            server: vec!["sh".into(), server, PORT.to_string()],
            client: Box::new(move |to: SocketAddr| {
                vec!["sh".into(), client.clone(), to.ip().to_string(), to.port().to_string()]
            }),
            is_right: Box::new(|said| {
                let expected = [
                    "number of transactions actually processed: 500/500",
                    "number of failed transactions: 0 (0.000%)",
                    "number of transactions actually processed: 40/40",
                    "number of failed transactions: 0 (0.000%)",
                    "accounts 100000, history 500, sums equal",
                    "a megabyte arrived, cancelled",
                ];
                said.lines().eq(expected)
            }),
            payload: 2 << 20,
        }
    }

    /// redis, and redis-benchmark with 50 connections, whose counts the server has to know.
    pub fn redis(_: &World) -> Self {
        let mut server = split("redis-server --bind 0.0.0.0 --protected-mode no --save");
        server.extend([String::new(), "--port".into(), PORT.to_string()]);
        Self {
            transport: Transport::Tcp,
            server,
            client: Box::new(|to: SocketAddr| {
                let script = "cli=\"redis-cli -h $0 -p $1\"; \
                              $cli flushall; \
                              redis-benchmark -h $0 -p $1 -q -n 5000 -c 50 -t incr >&2; \
                              redis-benchmark -h $0 -p $1 -q -n 5000 -c 50 --threads 2 -t lpush -d 1000 >&2; \
                              redis-benchmark -h $0 -p $1 -q -n 20000 -c 50 -P 16 -t sadd -r 1000000000 >&2; \
                              $cli get counter:__rand_int__; $cli llen mylist; \
                              $cli lrange mylist 0 -1 | tr -d '\\n' | wc -c";
                ["sh", "-eu", "-c", script, &to.ip().to_string(), &to.port().to_string()]
                    .map(str::to_owned)
                    .to_vec()
            }),
            is_right: Box::new(|said| said.lines().eq(["OK", "5000", "5000", "5000000"])),
            payload: 10 << 20,
        }
    }
}
