"""A connected socket, and one that is still connecting, used through every way of passing it on.

Arguments: an address and a port of an echo server. Prints one line for each way that worked.
"""
import array
import errno
import os
import select
import socket
import subprocess
import sys

address, port = sys.argv[1], int(sys.argv[2])
to = (address, port)
CHILD = """
import socket, sys
peer = socket.socket(fileno=int(sys.argv[1]))
peer.setblocking(True)
peer.sendall(b"exec")
assert peer.recv(4, socket.MSG_WAITALL) == b"exec"
assert peer.getpeername() == (sys.argv[2], int(sys.argv[3])), peer.getpeername()
"""


def talk(peer, words):
    peer.setblocking(True)
    peer.sendall(words)
    assert peer.recv(len(words), socket.MSG_WAITALL) == words
    assert peer.getpeername() == to, peer.getpeername()


def in_child(work):
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def connecting():
    peer = socket.socket()
    peer.setblocking(False)
    result = peer.connect_ex(to)
    assert result in (0, errno.EINPROGRESS), errno.errorcode[result]
    return peer


def connected():
    return socket.create_connection(to)


def wait_writable(number):
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    assert poll.poll(20000) == [(number, select.POLLOUT)]


def dup(peer):
    other = socket.socket(fileno=os.dup(peer.fileno()))
    peer.close()
    wait_writable(other.fileno())
    talk(other, b"dup")


def dup2_keeps_epoll(peer):
    """An epoll registration belongs to the open file, so it outlives the number."""
    poll = select.epoll()
    poll.register(peer, select.EPOLLOUT | select.EPOLLET)
    number = peer.fileno()
    other = socket.socket(fileno=os.dup(number))
    peer.close()
    assert poll.poll(20), "no event after the first number was closed"
    talk(other, b"dup2")


def fork(peer):
    def child():
        wait_writable(peer.fileno())
        talk(peer, b"child")

    in_child(child)
    talk(peer, b"parent")


def execute(peer):
    wait_writable(peer.fileno())
    words = [sys.executable, "-c", CHILD, str(peer.fileno()), address, str(port)]
    subprocess.run(words, pass_fds=[peer.fileno()], check=True)
    talk(peer, b"after")


def rights(peer):
    here, there = socket.socketpair()
    here.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [peer.fileno()]))])
    here.close()
    peer.close()

    def child():
        _, descriptors, _, _ = socket.recv_fds(there, 1, 1)
        other = socket.socket(fileno=descriptors[0])
        wait_writable(other.fileno())
        talk(other, b"rights")

    in_child(child)


for way in (dup, dup2_keeps_epoll, fork, execute, rights):
    for state in (connected, connecting):
        way(state())
        print(way.__name__, state.__name__, flush=True)
