"""A directory becomes an index: what is read, what is left out, and what the operator is told."""

import asyncio
import errno
import logging
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from plugins_svc.sdk.errors import PluginError
from plugins_svc.web_search import indexing
from plugins_svc.web_search.documents import LeaveOut
from plugins_svc.web_search.indexing import Indexing
from plugins_svc.web_search.markup import Readable
from plugins_svc.web_search.plugin import WebSearch
from plugins_svc.web_search.reader_process import ReaderProcess
from plugins_svc.web_search.search_index import SearchIndex
from tests.plugins_svc.web_search.pdf_files import pdf

WALL = "万里长城全长约两万一千公里。"


async def found(directory: Path, query: str) -> tuple[list[str], str]:
    """The files that match, and the line for the operator."""
    plugin = WebSearch(directory)
    line = await plugin.ready()
    urls = [item.url for item in (await plugin.run(query)).items]
    plugin.close()
    return sorted(urls), line


async def test_documents_of_every_kind_and_encoding(tmp_path: Path) -> None:
    for encoding in ("gbk", "utf-16"):
        (tmp_path / f"{encoding}.txt").write_bytes(WALL.encode(encoding))
    assert (await found(tmp_path, "长城"))[0] == ["gbk.txt", "utf-16.txt"]
    (tmp_path / "a.html").write_text("<title>Drinks</title><p>About tea.", "utf-8")
    (tmp_path / "a.pdf").write_bytes(pdf("Hot tea.", title="Cups"))
    (tmp_path / "mark.md").write_text("# Leaves\n\nGreen *tea*.", "utf-8-sig")
    urls, line = await found(tmp_path, "tea")
    assert urls == ["a.html", "a.pdf", "mark.md"]
    assert (await found(tmp_path, "cups"))[0] == ["a.pdf"], "a title is searched too"
    assert line == f"web search: 5 documents (5 passages) in {tmp_path}; read as gb18030: gbk.txt"


async def test_the_end_of_a_large_file_is_found(tmp_path: Path) -> None:
    lines = "".join(f"filler {n:05} of the big file.\n" for n in range(300_000))
    (tmp_path / "big.txt").write_text(f"starting\n{lines}finish", "utf-8")
    plugin = WebSearch(tmp_path)
    await plugin.ready()
    for word in ("starting", "finish", "150000"):
        assert (await plugin.run(word)).items[0].url == "big.txt"
    plugin.close()


async def test_everything_left_out_is_told(tmp_path: Path) -> None:
    documents = tmp_path / "documents"
    (documents / ".git").mkdir(parents=True)
    (documents / ".git" / "note.txt").write_text("secret")
    (documents / "loop").symlink_to(documents)
    (documents / "link.txt").symlink_to(tmp_path / "outside.txt")
    (documents / "broken.md").symlink_to("nowhere.md")
    (documents / "empty.txt").write_text(" \n")
    (documents / "scan.pdf").write_bytes(pdf(" "))
    (documents / "data.txt").write_bytes(b"\x7fELF\2\1\1" + bytes(range(256)))
    (documents / "bad.pdf").write_bytes(b"%PDF-1.7 nothing")
    (documents / "folder.txt").mkdir()
    os.mkfifo(documents / "pipe.txt")
    for number in range(5):
        (documents / f"image{number}.png").write_bytes(b"png")
    (documents / "good.txt").write_text("a secret word")
    urls, line = await found(documents, "secret")
    assert urls == ["good.txt"]
    assert line == (
        f"web search: 1 documents (1 passages) in {documents}; left out: "
        "a damaged or unsupported PDF: bad.pdf; "
        "a symbolic link: broken.md, link.txt, loop; "
        "another kind of file: image0.png, image1.png, image2.png and 2 more; "
        "binary: data.txt; hidden: .git; no text: empty.txt, scan.pdf; not a file: pipe.txt"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
async def test_unreadable_files_and_folders_do_not_stop_it(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("tea")
    (tmp_path / "b.txt").write_text("tea")
    (tmp_path / "closed").mkdir(mode=0)
    (tmp_path / "a.txt").chmod(0)
    urls, line = await found(tmp_path, "tea")
    assert urls == ["b.txt"]
    assert "permission denied: a.txt, closed" in line.lower()
    (tmp_path / "closed").chmod(0o700)


async def test_a_file_that_vanishes_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("tea")
    listed = [tmp_path / "gone.txt", tmp_path / "a.txt"]
    monkeypatch.setattr(indexing, "find_documents", lambda directory, leave_out: listed)
    urls, line = await found(tmp_path, "tea")
    assert urls == ["a.txt"]
    assert line.endswith("; left out: no such file or directory: gone.txt")


async def test_names_in_other_encodings(tmp_path: Path) -> None:
    name = "长城".encode("gbk") + b".txt"
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_text("wall")
    plugin = WebSearch(tmp_path)
    await plugin.ready()
    (item,) = (await plugin.run("wall")).items
    assert (item.title, item.url) == ("长城", "长城.txt")
    assert (await plugin.run("长城")).ok
    plugin.close()


async def test_what_does_not_fit_into_the_index_is_told(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"{number}.txt").write_text("tea " * 200)
    (tmp_path / "huge.txt").write_text("tea " * 1000)
    index = SearchIndex()
    reading = Indexing(tmp_path, index, max_chars=3300)
    assert reading.wait()
    line = reading.report.line()
    assert line.startswith("4 documents (12 passages)")
    assert line.endswith("left out: the index is full: 4.txt, 5.txt, huge.txt")
    reading.close()
    reading = Indexing(tmp_path, index, max_chars=9000)
    assert reading.wait()
    assert reading.report.line().endswith("left out: too much text: huge.txt")
    reading.close()
    index.close()


def test_the_log_tells_of_gaps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        for name in ("none.png", "tea.txt"):
            caplog.clear()
            plugin = WebSearch(tmp_path)
            plugin._indexing.wait()
            plugin.close()
            (record,) = caplog.records
            assert record.levelno == (logging.WARNING if name == "none.png" else logging.INFO)
            assert record.getMessage().startswith("web search: ")
            (tmp_path / name.replace("none.png", "tea.txt")).write_text("tea")


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Two documents; the last is not read before the gate is open."""
    event = threading.Event()

    def find(directory: Path, leave_out: LeaveOut) -> Iterator[Path]:
        yield tmp_path / "a.txt"
        event.wait()
        yield tmp_path / "b.txt"

    (tmp_path / "a.txt").write_text("tea is first")
    (tmp_path / "b.txt").write_text("tea is last")
    monkeypatch.setattr(indexing, "find_documents", find)
    yield event
    event.set()


async def test_a_search_during_indexing_takes_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: threading.Event
) -> None:
    monkeypatch.setattr("plugins_svc.web_search.plugin.START_WAIT_S", 0.01)
    plugin = WebSearch(tmp_path)  # returns at once, so that a health check finds it alive
    while not (output := await plugin.run("tea")).ok:
        await asyncio.sleep(0.01)
    assert len(output.items) == 1
    assert not plugin._indexing.wait(0)
    gate.set()
    await plugin.ready()
    assert len((await plugin.run("tea")).items) == 2
    plugin.close()


async def test_searches_during_indexing_block_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: threading.Event
) -> None:
    monkeypatch.setattr("plugins_svc.web_search.plugin.START_WAIT_S", 600.0)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    plugin = WebSearch(tmp_path)
    searches = [asyncio.create_task(plugin.run("tea")) for _ in range(50)]
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await asyncio.to_thread(gate.set)
    assert [len((await search).items) for search in searches] == [2] * 50
    plugin.close()


class FailingOnce(ReaderProcess):
    """Has no process for the first file."""

    has_failed = False

    def read(self, path: Path) -> Iterator[Readable]:
        if not self.has_failed:
            self.has_failed = True
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return super().read(path)


async def test_a_file_that_cannot_be_read_now_does_not_end_indexing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "ReaderProcess", FailingOnce)
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.txt").write_text("tea")
    urls, line = await found(tmp_path, "tea")
    assert urls == ["b.txt", "c.txt"]
    assert line.endswith("; left out: not read (BlockingIOError): a.txt")


async def test_indexing_that_stopped_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(directory: Path, leave_out: LeaveOut) -> Iterator[Path]:
        yield tmp_path / "a.txt"
        raise RuntimeError("no more files")

    (tmp_path / "a.txt").write_text("tea")
    monkeypatch.setattr(indexing, "find_documents", find)
    plugin = WebSearch(tmp_path)
    assert (await plugin.ready()).startswith("web search: stopped: 1 documents")
    with pytest.raises(PluginError, match="stopped"):
        await plugin.check()
    plugin.close()


def test_closing_during_indexing_ends_it(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / f"{number}.txt").write_text("tea " * 1000)
    plugin = WebSearch(tmp_path)
    thread = plugin._indexing._thread
    plugin.close()
    assert not thread.is_alive()
    plugin.close()
