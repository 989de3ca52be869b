"""`moss export`: which chats and turns are written, and that fine-tuning reads them."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from moss_tp.errors import ConfigError
from moss_tp.finetune.conversation import read_conversations
from serve_app.cli.stored.export import command, good_turns
from serve_app.cli.stored.location import STORE_FOLDER
from serve_app.sessions.redis import RedisSessionStore
from serve_app.sessions.redis_catalogue import RedisSessionCatalogue
from serve_app.sessions.session import Feedback, Session, new_token
from serve_app.store.attach import attached_store
from serve_app.store.embedded import EmbeddedStore
from tests.serve_app.sessions.turns import a_lease, a_turn

LIKED, DISLIKED, BOTH = Feedback(True), Feedback(False), Feedback(None, "hm")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(each) for each in arguments], catch_exceptions=False)


async def fill(url: str, owner: str, replies: list[list[tuple[str, Feedback | None]]]) -> None:
    store, catalogue = RedisSessionStore(url), RedisSessionCatalogue(url)
    for chat in replies:
        uid, parent = new_token(), ""
        for number, (reply, feedback) in enumerate(chat):
            lease = a_lease(uid, owner)
            turn = replace(a_turn(lease.key, reply, parent), user=f"{reply}?")
            parent = (await store.commit(lease, number, turn)).id
            if feedback is not None:
                await catalogue.set_feedback(uid, owner, parent, feedback)
    await store.close()
    await catalogue.close()


CHATS: list[list[tuple[str, Feedback | None]]] = [
    [("a1", None), ("a2", LIKED), ("a3", None)],
    [("b1", BOTH), ("b2", None)],
    [("c1", LIKED), ("c2", DISLIKED), ("c3", LIKED)],
    [("d1", DISLIKED)],
]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("data")
    with EmbeddedStore(directory / STORE_FOLDER) as store:
        asyncio.run(fill(store.url, "ann", CHATS))
        asyncio.run(fill(store.url, "bob", [[("嗨\u2028 <eom>", None)]]))
    return directory


def replies(file: Path) -> list[list[str]]:
    """The replies of each chat, without markers, as fine-tuning reads them."""
    return sorted(
        [segment.body[1:] for turn in chat.turns for segment in turn if segment.role == "moss"]
        for chat in read_conversations(file)
    )


def test_all_chats_are_written_up_to_what_is_not_worth_learning(
    data_dir: Path, tmp_path: Path
) -> None:
    result = run("--out", tmp_path / "out", "--data-dir", data_dir)
    expected = [["a1", "a2", "a3"], ["b1", "b2"], ["c1"], ["嗨\u2028 <eom>"]]
    assert replies(tmp_path / "out" / "train.jsonl") == expected
    assert result.stderr == f"4 chats in {tmp_path / 'out'}, 1 left out\n"
    assert result.stdout == ""


def test_an_owners_chats_and_the_liked_ones(data_dir: Path, tmp_path: Path) -> None:
    run("--out", tmp_path / "bob", "--owner", "bob", "--data-dir", data_dir)
    assert replies(tmp_path / "bob" / "train.jsonl") == [["嗨\u2028 <eom>"]]
    run("--out", tmp_path / "liked", "--liked", "--data-dir", data_dir)
    assert replies(tmp_path / "liked" / "train.jsonl") == [["a1", "a2"], ["c1"]]


def test_where_nothing_is_to_be_written_the_command_fails_and_can_be_given_again(
    data_dir: Path, tmp_path: Path
) -> None:
    flags = ("--out", tmp_path, "--data-dir", data_dir)
    with pytest.raises(ConfigError, match="no chats of 'bbo': nothing was written; moss keys list"):
        run(*flags, "--owner", "bbo")
    with pytest.raises(ConfigError, match="none of the 1 chats of 'bob' has a liked turn"):
        run(*flags, "--owner", "bob", "--liked")
    assert list(tmp_path.iterdir()) == []
    run(*flags, "--owner", "bob")
    assert replies(tmp_path / "train.jsonl") == [["嗨\u2028 <eom>"]]


def test_no_uid_and_no_owner_is_written(data_dir: Path, tmp_path: Path) -> None:
    run("--out", tmp_path / "out", "--data-dir", data_dir)
    line: dict[str, Any] = json.loads(
        (tmp_path / "out" / "train.jsonl").read_text("utf-8").split("\n")[0]
    )
    assert set(line) == {"conversation_id", "meta_instruction", "num_turns", "chat"}
    assert isinstance(line["conversation_id"], int)


def test_beside_a_server_that_runs(data_dir: Path, tmp_path: Path) -> None:
    with attached_store(data_dir / STORE_FOLDER) as url:
        run("--out", tmp_path / "out", "--data-dir", data_dir)
        run("--out", tmp_path / "by_url", "--store", url)
    written = [(tmp_path / name / "train.jsonl").read_bytes() for name in ("out", "by_url")]
    assert sorted(written[0].splitlines()) == sorted(written[1].splitlines()) != []


def test_some_chats_are_held_out_the_same_ones_each_time(data_dir: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        run("--out", tmp_path / name, "--val-share", "0.5", "--data-dir", data_dir)
    one, two = (
        [replies(tmp_path / n / f) for f in ("train.jsonl", "val.jsonl")] for n in ("one", "two")
    )
    assert one == two and sum(map(len, one)) == 4
    run("--out", tmp_path / "all", "--val-share", "1", "--data-dir", data_dir)
    assert len(replies(tmp_path / "all" / "val.jsonl")) == 4


def test_files_that_are_there_are_kept(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        run("--out", tmp_path, "--data-dir", data_dir)
    assert (tmp_path / "train.jsonl").read_text() == "mine"
    with pytest.raises(ConfigError, match="no store in"):
        run("--out", tmp_path / "new", "--data-dir", tmp_path)


@pytest.mark.parametrize("reason", ["length", "cancelled"])
def test_a_reply_that_was_cut_off_is_not_learnt(reason: Any) -> None:
    turns = [
        replace(a_turn(reply=f"{n}"), finish_reason=reason if n == 2 else "stop") for n in range(4)
    ]
    session = Session("", "ann", tuple(turns), tuple(turns), feedback={turns[3].id: LIKED})
    assert good_turns(session, only_liked=False) == turns[:2]
    assert good_turns(session, only_liked=True) == []
