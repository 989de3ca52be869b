"""Generated conversations: reproducible, consistent with the plugins, disjoint from the exam."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from moss_tp.finetune.conversation import parse_conversation
from plugins_svc.calculator.evaluator import evaluate
from plugins_svc.equation_solver.plugin import EquationSolver
from plugins_svc.protocol.calls import parse_commands
from plugins_svc.registry import PLUGIN_NAMES, capability_lines
from serve_app.demo.conversations.draw import Draw, is_held_out
from serve_app.demo.conversations.equations import equation_turn
from serve_app.demo.conversations.generator import conversations, write_conversations
from serve_app.demo.conversations.memory import KINDS, value_of
from serve_app.demo.conversations.phrasebook import LANGUAGES, phrasebook
from serve_app.demo.conversations.repeats import repeat_turn
from serve_app.demo.exam import arithmetic_questions

COUNT = 400


@pytest.fixture(scope="module")
def training() -> list[dict[str, Any]]:
    return list(conversations(COUNT, seed=0))


def segments(made: list[dict[str, Any]], role: str) -> list[str]:
    turns = [turn for chat in map(parse_conversation, made) for turn in chat.turns]
    return [segment.body for turn in turns for segment in turn if segment.role == role]


def test_a_seed_determines_the_conversations(
    training: list[dict[str, Any]], tmp_path: Path
) -> None:
    write_conversations(tmp_path / "a.jsonl", 50, seed=0)
    lines = (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == training[:50]
    assert list(conversations(50, seed=1)) != training[:50]


def test_every_conversation_lists_its_plugins(training: list[dict[str, Any]]) -> None:
    for chat in training:
        instruction = chat["meta_instruction"]
        enabled = [name for name in PLUGIN_NAMES if _is_listed(instruction, name)]
        assert instruction.endswith(capability_lines(enabled))


def _is_listed(instruction: str, name: str) -> bool:
    return capability_lines([name]).splitlines()[PLUGIN_NAMES.index(name) + 1] in instruction


def test_only_enabled_plugins_are_called(training: list[dict[str, Any]]) -> None:
    calls = 0
    for chat in training:
        for turn in chat["chat"].values():
            for call in parse_commands(turn["Commands"]):
                assert _is_listed(chat["meta_instruction"], call.plugin)
                calls += 1
    assert calls > COUNT / 4


def test_both_languages_and_every_plugin_occur(training: list[dict[str, Any]]) -> None:
    commands = " ".join(segments(training, "commands"))
    assert all(f'{name}("' in commands for name in ("Calculate", "Solve", "Search", "Text2Image"))
    users = segments(training, "human")
    chinese = sum(bool(re.search(r"[\u4e00-\u9fff]", user)) for user in users)
    assert 0.3 < chinese / len(users) < 0.7


def test_sums_in_replies_are_right(training: list[dict[str, Any]]) -> None:
    checked = 0
    for reply in segments(training, "moss"):
        if match := re.fullmatch(r" ([-+*/().\d]+) = (\S+)", reply):
            assert float(match[2]) == evaluate(match[1])
            checked += 1
    assert checked > 10


def test_training_never_contains_a_held_out_sum(training: list[dict[str, Any]]) -> None:
    expressions = re.findall(r'Calculate\("([^"]*)"\)<', json.dumps(training).replace("\\", ""))
    assert expressions
    assert not any(map(is_held_out, expressions))


def test_held_out_conversations_contain_no_other_sums() -> None:
    made = list(conversations(100, seed=0, held_out=True))
    calls = [call for body in segments(made, "commands") for call in parse_commands(body)]
    sums = [call.argument for call in calls if call.name == "Calculate"]
    assert sums
    assert all(map(is_held_out, sums))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_facts_of_training_and_exam_are_disjoint(kind: str, language: str) -> None:
    training, exam = Draw(0), Draw(0, held_out=True)
    seen = {value_of(training, language, kind) for _ in range(300)}
    held_out = {value_of(exam, language, kind) for _ in range(100)}
    assert not seen & held_out


def test_the_exam_asks_held_out_sums_and_is_reproducible() -> None:
    questions = arithmetic_questions(60, seed=0)
    assert questions == arithmetic_questions(60, seed=0)
    assert questions != arithmetic_questions(60, seed=1)
    plain = [re.fullmatch(r"\D*?(\d+) ?([-+*/]) ?(\d+)\D*", q.users[0]) for q in questions]
    sums = ["".join(match.groups()) for match in plain if match]
    assert len(sums) > 5
    assert all(map(is_held_out, sums))


def test_phrasings_of_training_and_exam_are_disjoint() -> None:
    held_out, memory = phrasebook("held_out"), phrasebook("memory")
    for language in ("zh", "en"):
        sums, exam = phrasebook("arithmetic")[language], held_out[language]
        assert not set(sums["frames"]) & set(exam["frames"])
        for kind, orders in exam["orders"].items():
            assert not set(sums["orders"][kind]) & set(orders)
        for kind in exam["tells"]:
            known = memory[language]["attributes"][kind]
            assert not set(known["tells"]) & set(exam["tells"][kind])
            assert not set(known["asks"]) & set(exam["asks"][kind])
        topics = phrasebook("smalltalk")[language]["topics"].values()
        users = {user for topic in topics for user in topic["users"]}
        assert not users & set(exam["fillers"])


def test_no_training_message_matches_an_exam_phrasing(training: list[dict[str, Any]]) -> None:
    phrases = [
        phrase for language in LANGUAGES for phrase in _phrases(phrasebook("held_out")[language])
    ]
    exam = re.compile("|".join(map(_pattern, phrases)))
    assert exam.fullmatch("劳驾计算1+2，谢谢")
    users = {user.strip() for user in segments(training, "human")}
    assert not [user for user in users if exam.fullmatch(user)]


def _phrases(table: Any) -> list[str]:
    """All phrases in nested tables."""
    if isinstance(table, str):
        return [table]
    values = table.values() if isinstance(table, dict) else table
    return [phrase for value in values for phrase in _phrases(value)]


def _pattern(phrase: str) -> str:
    """A regex that matches any value in the placeholders, but no second clause."""
    return re.sub(r"\\\{\w\\\}", "[^，。]+", re.escape(phrase))


def test_a_short_chat_is_one_request_or_a_fact_and_questions() -> None:
    single = ["Calculate("]
    for name in LANGUAGES:
        single.append(phrasebook("repeats")[name]["thoughts"])
        single.extend(phrasebook("equations")[name]["thoughts"].values())
        for kind in ("search", "picture"):
            single.extend(phrasebook("lookups")[name][kind]["thoughts"].values())
    for chat in conversations(60, seed=0, short_share=1):
        text = json.dumps(chat["chat"], ensure_ascii=False)
        is_single = any(sign in text for sign in single)
        assert chat["num_turns"] in ({1} if is_single else {2, 3})


def test_a_repeat_turn_repeats_the_request() -> None:
    """The reply ends with words of the request, and no two turns are the same."""
    draw = Draw(7)
    turns = [repeat_turn(draw, language) for language in LANGUAGES for _ in range(50)]
    said = [turn.reply.removeprefix("好的：") for turn in turns]
    assert all(text and text in turn.user for turn, text in zip(turns, said, strict=True))
    assert len(set(said)) == len(said)


def test_equations_have_the_roots_that_the_solver_finds() -> None:
    asyncio.run(_check_equations())


async def _check_equations() -> None:
    solver, draw = EquationSolver(1), Draw(5)
    try:
        for _ in range(25):
            (call, output), *_ = equation_turn(draw, "en", is_enabled=True).outcomes
            assert (await solver.run(call.argument)).lines == output.lines
    finally:
        solver.close()
