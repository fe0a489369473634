"""Has many sockets at once, each of which talks to an echo server, twice.

Arguments: tcp or udp, how many, and the server's address and ports. Prints "ok N", and stays until standard
input ends.
"""
import errno
import resource
import select
import socket
import sys

kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}[sys.argv[1]]
count, address, ports = int(sys.argv[2]), sys.argv[3], list(map(int, sys.argv[4:]))
# At a time: the server's queue is not endless, and datagrams beyond its end are lost.
BATCH = 500 if kind == socket.SOCK_STREAM else 50
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
poller = select.epoll()


def wait_for(sockets, event):
    for each in sockets:
        poller.register(each, event)
    left = len(sockets)
    while left:
        ready = poller.poll(60)
        assert ready, f"{left} of {len(sockets)} wait in vain"
        for number, _ in ready:
            poller.unregister(number)
            left -= 1


def opened(number):
    made = socket.socket(socket.AF_INET, kind)
    made.setblocking(False)
    result = made.connect_ex((address, ports[number % len(ports)]))
    assert result in (0, errno.EINPROGRESS), errno.errorcode[result]
    return made


sockets = []
for start in range(0, count, BATCH):
    batch = [opened(number) for number in range(start, min(start + BATCH, count))]
    wait_for(batch, select.EPOLLOUT)
    sockets += batch
for turn in range(2):
    for start in range(0, count, BATCH):
        batch = sockets[start:start + BATCH]
        for number, each in enumerate(batch, start):
            each.send(b"%d of turn %d" % (number, turn))
        wait_for(batch, select.EPOLLIN)
        for number, each in enumerate(batch, start):
            assert each.recv(100) == b"%d of turn %d" % (number, turn), number
print("ok", len(sockets), flush=True)
sys.stdin.read()
