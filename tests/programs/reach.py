"""Tries to reach each address given and prints what came of it, one line each.

Arguments: ADDRESS PORT pairs. Prints "ADDRESS: caught" when greeted, else the errno's name.
"""
import errno
import socket
import sys

words = sys.argv[1:]
for address, port in zip(words[::2], words[1::2]):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as peer:
            peer.settimeout(5)
            peer.connect((address, int(port)))
            greeting = peer.recv(100)
        print(f"{address}: {greeting.decode().strip() or 'closed'}")
    except TimeoutError:
        print(f"{address}: timeout")
    except OSError as error:
        print(f"{address}: {errno.errorcode.get(error.errno, error)}")
