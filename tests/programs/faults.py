# SPDX-License-Identifier: MIT OR Apache-2.0
"""Sockets of every kind, at once, while the calls of whoever serves them fail.

Arguments: ADDRESS STACK BYPASS DENIED UDP UDP SERVED FOLDER OUTSIDE: a server that sends back what it gets, by TCP on two
ports and by UDP on two; a port of it that is denied; a port of ours that is published; a folder of ours; a socket file
outside of it that is denied.

Each line on standard input is a seed, and asks for a turn. Each turn prints one JSON object: what came of each task,
which is "ok", the name of an errno, or what is wrong ("WRONG ...", "HANG ...").
"""
import array
import errno
import json
import os
import random
import select
import socket
import struct
import sys
import threading
import time
import traceback

PATIENCE = 20
LENGTH = 200_000
HARMLESS_TURNS = 6

address, folder, outside = sys.argv[1], sys.argv[8], sys.argv[9]
stack, bypass, denied, udp, udp_bypass, served = map(int, sys.argv[2:8])


class Wrong(Exception):
    """Something that no fault excuses."""


def check(condition, *words):
    if not condition:
        raise Wrong(" ".join(map(str, words)))


def echo(peer, seed, length=LENGTH):
    """Sends bytes that only this seed has, and has them back, to the end of the stream."""
    block = random.Random(seed).randbytes(length)

    def send():
        try:
            peer.sendall(block)
            peer.shutdown(socket.SHUT_WR)
        except OSError as error:
            # So shutdown(2) says of one that was reset, of which recv(2) tells more.
            if error.errno != errno.ENOTCONN:
                failure.append(error)

    failure = []
    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    got = bytearray()
    while len(got) <= length:
        more = peer.recv(65536)
        if not more:
            break
        check(block.startswith(more, len(got)), "bytes that were not sent, after", len(got))
        got += more
    sender.join()
    if failure:
        raise failure[0]
    # An end that comes too early must not look like one in order.
    check(len(got) == length, "the end in order after", len(got), "of", length)


def talk(port, seed):
    with socket.socket() as peer:
        peer.connect((address, port))
        check(peer.getpeername() == (address, port), peer.getpeername())
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.getsockname()
        echo(peer, seed)


def without_waiting(port, seed):
    with socket.socket() as peer:
        peer.setblocking(False)
        result = peer.connect_ex((address, port))
        if result not in (0, errno.EINPROGRESS):
            raise OSError(result, "connect")
        poller = select.poll()
        poller.register(peer, select.POLLOUT)
        poller.poll()
        result = peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if result:
            raise OSError(result, "SO_ERROR")
        peer.setblocking(True)
        echo(peer, seed)


def between(seed):
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        server.listen(4)
        name = server.getsockname()
        done = threading.Event()

        def serve_one():
            while not done.is_set():
                try:
                    peer, _ = server.accept()
                except OSError:
                    continue
                return serve(peer)

        server_thread = threading.Thread(target=serve_one, daemon=True)
        server_thread.start()
        try:
            with socket.socket() as peer:
                peer.connect(name)
                check(peer.getpeername() == name, peer.getpeername(), name)
                echo(peer, seed)
        finally:
            # A client that did not come is not waited for.
            done.set()
            server.shutdown(socket.SHUT_RDWR)
            server_thread.join()


def datagrams(port, seed):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.settimeout(0.5)
        connected = seed % 2 == 0
        if connected:
            peer.connect((address, port))
        block = random.Random(seed).randbytes(1000)
        # Datagrams may be lost, and natively a send or a receive says so.
        for turn in range(HARMLESS_TURNS):
            sent = b"%d" % turn + block
            try:
                if connected:
                    peer.send(sent)
                else:
                    peer.sendmsg([sent], [], 0, (address, port))
                data, sender = peer.recvfrom(2000) if turn % 2 else peer.recvmsg(2000)[::3]
            except TimeoutError:
                continue
            check(data[1:] == block, "another datagram")
            check(sender == (address, port), "from", sender)
            return
        raise OSError(errno.ETIMEDOUT, "no answer")


def name(seed):
    try:
        found = socket.getaddrinfo("name.test", 80, socket.AF_INET, socket.SOCK_STREAM)
    except socket.gaierror as error:
        # glibc says that there is no such name when socket(2) fails, natively too.
        known = socket.EAI_AGAIN, socket.EAI_SYSTEM, socket.EAI_MEMORY, socket.EAI_NONAME
        check(error.errno in known, error)
        raise OSError(errno.EAGAIN, "name") from error
    check([one[4] for one in found] == [("192.0.2.12", 80)], found)


def forks(peer):
    """Forks for each seed that it is sent: a process with threads had better not."""
    while seed := peer.recv(100):
        pid = os.fork()
        if pid == 0:
            try:
                talk(stack, int(seed))
                os._exit(0)
            except OSError as error:
                os._exit(error.errno or errno.ECONNRESET)
            except BaseException:
                traceback.print_exc()
                os._exit(255)
        _, status = os.waitpid(pid, 0)
        peer.send(b"%d" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def forked(seed):
    forker.send(b"%d" % seed)
    code = int(forker.recv(100))
    check(0 <= code < 255, "the child ended with", code)
    if code:
        raise OSError(code, "in the child")


def local(seed):
    """A connected internet socket is handed over by AF_UNIX, and used."""
    path = f"{folder}/stream-{seed}"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        try:
            server.bind(path)
            server.listen()
            client.connect(path)
            taken, _ = server.accept()
        finally:
            if os.path.exists(path):
                os.unlink(path)
        with taken:
            with socket.create_connection((address, stack)) as peer:
                client.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [peer.fileno()]))])
            data, control, _, _ = taken.recvmsg(1, socket.CMSG_LEN(4))
            check(data == b"x" and len(control) == 1, data, control)
            with socket.socket(fileno=struct.unpack("i", control[0][2])[0]) as peer:
                echo(peer, seed, 20_000)


def local_datagram(seed):
    path = f"{folder}/datagram-{seed}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        try:
            server.bind(path)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
                client.sendto(b"one", path)
                check(server.recv(10) == b"one", "another datagram")
        finally:
            if os.path.exists(path):
                os.unlink(path)


def interfaces(seed):
    # RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP (rtnetlink(7)).
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        netlink.settimeout(5)
        netlink.bind((0, 0))
        netlink.sendto(struct.pack("IHHIIB3x", 20, 22, 0x301, seed, 0, 0), (0, 0))
        found = netlink.recv(65536)
        check(struct.unpack_from("H", found, 4)[0] in (20, 2, 3), "an answer to something else")
    check(socket.if_nametoindex("lo") == 1, "another loopback")


def may_not(what, *words):
    """What is denied is denied with a reason, and a fault may be the reason."""
    try:
        what(*words)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.ECONNREFUSED, errno.EPERM):
            raise
        return
    raise Wrong("it was let through")


def denied_stream(seed, blocking):
    with socket.socket() as peer:
        peer.setblocking(blocking)
        may_not(peer.connect, (address, denied))


def denied_datagram(seed):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        may_not(peer.sendto, b"x", (address, denied))


def denied_local(seed):
    with socket.socket(socket.AF_UNIX) as peer:
        may_not(peer.connect, outside)


TASKS = {
    "stack": lambda seed: talk(stack, seed),
    "stack, without waiting": lambda seed: without_waiting(stack, seed),
    "bypass": lambda seed: talk(bypass, seed),
    "bypass, without waiting": lambda seed: without_waiting(bypass, seed),
    "between guests": between,
    "datagrams": lambda seed: datagrams(udp, seed),
    "datagrams past the stack": lambda seed: datagrams(udp_bypass, seed),
    "name": name,
    "fork": forked,
    "AF_UNIX": local,
    "AF_UNIX datagram": local_datagram,
    "netlink": interfaces,
    "denied": lambda seed: denied_stream(seed, True),
    "denied, without waiting": lambda seed: denied_stream(seed, False),
    "denied datagram": denied_datagram,
    "denied AF_UNIX": denied_local,
}


def turn(seed):
    came = {}

    def run(what, task, own):
        try:
            task(own)
            came[what] = "ok"
        except Wrong as error:
            came[what] = f"WRONG {error}"
        except OSError as error:
            # A time-out of Python's own has no errno.
            came[what] = errno.errorcode.get(error.errno, f"errno {error.errno}") if error.errno else "ETIMEDOUT"
        except BaseException:
            came[what] = f"WRONG {traceback.format_exc()}"

    threads = {}
    for index, (what, task) in enumerate(TASKS.items()):
        threads[what] = threading.Thread(target=run, args=(what, task, seed * 100 + index), daemon=True)
    for thread in threads.values():
        thread.start()
    end = time.monotonic() + PATIENCE
    for what, thread in threads.items():
        thread.join(max(0, end - time.monotonic()))
        if thread.is_alive():
            at = traceback.format_stack(sys._current_frames()[thread.ident])
            came[what] = f"HANG {at[-1]}"
    return came


def serve(peer):
    with peer:
        try:
            while block := peer.recv(65536):
                peer.sendall(block)
        except OSError:
            pass


def published():
    server = socket.create_server(("0.0.0.0", served))
    print("ready", flush=True)
    while True:
        try:
            peer, _ = server.accept()
        except OSError as error:
            # One that says so at once every time would be a busy loop.
            print("accept:", error, file=sys.stderr, flush=True)
            time.sleep(0.01)
            continue
        threading.Thread(target=serve, args=(peer,), daemon=True).start()


forker, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
if os.fork() == 0:
    forker.close()
    forks(other)
other.close()
threading.Thread(target=published, daemon=True).start()
for line in sys.stdin:
    print(json.dumps(turn(int(line))), flush=True)
# Threads that hang would keep a Python that ends in order.
sys.stdout.flush()
os._exit(0)
