"""Tries to reach each address given and prints what came of it, one line each.

Arguments: ADDRESS PORT pairs. Prints "ADDRESS: caught" when greeted, else the errno's name. All at
once, since those that lead nowhere take their time.
"""
import concurrent.futures
import errno
import socket
import sys


def reach(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as peer:
            peer.settimeout(5)
            peer.connect((address, int(port)))
            greeting = peer.recv(100)
        return greeting.decode().strip() or "closed"
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return errno.errorcode.get(error.errno, error)


words = sys.argv[1:]
with concurrent.futures.ThreadPoolExecutor(64) as pool:
    for address, outcome in zip(words[::2], pool.map(reach, words[::2], words[1::2])):
        print(f"{address}: {outcome}")
