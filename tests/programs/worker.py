"""A command with a daemon, for job control: worker.py ADDRESS PORT TICKS.

The daemon has a session of its own and goes round over one connection, counting into the file TICKS.
The command says which signals it gets, and how often: by SIGUSR1 it stops itself, by SIGTERM it exits
with 7, by SIGHUP with 8.
"""
import os
import signal
import socket
import sys

counts = {}


def tell(text):
    os.write(1, text.encode() + b"\r\n")


def caught(number, _):
    # The terminal is gone.
    if number == signal.SIGHUP:
        os._exit(8)
    name = signal.Signals(number).name
    counts[name] = counts.get(name, 0) + 1
    tell(f"{name}={counts[name]}.")
    if number == signal.SIGUSR1:
        os.kill(os.getpid(), signal.SIGSTOP)
    if number == signal.SIGTERM:
        os._exit(7)


def daemon():
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    peer = socket.create_connection((sys.argv[1], int(sys.argv[2])))
    ticks = os.open(sys.argv[3], os.O_WRONLY | os.O_CREAT, 0o644)
    count = 0
    while True:
        peer.sendall(b"word")
        # Nothing: netshunt is gone.
        if peer.recv(4, socket.MSG_WAITALL) != b"word":
            os._exit(0)
        count += 1
        os.pwrite(ticks, b"%12d" % count, 0)


for number in (signal.SIGCONT, signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, caught)
if os.fork() == 0:
    daemon()
# Not pause(2): a signal between Python's look for one and that call would wait for the next.
come, wake = os.pipe()
os.set_blocking(wake, False)
signal.set_wakeup_fd(wake)
tell(f"pid={os.getpid()}.")
while True:
    os.read(come, 1)
