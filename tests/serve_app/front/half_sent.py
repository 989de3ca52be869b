"""Requests that never become whole, as slow-loris sends them: a byte now and then."""

import asyncio
import ssl
import time

from tests.serve_app.front.conftest import RunningFront

NUM_LORIS = 200
POST = b"POST /echo HTTP/1.1\r\nHost: localhost\r\n"
HALF_SENT = {
    "nothing": b"",
    "half a head": POST + b"X-A: ",
    "half a body": POST + b"Content-Length: 1000\r\n\r\nabc",
    "half a chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\na",
}
HALF_A_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"  # the beginning of a TLS handshake


async def half_send(
    front: RunningFront, kind: str, tls: ssl.SSLContext | None = None
) -> tuple[float, bytes]:
    """Seconds until the front closes the connection, and what it says."""
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port, ssl=tls)
    return await _until_closed(reader, writer, HALF_SENT[kind], 0.5 if HALF_SENT[kind] else 0)


async def half_shake(front: RunningFront, sent: bytes) -> tuple[float, bytes]:
    """As `half_send`, of a TLS handshake that does not go on."""
    reader, writer = await front.connect()
    return await _until_closed(reader, writer, sent, 0)


async def slow_twice(
    front: RunningFront, head_s: float, tls: ssl.SSLContext | None = None
) -> tuple[float, bytes]:
    """As `half_send`; the headers take `head_s` seconds, and the body has no end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port, ssl=tls)
    began = time.monotonic()
    writer.write(POST)
    await asyncio.sleep(head_s)
    _, said = await _until_closed(reader, writer, b"Content-Length: 1000\r\n\r\na", 0.5)
    return time.monotonic() - began, said


async def _until_closed(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytes, drip_every_s: float
) -> tuple[float, bytes]:
    began = time.monotonic()
    writer.write(sent)
    drip = asyncio.create_task(_drip(writer, drip_every_s))
    try:
        said = await reader.read()
    except ConnectionError:
        said = b""
    finally:
        drip.cancel()
        writer.close()
    return time.monotonic() - began, said


async def _drip(writer: asyncio.StreamWriter, every_s: float) -> None:
    while every_s:
        await asyncio.sleep(every_s)
        writer.write(b"a")
