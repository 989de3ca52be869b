"""Pictures in the store: whose they are, how long they stay, how much room they may take."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from serve_app.errors import SessionFullError, SessionNotFoundError
from serve_app.sessions import images as module
from serve_app.sessions.images import ImageFile, RedisImageStore
from serve_app.sessions.redis import RedisSessionStore, StoreSettings
from serve_app.sessions.redis_catalogue import RedisSessionCatalogue
from serve_app.sessions.session import is_uid, new_token
from tests.serve_app.sessions.turns import append
from tests.support.fakes.pictures import PNG

FILE = ImageFile(*PNG)


@pytest.fixture
async def images(store_url: str) -> AsyncIterator[RedisImageStore]:
    client = RedisImageStore(store_url)
    yield client
    await client.close()


@pytest.mark.parametrize("uid", ["", "0123456789abcdef" * 2])
async def test_a_picture_is_its_owners(images: RedisImageStore, uid: str) -> None:
    first, second = [await images.put("ann", uid, *PNG) for _ in range(2)]
    assert is_uid(first) and first != second
    assert await images.find(first, "ann") == FILE == await images.find(second, "ann")
    assert await images.find(first, "bob") is None
    assert await images.find(new_token(), "ann") is None


async def test_a_picture_goes_with_its_chat(
    images: RedisImageStore, store: RedisSessionStore, store_url: str
) -> None:
    uid, other = new_token(), new_token()
    mine = await images.put("ann", uid, *PNG)  # before the first turn is stored
    await append(store, uid, owner="ann")
    kept = await images.put("ann", other, *PNG)
    catalogue = RedisSessionCatalogue(store_url)
    assert await catalogue.delete(uid, "ann")
    await catalogue.close()
    assert await images.find(mine, "ann") is None
    assert await images.find(kept, "ann") == FILE
    with pytest.raises(SessionNotFoundError):  # a turn that ran meanwhile brings nothing back
        await images.put("ann", uid, *PNG)
    async with Redis.from_url(store_url) as raw:
        assert [key async for key in raw.scan_iter(f"moss:chat:{{{uid}}}:image*")] == []


async def test_a_picture_expires_unless_it_is_read(store_url: str) -> None:
    images = RedisImageStore(store_url, StoreSettings(session_ttl_s=1))
    uid = new_token()
    read, unread = [await images.put("ann", uid, *PNG) for _ in range(2)]
    await asyncio.sleep(0.6)
    assert await images.find(read, "ann") == FILE
    await asyncio.sleep(0.6)
    assert await images.find(unread, "ann") is None
    assert await images.find(read, "ann") == FILE, "counted from when it was read"
    await images.close()
    await asyncio.sleep(1.1)
    async with Redis.from_url(store_url) as raw:
        left = [key async for key in raw.scan_iter(f"moss:*{uid}*")]
        left += [key async for key in raw.scan_iter(f"moss:image:{read}")]
    assert left == []


async def test_a_chat_has_room_for_so_many_bytes(
    images: RedisImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CHAT_BYTES", 2 * len(PNG[1]))
    uid = new_token()
    for _ in range(2):
        await images.put("ann", uid, *PNG)
    with pytest.raises(SessionFullError):
        await images.put("ann", uid, *PNG)
    await images.put("ann", new_token(), *PNG)


async def test_a_picture_lives_on_with_its_chat(store_url: str) -> None:
    """Also where nobody looks at it: a new turn renews what it needs."""
    settings = StoreSettings(session_ttl_s=1)
    images, store = RedisImageStore(store_url, settings), RedisSessionStore(store_url, settings)
    uid, other = new_token(), new_token()
    kept, lost = await images.put("ann", uid, *PNG), await images.put("ann", other, *PNG)
    parent = ""
    for _ in range(3):
        await asyncio.sleep(0.5)
        parent = (await append(store, uid, parent, owner="ann")).id
    assert await images.find(kept, "ann") == FILE
    assert await images.find(lost, "ann") is None
    await store.close()
    catalogue = RedisSessionCatalogue(store_url)
    assert await catalogue.delete(uid, "ann")
    await catalogue.close()
    assert await images.find(kept, "ann") is None, "a delete still finds it"
    await images.close()
