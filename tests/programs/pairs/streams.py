"""`serve PORT`: sends back what it gets. `check IP PORT`: 100 connections at once that compare."""
import asyncio
import sys

COUNT = 100
SIZE = 100_000


async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def serve(port):
    server = await asyncio.start_server(echo, "0.0.0.0", port, backlog=128)
    await server.serve_forever()


async def one(ip, port, number):
    reader, writer = await asyncio.open_connection(ip, port)
    sent = bytes([number, 255 - number]) * (SIZE // 2)
    writer.write(sent)
    writer.write_eof()
    back = await reader.read(-1)
    assert back == sent, (number, len(back))
    writer.close()
    await writer.wait_closed()


async def check(ip, port):
    await asyncio.gather(*(one(ip, port, number) for number in range(COUNT)))
    print("every byte came back")


what, *rest = sys.argv[1:]
if what == "serve":
    asyncio.run(serve(int(rest[0])))
else:
    asyncio.run(check(rest[0], int(rest[1])))
