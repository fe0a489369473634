"""Transfers while somebody kills the link: 20 connections at once that end only with it, and short
ones one after another.

Arguments: ADDRESS PORT of a server that sends back what it gets. Prints "busy" when all are under way;
a line on standard input says that the link was killed. At the end one JSON object: how many short ones
worked ("short"), how many of them and of the long ones failed with an error ("short_errors",
"long_errors"), how many of either hung ("hangs"), and how many milliseconds the first connection after
that line took ("again_ms").
"""
import json
import socket
import sys
import threading
import time

LONG = 20
SHORT = 80
AFTER = 40
PATIENCE = 10

where = sys.argv[1], int(sys.argv[2])
lock = threading.Lock()
seen = {"short": 0, "short_errors": 0, "long_errors": 0, "hangs": 0}
moving = threading.Semaphore(0)
dead = []


def count(what):
    with lock:
        seen[what] += 1


def failed(kind, error):
    dead.append(error)
    count("hangs" if isinstance(error, TimeoutError) else kind)


def echo(peer, block):
    peer.sendall(block)
    left = len(block)
    while left:
        got = peer.recv(left)
        if not got:
            raise ConnectionError("closed")
        left -= len(got)


def long():
    try:
        with socket.create_connection(where, PATIENCE) as peer:
            echo(peer, bytes(65536))
            moving.release()
            while True:
                echo(peer, bytes(65536))
    except OSError as error:
        failed("long_errors", error)


again = []


def following():
    sys.stdin.readline()
    begin = time.monotonic()
    try:
        with socket.create_connection(where, PATIENCE) as peer:
            echo(peer, bytes(1000))
    except OSError as error:
        print("the next one:", error)
        count("hangs")
    again.append(round((time.monotonic() - begin) * 1000))


next_one = threading.Thread(target=following, daemon=True)
next_one.start()
threads = [threading.Thread(target=long, daemon=True) for _ in range(LONG)]
for thread in threads:
    thread.start()
for _ in threads:
    assert moving.acquire(timeout=PATIENCE), seen

after = 0
while seen["short"] < SHORT or after < AFTER:
    begun_dead = bool(dead)
    try:
        with socket.create_connection(where, PATIENCE) as peer:
            echo(peer, bytes(1000))
        count("short")
        after += begun_dead
    except OSError as error:
        failed("short_errors", error)
    if seen["short"] == 10:
        print("busy", flush=True)

for thread in [*threads, next_one]:
    thread.join(2 * PATIENCE)
seen["hangs"] += sum(thread.is_alive() for thread in [*threads, next_one])
print(json.dumps({**seen, "again_ms": again[0]}))
