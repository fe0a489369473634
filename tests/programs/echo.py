"""Sends back what it gets. Arguments: an IPv4 address, an IPv6 address, ports; the last one is up last."""
import asyncio
import resource
import sys

_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def echo(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()


async def main():
    addresses, ports = sys.argv[1:3], sys.argv[3:]
    # The IPv4 address of the last port last: the harness waits for that one.
    for port in ports:
        for address in reversed(addresses):
            await asyncio.start_server(echo, address, int(port), backlog=4096)
    await asyncio.Event().wait()


asyncio.run(main())
