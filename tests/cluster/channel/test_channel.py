"""Messages between two ends on one event loop, and what ends a stream."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import msgpack
import pytest

from cluster.channel.address import Address
from cluster.channel.inlet import ChannelLostError, Inlet
from cluster.channel.listener import Listener
from cluster.channel.outbox import Outbox
from cluster.channel.wire import Peer, pack

PEER = Peer("replica-1", "digest")
SHORT_S = 0.5


@asynccontextmanager
async def listening(silence_s: float = 60.0) -> AsyncIterator[Listener]:
    listener = Listener(silence_s=silence_s)
    await listener.open()
    try:
        yield listener
    finally:
        await listener.close()


def outbox(peer: Peer = PEER, is_well: bool = True) -> Outbox:
    return Outbox(peer, lambda: is_well)


async def test_messages_arrive_on_their_stream_in_order() -> None:
    async with listening() as listener, asyncio.timeout(10):
        first, second = listener.inlet(), listener.inlet()
        sender = outbox()
        connection = await sender.connect(first.target.address)
        assert connection is await sender.connect(second.target.address), "one a pair of processes"
        for number in range(100):
            connection.send(first.target.stream, [number, "字"])
            connection.send(second.target.stream, {"n": number})
        assert [await first.get() for _ in range(100)] == [[n, "字"] for n in range(100)]
        assert [await second.get() for _ in range(100)] == [{"n": n} for n in range(100)]
        assert first.peer == second.peer == PEER


async def test_two_senders_do_not_mix() -> None:
    async with listening() as listener, asyncio.timeout(10):
        one, other = listener.inlet(), listener.inlet()
        senders = [outbox(Peer(name)) for name in ("a", "b")]
        for sender, inlet in zip(senders, (one, other), strict=True):
            (await sender.connect(inlet.target.address)).send(inlet.target.stream, "x")
        assert [await one.get(), await other.get()] == ["x", "x"]
        assert (one.peer, other.peer) == (Peer("a"), Peer("b"))


async def test_many_callers_at_once_open_one_connection() -> None:
    async with listening() as listener, asyncio.timeout(10):
        sender, inlet = outbox(), listener.inlet()
        address = inlet.target.address
        connections = await asyncio.gather(*(sender.connect(address) for _ in range(20)))
        assert len(set(map(id, connections))) == 1


async def test_what_comes_after_the_close_of_an_inlet_is_dropped() -> None:
    async with listening() as listener, asyncio.timeout(10):
        closed, inlet = listener.inlet(), listener.inlet()
        connection = await outbox().connect(inlet.target.address)
        closed.close()
        connection.send(closed.target.stream, 1)
        connection.send(inlet.target.stream, 2)
        assert await inlet.get() == 2
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await closed.get()


async def test_the_end_of_a_sender_ends_its_streams_behind_their_messages() -> None:
    async with listening() as listener, asyncio.timeout(10):
        own, others = listener.inlet(), listener.inlet()
        connection = await outbox().connect(own.target.address)
        connection.send(own.target.stream, "last")
        (await outbox(Peer("b")).connect(own.target.address)).send(others.target.stream, "x")
        assert await own.get() == "last" and await others.get() == "x"
        connection._transport.abort()
        with pytest.raises(ChannelLostError):
            await own.get()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await others.get()


async def test_the_end_of_a_listener_ends_who_sends_to_it() -> None:
    async with listening() as listener, asyncio.timeout(10):
        inlet, sender = listener.inlet(), outbox()
        connection = await sender.connect(inlet.target.address)
        connection.send(inlet.target.stream, 1)
        await inlet.get()

        async def work() -> None:
            with connection.guarding():
                await asyncio.sleep(60)

        working = asyncio.create_task(work())
        await asyncio.sleep(0)
        await listener.close()
        with pytest.raises(ChannelLostError):
            await working
        with pytest.raises(ChannelLostError):
            await work()
        with pytest.raises(ChannelLostError, match="nobody listens"):
            await sender.connect(inlet.target.address)


async def test_a_cancelled_sender_is_cancelled() -> None:
    async with listening() as listener, asyncio.timeout(10):
        connection = await outbox().connect(listener.inlet().target.address)

        async def work() -> None:
            with connection.guarding():
                await asyncio.sleep(60)

        working = asyncio.create_task(work())
        await asyncio.sleep(0)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working


@pytest.mark.parametrize("is_well", [True, False])
async def test_a_sender_is_heard_while_it_is_well(is_well: bool) -> None:
    async with listening(silence_s=2.0) as listener, asyncio.timeout(20):
        inlet = listener.inlet()
        connection = await outbox(is_well=is_well).connect(inlet.target.address)
        connection.send(inlet.target.stream, "begun")
        assert await inlet.get() == "begun"
        try:
            async with asyncio.timeout(4):
                await inlet.get()
        except ChannelLostError as error:
            assert not is_well and "silent" in str(error)
        except TimeoutError:
            assert is_well


SENDER = textwrap.dedent("""
    import asyncio, sys
    from cluster.channel.address import Address
    from cluster.channel.outbox import Outbox
    from cluster.channel.wire import Peer
    async def main():
        host, port, token, stream = sys.argv[1:]
        outbox = Outbox(Peer("other"), lambda: True)
        connection = await outbox.connect(Address(host, int(port), bytes.fromhex(token)))
        connection.send(int(stream), "begun")
        await asyncio.sleep(60)
    asyncio.run(main())
""")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_process_that_is_killed_or_stopped(number: signal.Signals) -> None:
    async with listening(silence_s=2.0) as listener, asyncio.timeout(30):
        inlet = listener.inlet()
        address, stream = inlet.target.address, inlet.target.stream
        arguments = [address.host, str(address.port), address.token.hex(), str(stream)]
        process = subprocess.Popen([sys.executable, "-c", SENDER, *arguments])
        try:
            assert await inlet.get() == "begun"
            os.kill(process.pid, number)
            began = asyncio.get_running_loop().time()
            with pytest.raises(ChannelLostError):
                await inlet.get()
            took_s = asyncio.get_running_loop().time() - began
            assert (took_s < 1.5) == (number == signal.SIGKILL)
        finally:
            process.kill()
            process.wait()


def _strangers(address: Address, stream: int) -> dict[str, bytes]:
    wrong = replace(address, token=bytes(32)).token
    return {
        "nothing of ours": b"GET / HTTP/1.1\r\n\r\n",
        "another token": pack([wrong, "x", ""]) + pack([stream, "evil"]),
        "no token": pack([stream, "evil"]),
        "a token of text": pack([address.token.hex(), "x", ""]) + pack([stream, "evil"]),
        "more than an array": pack([address.token, "x", "", 1]) + pack([stream, "evil"]),
        "not an array": pack([address.token, "x", ""]) + pack({"a": 1}),
        "too much": b"\xda\xff\xff" * 100_000,
        "an extension": msgpack.packb(msgpack.ExtType(5, b"x")) + pack([stream, "evil"]),
    }


@pytest.mark.parametrize("name", _strangers(Address("", 0, b""), 0))
async def test_strangers_are_shut_out(name: str) -> None:
    async with listening() as listener, asyncio.timeout(10):
        inlet = listener.inlet()
        address = inlet.target.address
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(_strangers(address, inlet.target.stream)[name])
        with suppress(ConnectionResetError):
            assert await reader.read() == b"", "it is closed, and says nothing"
        writer.close()
        with suppress(ConnectionResetError):
            await writer.wait_closed()
        await _says_nothing(inlet)
        connection = await outbox().connect(address)
        connection.send(inlet.target.stream, "of ours")
        assert await inlet.get() == "of ours"


async def _says_nothing(inlet: Inlet) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await inlet.get()
