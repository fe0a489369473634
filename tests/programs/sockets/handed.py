# SPDX-License-Identifier: MIT OR Apache-2.0
"""Many connections of both kinds in one epoll, handed on: handed.py WAY TRIGGER ADDRESS PORT PORT EACH.

All sockets are registered, then connected, and then given to whoever is to use them: `dup` another
number, `fork` a child, `exec` another program, `rights` a process that receives them as messages
(SCM_RIGHTS). The epoll goes along (`rights`: too). Each echoes content of its own. Prints "ok N".
"""
import array
import errno
import os
import resource
import select
import socket
import sys

way, trigger, address, first, second, each = sys.argv[1:7]
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
PORTS = (int(first), int(second))
SHAPE = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | (select.EPOLLET if trigger == "edge" else 0)


def content(index):
    return (f"{index} of {each};".encode() * 300)[:2048]


def use(numbers, poll):
    """An event's data is the number that a socket had when it was registered: the key here."""
    ports = {key: PORTS[index % 2] for index, key in enumerate(sorted(numbers))}
    peers = {key: socket.socket(fileno=number) for key, number in numbers.items()}
    back = dict.fromkeys(numbers, b"")
    sent = set()
    left = set(numbers)
    while left:
        ready = poll.poll(30)
        assert ready, f"{len(left)} never came"
        for key, events in ready:
            if key not in left:
                continue
            peer = peers[key]
            assert not events & select.EPOLLERR, peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if events & select.EPOLLOUT and key not in sent:
                assert peer.getpeername() == (address, ports[key])
                assert peer.send(content(key)) == 2048
                sent.add(key)
            try:
                while len(back[key]) < 2048:
                    piece = peer.recv(4096)
                    assert piece, "closed too soon"
                    back[key] += piece
            except BlockingIOError:
                continue
            assert back[key] == content(key), "these are not the bytes that were sent"
            left.remove(key)
            # Closed for all who still have it: the epoll of another process lists it no more.
            peer.shutdown(socket.SHUT_RDWR)
            peer.close()
    print("ok", len(numbers), flush=True)


def child(work):
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


if len(sys.argv) > 7:
    # Executed: the descriptors are where they were.
    use({int(n): int(n) for n in sys.argv[7].split(",")}, select.epoll.fromfd(int(sys.argv[8])))
    sys.exit()

poll = select.epoll()
os.set_inheritable(poll.fileno(), True)
peers = [socket.socket() for _ in range(2 * int(each))]
peers.sort(key=socket.socket.fileno)
for peer in peers:
    peer.setblocking(False)
    peer.set_inheritable(True)
    poll.register(peer, SHAPE)
for index, peer in enumerate(peers):
    result = peer.connect_ex((address, PORTS[index % 2]))
    assert result in (0, errno.EINPROGRESS), errno.errorcode[result]
numbers = {peer.fileno(): peer.fileno() for peer in peers}
if way == "dup":
    others = {number: os.dup(number) for number in numbers}
    for peer in peers:
        peer.close()
    use(others, poll)
elif way == "fork":
    child(lambda: use(numbers, poll))
elif way == "exec":
    words = [sys.executable, *sys.argv, ",".join(map(str, numbers)), str(poll.fileno())]
    os.execv(sys.executable, words)
elif way == "rights":
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def receive():
        here.close()
        got = {}
        for peer in peers:
            peer.close()
        while len(got) < len(numbers):
            message, fds, _, _ = socket.recv_fds(there, 100, 1)
            got[int(message)] = fds[0]
        use(got, poll)

    pid = os.fork()
    if pid == 0:
        receive()
        os._exit(0)
    for peer in peers:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [peer.fileno()]))]
        here.sendmsg([str(peer.fileno()).encode()], rights)
        peer.close()
    assert os.waitpid(pid, 0)[1] == 0
