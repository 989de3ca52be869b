"""A search of an owner's chats: what it finds, in which order, and how much it reads."""

from collections.abc import AsyncIterator

import pytest

from serve_app.errors import SessionNotFoundError
from serve_app.sessions import index
from serve_app.sessions.catalogue import SearchPage, SessionChanges
from serve_app.sessions.keys import session_keys
from serve_app.sessions.redis import RedisSessionStore
from serve_app.sessions.redis_catalogue import RedisSessionCatalogue
from serve_app.sessions.session import SessionSummary, new_token
from tests.serve_app.sessions.turns import append
from tests.serve_app.store_server import StoreServer


@pytest.fixture
async def catalogue(store_url: str) -> AsyncIterator[RedisSessionCatalogue]:
    client = RedisSessionCatalogue(store_url)
    yield client
    await client.close()


@pytest.fixture
def owner() -> str:
    """The store is not new, so its owner is."""
    return f"ann {new_token()}"


async def make_chats(catalogue: RedisSessionCatalogue, owner: str, *titles: str) -> list[str]:
    """The uids of new chats, the newest of which is the first."""
    made = [await catalogue.create(owner, SessionChanges(title=title)) for title in titles]
    return [session.uid for session in reversed(made)]


def uids(found: SearchPage) -> list[str]:
    return [line.uid for line in found.lines]


async def test_titles_and_texts_of_every_branch_are_searched_in_any_case(
    store: RedisSessionStore, catalogue: RedisSessionCatalogue, owner: str
) -> None:
    told, asked, titled, _ = await make_chats(catalogue, owner, "", "Große STRASSE", "", "")
    await append(store, asked, owner=owner, user="Wo ist die straße? 路在哪里")
    first = await append(store, told, owner=owner, reply="An der Straße.")
    await append(store, told, owner=owner, reply="another branch, which is active", user="hm")
    assert first.parent == ""
    for text in ("straße", "STRASSE", "Strasse"):
        assert uids(await catalogue.search(owner, text, 9)) == [told, asked, titled]
    assert uids(await catalogue.search(owner, "路在", 9)) == [asked]
    assert uids(await catalogue.search(owner, "ACTIVE", 9)) == [told]
    for text in ("strase", "None", "路 在", "created_ms"):
        found = await catalogue.search(owner, text, 9)
        assert (found.lines, found.has_more) == ((), False), text
    listed = {line.uid: line for line in await catalogue.list_sessions(owner, 9)}
    assert (await catalogue.search(owner, "active", 9)).lines == (listed[told],)


async def test_only_the_owners_chats_are_searched(
    store: RedisSessionStore, catalogue: RedisSessionCatalogue, owner: str
) -> None:
    (mine,) = await make_chats(catalogue, owner, "secret")
    assert await catalogue.search(f"bob {new_token()}", "secret", 9) == SearchPage()
    assert await catalogue.search("demo", "secret", 9) == SearchPage()
    assert uids(await catalogue.search(owner, "secret", 9)) == [mine]
    await catalogue.delete(mine, owner)
    assert await catalogue.search(owner, "secret", 9) == SearchPage()


async def test_a_search_goes_on_after_the_last_chat_that_was_looked_at(
    catalogue: RedisSessionCatalogue, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "_FEW", 3)
    chats = await make_chats(catalogue, owner, *("yes" if n % 2 else "no" for n in range(10)))
    first = await catalogue.search(owner, "yes", 2)
    assert first.has_more and (uids(first), first.last_uid) == ([chats[0], chats[2]], chats[2])
    second = await catalogue.search(owner, "yes", 9, first.last_uid)
    assert (uids(second), second.last_uid, second.has_more) == (chats[4::2], chats[-1], False)
    last = await catalogue.search(owner, "no", 5)
    assert (uids(last), last.last_uid, last.has_more) == (chats[1::2], chats[-1], False)
    assert await catalogue.search(owner, "no", 5, chats[-1]) == SearchPage()
    with pytest.raises(SessionNotFoundError):
        await catalogue.search(owner, "yes", 2, new_token())


async def test_a_search_looks_at_so_many_chats_only(
    catalogue: RedisSessionCatalogue, owner: str
) -> None:
    number = index.MAX_SEARCHED + 2
    chats = await make_chats(catalogue, owner, "sought", *["other"] * (number - 1))
    nothing = await catalogue.search(owner, "sought", 9)
    assert (nothing.lines, nothing.last_uid) == ((), chats[index.MAX_SEARCHED - 1])
    assert nothing.has_more
    found = await catalogue.search(owner, "sought", 9, nothing.last_uid)
    assert (uids(found), found.has_more) == ([chats[-1]], False)


async def test_a_search_reads_so_much_only(
    store: RedisSessionStore,
    catalogue: RedisSessionCatalogue,
    owner: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A chat of any size is searched, alone."""
    monkeypatch.setattr(index, "MAX_SEARCHED_BYTES", 5000)
    chats = [new_token() for _ in range(3)]
    for uid, size in zip(chats, (2000, 2000, 9000), strict=True):
        await append(store, uid, owner=owner, reply="x" * size + " found")
    pages = [await catalogue.search(owner, "found", 9)]
    while pages[-1].has_more:
        pages.append(await catalogue.search(owner, "found", 9, pages[-1].last_uid))
    assert [uids(page) for page in pages] == [[chats[2]], [chats[1], chats[0]]]


def test_batches_are_small() -> None:
    def lines(*sizes: int) -> list[SessionSummary]:
        return [SessionSummary(str(at), "", 0, 0, 1, size) for at, size in enumerate(sizes)]

    def sizes(*given: int) -> list[list[int]]:
        return [[line.num_bytes for line in few] for few in index.in_batches(lines(*given))]

    mib = 1024 * 1024
    assert sizes() == [] and sizes(0) == [[0]] and sizes(99 * mib) == [[99 * mib]]
    assert sizes(3 * mib, 2 * mib, mib) == [[3 * mib], [2 * mib, mib]]
    assert sizes(mib, 9 * mib, 6 * mib, mib) == [[mib], [9 * mib], [6 * mib]]
    assert [len(few) for few in sizes(*[1] * 999)] == [25] * 8


async def test_the_size_is_that_of_the_stored_turns(
    store: RedisSessionStore, catalogue: RedisSessionCatalogue, server: StoreServer, owner: str
) -> None:
    uid = new_token()
    for _ in range(2):
        await append(store, uid, owner=owner)
    stored = server.command("LRANGE", session_keys(uid, "turns")[0], "0", "-1")
    assert isinstance(stored, list)
    (line,) = await catalogue.list_sessions(owner, 1)
    assert line.num_bytes == sum(map(len, stored))
