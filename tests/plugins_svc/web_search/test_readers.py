"""Reading files of each kind, and the process that does it."""

import io
import os
import signal
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pypdf import PdfReader, PdfWriter

from plugins_svc.web_search import reader_process
from plugins_svc.web_search.encodings import UnreadableError
from plugins_svc.web_search.markup import Readable
from plugins_svc.web_search.reader_process import ReaderProcess
from plugins_svc.web_search.reader_worker import MEMORY_BYTES
from plugins_svc.web_search.readers import MAX_PARSED_BYTES, read_file
from tests.plugins_svc.web_search.pdf_files import pdf


@pytest.fixture
def process() -> Iterator[ReaderProcess]:
    process = ReaderProcess()
    yield process
    process.close()


def read(path: Path, data: bytes) -> tuple[str, str]:
    path.write_bytes(data)
    parts = list(read_file(path))
    return parts[0].title, " ".join("".join(part.text + " " for part in parts).split())


def test_each_kind(tmp_path: Path) -> None:
    assert read(tmp_path / "a.txt", "你好".encode("gbk")) == ("", "你好")
    assert read(tmp_path / "a.MD", b"# Tea\n\nA *drink*.") == ("Tea", "Tea A drink.")
    assert read(tmp_path / "a.htm", b"<title>Tea</title><p>A drink.") == ("Tea", "A drink.")
    assert read(tmp_path / "a.pdf", pdf("A drink.", "Hot.", title="Tea")) == (
        "Tea",
        "A drink. Hot.",
    )
    assert read(tmp_path / "b.txt", pdf("A drink.")) == ("", "A drink."), "whatever its name"


@pytest.mark.parametrize(
    "head", ['<meta charset="gb2312">', '<?xml version="1.0" encoding="GBK"?>']
)
def test_html_may_declare_its_encoding(tmp_path: Path, head: str) -> None:
    text = "茶"  # too short to guess
    assert read(tmp_path / "a.html", f"{head}<p>{text}".encode("gbk"))[1].endswith(text)


def test_a_wrong_declaration_does_not_spoil_utf_8(tmp_path: Path) -> None:
    assert read(tmp_path / "a.html", '<meta charset="gbk"><p>茶'.encode())[1] == "茶"
    for name in ("nonsense", "utf-8", "utf-16", "rot13", "hex", "undefined", "idna", "punycode"):
        data = f'<meta charset="{name}"><p>万里长城全长约两万一千公里。'.encode("gbk")
        assert read(tmp_path / "a.html", data)[1] == "万里长城全长约两万一千公里。"


@pytest.mark.parametrize("name", ["iso-8859-1", "Latin1", "us-ascii"])
def test_western_html_is_read_as_browsers_do(tmp_path: Path, name: str) -> None:
    data = f'<meta charset="{name}"><p>“5 €” – café'.encode("cp1252")
    assert read(tmp_path / "a.html", data)[1] == "“5 €” – café"


def test_markdown_that_is_too_large_to_parse_is_plain_text(tmp_path: Path) -> None:
    text = b"# Tea\n" + b"word *word*\n" * (MAX_PARSED_BYTES // 12) + b"end"
    assert read(tmp_path / "a.md", text) == ("", " ".join(text.decode().split()))


def encrypted(password: str) -> bytes:
    writer = PdfWriter(PdfReader(io.BytesIO(pdf("A secret."))))
    writer.encrypt(password, "owner", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def test_pdfs_that_cannot_be_read(tmp_path: Path, process: ReaderProcess) -> None:
    bomb = zlib.compress(b" " * 10**9)
    for data, reason in (
        (encrypted("word"), "encrypted"),
        (pdf("A drink.")[:200], "a damaged or unsupported PDF"),
        (b"no PDF at all", "a damaged or unsupported PDF"),
        (pdf("x", filtered=bomb), "."),
    ):
        (tmp_path / "a.pdf").write_bytes(data)
        with pytest.raises(UnreadableError, match=reason):
            list(process.read(tmp_path / "a.pdf"))
    (tmp_path / "a.pdf").write_bytes(encrypted(""))
    assert list(process.read(tmp_path / "a.pdf")) == [Readable("", "A secret.")]


def test_defence_the_process_is_limited(tmp_path: Path, process: ReaderProcess) -> None:
    (tmp_path / "a.txt").write_text("tea")
    assert list(process.read(tmp_path / "a.txt")) == [Readable("", "tea"), Readable("", "")]
    running = process._process
    assert running is not None
    limits = Path(f"/proc/{running.pid}/limits").read_text("ascii")
    rows = {row[:25].strip(): row[25:].split()[0] for row in limits.splitlines()}
    assert rows["Max address space"] == str(MEMORY_BYTES)
    assert rows["Max file size"] == rows["Max core file size"] == "0"
    environment = Path(f"/proc/{running.pid}/environ").read_bytes()
    assert [item.split(b"=")[0] for item in environment.split(b"\0") if item] == [b"PYTHONPATH"]
    process.close()
    assert not Path(f"/proc/{running.pid}").exists()


def kill(process: ReaderProcess) -> None:
    running = process._process
    assert running is not None
    running.kill()
    running.wait()


def test_a_process_that_died_between_two_files_costs_none(
    tmp_path: Path, process: ReaderProcess
) -> None:
    (tmp_path / "a.txt").write_text("tea")
    for _ in range(2):
        assert list(process.read(tmp_path / "a.txt")) == [Readable("", "tea"), Readable("", "")]
        kill(process)


def test_the_time_of_the_consumer_does_not_count(tmp_path: Path) -> None:
    process = ReaderProcess(timeout_s=600.0)
    (tmp_path / "a.pdf").write_bytes(pdf("one", "two", "three"))
    timers = []
    for _ in process.read(tmp_path / "a.pdf"):
        timers += [t for t in threading.enumerate() if isinstance(t, threading.Timer)]
    assert not [timer for timer in timers if not timer.finished.is_set()]
    process.close()


def test_why_a_worker_cannot_start_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, process: ReaderProcess
) -> None:
    (tmp_path / "a.txt").write_text("tea")
    command = [sys.executable, "-P", "-s", "-m", "no_such_module"]
    monkeypatch.setattr(reader_process, "_COMMAND", command)
    with pytest.raises(UnreadableError, match=r"breaks its reader \(.*no_such_module"):
        list(process.read(tmp_path / "a.txt"))


def test_defence_a_file_that_hangs_or_kills_its_reader_is_left_out(tmp_path: Path) -> None:
    process = ReaderProcess(timeout_s=0.5)
    os.mkfifo(tmp_path / "fifo.txt")
    (tmp_path / "a.txt").write_text("tea")
    with pytest.raises(UnreadableError, match="takes too long"):
        list(process.read(tmp_path / "fifo.txt"))
    process.close()
    process = ReaderProcess()
    (tmp_path / "a.pdf").write_bytes(pdf(*["tea"] * 3000))
    parts = process.read(tmp_path / "a.pdf")
    assert next(parts) == Readable("", "tea")
    kill(process)
    with pytest.raises(UnreadableError, match=r"^breaks its reader$"):
        list(parts)
    assert list(process.read(tmp_path / "a.txt")) == [Readable("", "tea"), Readable("", "")]
    process.close()
    with pytest.raises(UnreadableError, match="closed"):
        list(process.read(tmp_path / "a.txt"))


def test_a_reader_that_stops_early_leaves_nothing_for_the_next_file(
    tmp_path: Path, process: ReaderProcess
) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf("one", "two", "three"))
    (tmp_path / "b.txt").write_text("tea")
    parts = process.read(tmp_path / "a.pdf")
    assert next(parts) == Readable("", "one")
    del parts
    assert list(process.read(tmp_path / "b.txt")) == [Readable("", "tea"), Readable("", "")]


def test_defence_memory_and_cpu_are_bounded() -> None:
    module = "plugins_svc.web_search.reader_worker"
    memory = f"import {module} as worker\nworker.limit_process(); bytearray(2**31)"
    done = subprocess.run([sys.executable, "-c", memory], capture_output=True, check=False)
    assert b"MemoryError" in done.stderr
    cpu = f"import {module} as worker\nworker.CPU_SECONDS = 0; worker.limit_cpu()\nwhile True: pass"
    done = subprocess.run([sys.executable, "-c", cpu], capture_output=True, check=False)
    assert done.returncode == -signal.SIGXCPU


def test_the_worker_answers_a_line_with_lines_and_ends_with_its_input(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("tea")
    paths = f'"{tmp_path}/a.txt"\n"{tmp_path}/none.txt"\n"{tmp_path}/a.zip"\n'.encode()
    (tmp_path / "a.zip").write_bytes(b"PK\3\4")
    command = [sys.executable, "-m", "plugins_svc.web_search.reader_worker"]
    done = subprocess.run(command, input=paths, capture_output=True, check=True)
    assert done.stdout.decode().splitlines() == [
        '["", "tea", ""]',
        '["", "", ""]',
        '[""]',
        '["no such file or directory"]',
        '["binary"]',
    ]
