"""MOSS's published sample conversations, where there is a copy: we reproduce what they record."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugins_svc.calculator.evaluator import evaluate
from plugins_svc.equation_solver.solver import solve
from plugins_svc.expressions.arithmetic import ArithmeticRefusedError
from plugins_svc.protocol.calls import Call, parse_commands, render_commands
from plugins_svc.protocol.results import format_results, format_value
from plugins_svc.registry import PLUGIN_NAMES, capability_lines
from plugins_svc.sdk.output import PluginOutput
from plugins_svc.web_search.documents import Document
from plugins_svc.web_search.search_index import SearchIndex

DEFAULT = Path(__file__).parents[3] / "shared" / "sft_samples"
SAMPLES = Path(os.environ.get("MOSS_SFT_SAMPLES", DEFAULT))
pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason="no sample conversations")

STRICT = re.compile(r'\w+\("[^"]*"\)(, \w+\("[^"]*"\))*')


def turns() -> Iterator[dict[str, str]]:
    for path in sorted(SAMPLES.glob("*/*.json")):
        yield from json.loads(path.read_text("utf-8"))["chat"].values()


def body(segment: str) -> str:
    """`Calculate("1")` of `<|Commands|>: Calculate("1")<eoc>\\n`."""
    return re.sub(r"^<\|[^|]*\|>:|<eo[htcrm]>\n$", "", segment)


def test_strict_commands_parse_and_render_to_themselves() -> None:
    texts = [body(turn["Commands"]).strip() for turn in turns()]
    strict = [text for text in texts if STRICT.fullmatch(text) and text.count('("') <= 4]
    assert len(strict) > 300
    same = [render_commands(parse_commands(text)) == text for text in strict]
    assert same.count(False) <= 1  # one names a plugin that does not exist


def test_recorded_calculations() -> None:
    pattern = re.compile(r"^Calculate\(\"([^\"\n]*)\"\) => ('.*')$", re.M)
    recorded = [match for turn in turns() for match in pattern.findall(turn["Tool Responses"])]
    assert len(recorded) == 128
    wrong = [argument for argument, value in recorded if calculated(argument) != value]
    assert len(wrong) <= 1, wrong  # one multiplies a number by dollars


def calculated(argument: str) -> str:
    call = Call("Calculate", argument)
    try:
        return format_value(call, PluginOutput(True, (str(evaluate(argument)),)), str)
    except ArithmeticRefusedError:
        return format_value(call, PluginOutput.no_result(), str)


def test_recorded_solutions() -> None:
    pattern = re.compile(r'^Solve\("([^"\n]*)"\) =>\n((?:\w+ = .*\n)+)', re.M)
    recorded = [match for turn in turns() for match in pattern.findall(turn["Tool Responses"])]
    assert len(recorded) == 30
    wrong = [text for text, lines in recorded if solve(text) != lines.splitlines()]
    assert wrong == []


def test_recorded_results_are_rendered_byte_for_byte() -> None:
    """Every turn whose Results hold only calculations and solutions."""
    block = re.compile(
        r'(Calculate|Solve)\("([^"\n]*)"\) =>(?: \'(.*)\'|\n((?:\w+ = .*(?:\n|$))+))'
    )
    num_turns = 0
    for turn in turns():
        results = body(turn["Tool Responses"])
        if not re.fullmatch(rf"\n(?:{block.pattern}\n?)+", results):
            continue
        outcomes = []
        for name, argument, value, lines in block.findall(results):
            failed = value == "No result."
            values = () if failed else (value,) if value else tuple(lines.splitlines())
            outcomes.append((Call(name, argument), PluginOutput(not failed, values)))
        assert format_results(outcomes, str) == results
        num_turns += 1
    assert num_turns > 80


def test_no_command_and_image_results() -> None:
    bodies = [body(turn["Tool Responses"]) for turn in turns()]
    assert bodies.count(format_results([], str)) == 30
    image = (Call("Text2Image", "x"), PluginOutput(True, ("id",)))
    assert bodies.count(format_results([image], str)) == 50


def test_recorded_capability_lines() -> None:
    recorded = set()
    for path in SAMPLES.glob("*/*.json"):
        meta = json.loads(path.read_text("utf-8"))["meta_instruction"]
        recorded.add(meta[meta.index("- Inner thoughts") :])
    assert {capability_lines([name]) for name in PLUGIN_NAMES} < recorded


def test_search_finds_what_was_recorded() -> None:
    """hit@3 over all recorded items: measured 0.73 on this half (0.74 on the whole)."""
    items: list[str] = []
    searches: list[tuple[str, set[str]]] = []
    for turn in turns():
        for line in turn["Tool Responses"].splitlines():
            if search := re.match(r'Search\("([^"]*)"\) =>', line):
                searches.append((search[1], set()))
            elif searches and (item := re.match(r"<\|\d+\|>: .(.{1,350})", line)):
                items.append(" ".join(item[1].split()))
                searches[-1][1].add(items[-1])
    index = SearchIndex(Document("", "", item) for item in items)
    found = [(own, index.search(query, 3)) for query, own in searches if own]
    hits = sum(any(f.snippet in item for f in top for item in own) for own, top in found)
    index.close()
    assert hits / len(found) >= 0.72
