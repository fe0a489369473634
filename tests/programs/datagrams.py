"""Says what datagram sockets do, line by line, so that two runs can be compared. Arguments: the echo
server's address and port, a port of it where nobody is, and the size of the largest datagram."""
import array
import errno
import os
import select
import socket
import sys
import threading

server = (sys.argv[1], int(sys.argv[2]))
other = (server[0], server[1] + 1)
nobody = (sys.argv[1], int(sys.argv[3]))
family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
any_address = "::" if family == socket.AF_INET6 else "0.0.0.0"


def say(what, *answers):
    print(what + ":", *answers, flush=True)


def attempt(what, call):
    try:
        say(what, call())
    except OSError as error:
        say(what, errno.errorcode.get(error.errno, error))


def new(timeout=10.0, kind=0):
    made = socket.socket(family, socket.SOCK_DGRAM | kind)
    made.settimeout(timeout)
    return made


def who(sender):
    return {server: "server", other: "other port"}.get(sender[:2], sender)


one = new()
say("kind", *(one.getsockopt(socket.SOL_SOCKET, name) for name in
              (socket.SO_DOMAIN, socket.SO_TYPE, socket.SO_PROTOCOL, socket.SO_ERROR, socket.SO_BROADCAST)))
say("unbound", one.getsockname()[:2])
attempt("peer of an unconnected one", one.getpeername)
attempt("send nowhere", lambda: one.sendto(b"x", (server[0], 0)))
attempt("too long", lambda: one.sendto(b"x" * 65536, server))
attempt("listen", lambda: one.listen(1))

# One after the other, of every size.
for size in (0, 1, 1000, 1472, 1473, 15000, int(sys.argv[4])):
    payload = os.urandom(size)
    one.sendto(payload, server)
    data, sender = one.recvfrom(65536)
    say("size", size, data == payload, who(sender))
say("bound by sending", one.getsockname()[1] != 0)

# Two senders to one socket, who must not be mixed up; every receiving call.
for number in range(8):
    for each in (server, other):
        one.sendto(b"to %s, %d" % (who(each).encode(), number), each)
    got = sorted((data, who(sender)) for data, sender in (one.recvfrom(100) for _ in range(2)))
    say("two senders", got)
one.sendto(b"a message", server)
data, control, flags, sender = one.recvmsg(100, 100)
say("recvmsg", data, control, flags, who(sender))
one.sendto(b"longer than that", server)
data, _, flags, sender = one.recvmsg(6)
say("cut", data, flags == socket.MSG_TRUNC, who(sender))
one.sendto(b"looked at", server)
say("peek", one.recvfrom(100, socket.MSG_PEEK)[0], len(one.recvfrom(3, socket.MSG_PEEK | socket.MSG_TRUNC)[0]),
    one.recvfrom(100)[0])
one.sendmsg([b"in ", b"pieces"], [], 0, server)
say("pieces", one.recv(100))
one.sendto(b"into two", server)
first, second = bytearray(4), bytearray(10)
said = one.recvmsg_into([first, second], 0, 0)
say("into two", said[0], bytes(first), bytes(second), who(said[3]))

# Without waiting.
quiet = new(timeout=0.0)
attempt("nothing there", lambda: quiet.recvfrom(10))
attempt("nothing there, recv", lambda: quiet.recv(10))
attempt("nothing there, recvmsg", lambda: quiet.recvmsg(10))
attempt("accept", quiet.accept)
waiting = socket.socket(family, socket.SOCK_DGRAM)
waiting.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, array.array("l", [0, 50000]).tobytes())
attempt("a time-out", lambda: waiting.recvfrom(10))
attempt("not to wait", lambda: waiting.recvfrom(10, socket.MSG_DONTWAIT))

# Events.
poller = select.epoll()
watched = new(timeout=0.0)
poller.register(watched, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
say("events of a new one", [event for _, event in poller.poll(10)])
watched.sendto(b"event", server)
events = 0
while not events & select.EPOLLIN:
    for _, event in poller.poll(10):
        events |= event
say("events of a datagram", bool(events & select.EPOLLIN))
say("its length", int.from_bytes(__import__("fcntl").ioctl(watched, 0x541B, b"\0" * 4), sys.byteorder))
say("received", watched.recvfrom(100)[0])
attempt("and no more", lambda: watched.recvfrom(100))

# Connected.
two = new()
say("connect", two.connect(server))
say("peer", who(two.getpeername()))
say("local", two.getsockname()[1] != 0 and two.getsockname()[0] != any_address)
two.send(b"natively")
say("recv", two.recv(100))
os.write(two.fileno(), b"by write")
two.setblocking(True)
say("read", os.read(two.fileno(), 100))
two.settimeout(10)
two.send(b"twice, of which one is not from the peer")
say("from the peer", who(two.recvfrom(100)[1]))
two.settimeout(0.2)
attempt("from others", lambda: two.recvfrom(100))
two.settimeout(10)
say("sent elsewhere", two.sendto(b"elsewhere", (server[0], server[1])), two.recv(100))
held = two.dup()
held.send(b"by a duplicate")
say("duplicate", held.recv(100))
if os.fork() == 0:
    held.send(b"by a child")
    say("child", held.recvfrom(100)[0])
    os._exit(0)
os.wait()

# Nobody there: the refusal comes by ICMP, with the next call.
three = new()
three.connect(nobody)
three.send(b"x")
attempt("refused", lambda: three.recvfrom(100))
three.send(b"x")
say("error event", bool(select.select([three], [], [], 10)[0]))
say("SO_ERROR", errno.errorcode.get(three.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)))
say("SO_ERROR again", three.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
four = new()
four.sendto(b"x", nobody)
four.settimeout(0.3)
attempt("refused, unconnected", lambda: four.recvfrom(100))

# Bound.
five = new()
five.bind((any_address, 0))
port = five.getsockname()[1]
say("bound", port != 0, five.getsockname()[0])
attempt("bound twice", lambda: five.bind((any_address, 0)))
six = new()
attempt("in use", lambda: six.bind((any_address, port)))
five.close()
attempt("free again", lambda: six.bind((any_address, port)))
attempt("not ours", lambda: new().bind(("2001:db8::77" if family == socket.AF_INET6 else "192.0.2.77", 0)))
shared = [new(), new()]
for each in shared:
    each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
shared[0].bind((any_address, 0))
attempt("shared", lambda: shared[1].bind(shared[0].getsockname()))
say("reuse", shared[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR))

# Options and control messages.
for level, name, value in (
    (socket.SOL_SOCKET, socket.SO_BROADCAST, 1),
    (socket.IPPROTO_IP, socket.IP_TTL, 33) if family == socket.AF_INET
    else (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 33),
    (socket.IPPROTO_IP, socket.IP_TOS, 8) if family == socket.AF_INET
    else (socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 8),
):
    six.setsockopt(level, name, value)
    say("option", name, six.getsockopt(level, name))
attempt("no such option", lambda: six.setsockopt(socket.IPPROTO_IP, 60, 1))

# A thread that waits, and one that sends.
def receive():
    say("thread", one.recvfrom(100)[0])


thread = threading.Thread(target=receive)
thread.start()
one.sendto(b"to a thread that waits", server)
thread.join()

# Calls that wait, one after the other, and three at a time.
def rounds(wanted):
    blocking = socket.socket(family, socket.SOCK_DGRAM)
    for number in range(wanted):
        blocking.sendto(b"%d" % number, server)
        if blocking.recvfrom(100)[0] != b"%d" % number:
            return number
    return wanted


say("rounds", rounds(500))
counts = []
threads = [threading.Thread(target=lambda: counts.append(rounds(200))) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
say("rounds in threads", counts)
crowd = socket.socket(family, socket.SOCK_DGRAM)
crowd.bind((any_address, 0))
taken = []
threads = [threading.Thread(target=lambda: taken.append(crowd.recvfrom(100)[0])) for _ in range(4)]
for thread in threads:
    thread.start()
for number in range(4):
    crowd.sendto(b"%d" % number, server)
for thread in threads:
    thread.join()
say("taken by four who wait", sorted(taken))

# Within the machine.
loop = "::1" if family == socket.AF_INET6 else "127.0.0.1"
inside = new()
inside.bind((loop, 0))
seven = new()
seven.sendto(b"inside", inside.getsockname())
data, sender = inside.recvfrom(100)
say("inside", data, sender[0] == loop)
inside.sendto(b"and back", sender)
say("inside", *seven.recvfrom(100)[:1])

# Many at once: nothing lost, nothing out of order.
many = new()
many.connect(server)
count = 0
for start in range(0, 2000, 20):
    for number in range(start, start + 20):
        many.send(b"%d" % number)
    for number in range(start, start + 20):
        count += many.recvfrom(100)[0] == b"%d" % number
say("many", count)
