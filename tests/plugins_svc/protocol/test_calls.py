"""Parsing Commands as models write them. All examples are hand-written look-alikes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins_svc.protocol.calls import (
    MAX_CALLS,
    Call,
    parse_commands,
    render_commands,
)
from plugins_svc.registry import SPEC_OF_CALL, SPECS

ARGUMENTS = st.text(st.characters(exclude_characters='"\n', exclude_categories=["Cs"]))
CALLS = st.lists(st.builds(Call, st.sampled_from(sorted(SPEC_OF_CALL)), ARGUMENTS))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("None", []),
        (" None.", []),
        ("Non", []),
        ("None (the user only greets)", []),
        ("None. \n\nIt follows that 3*(4+5) = 27", []),
        ("", []),
        ('Calculate("5^3")', [Call("Calculate", "5^3")]),
        (' Search("长城 长度"), None', [Call("Search", "长城 长度")]),
        ('Search("a"), Count("b")', [Call("Search", "a")]),
        ('Search("a"), \nSolve("x=1")', [Call("Search", "a"), Call("Solve", "x=1")]),
        ('Solve("x=1") \nCalculate("2")', [Call("Solve", "x=1"), Call("Calculate", "2")]),
        ('Calculate("1") , Calculate("2"),', [Call("Calculate", "1"), Call("Calculate", "2")]),
        (
            '1. Calculate("8/2")  # the radius\n2. Calculate("4**2")  # squared',
            [Call("Calculate", "8/2"), Call("Calculate", "4**2")],
        ),
        ('Solve("2x=4", "x")', []),
        (
            'Calculate("d/dx(x)") = 0, Solve("x=1")',
            [Call("Calculate", "d/dx(x)"), Call("Solve", "x=1")],
        ),
        ('ReSearch("a")', []),
        ('calculate("1")', []),
        ('Calculate("1\n2")', []),
        ('Calculate("")', [Call("Calculate", "")]),
        ('Text2Image("a red fox")', [Call("Text2Image", "a red fox")]),
    ],
)
def test_what_models_write(text: str, expected: list[Call]) -> None:
    assert parse_commands(text) == expected


def test_the_grammar_accepts_the_call_of_every_spec() -> None:
    for spec in SPECS:
        (call,) = parse_commands(f'{spec.call_name}("x")')
        assert (call.spec, call.plugin) == (spec, spec.name)


def test_calls_of_plugins_that_are_off_are_dropped() -> None:
    text = 'Search("a"), Calculate("1"), Solve("x=1")'
    assert parse_commands(text, {"calculator"}) == [Call("Calculate", "1")]
    assert parse_commands(text, ()) == []


def test_the_limit_counts_only_enabled_calls() -> None:
    text = ", ".join([*(f'Search("{i}")' for i in range(9)), 'Calculate("1")'])
    assert len(parse_commands(text)) == MAX_CALLS
    assert parse_commands(text, {"calculator"}) == [Call("Calculate", "1")]


def test_rendering() -> None:
    assert render_commands([]) == "None"
    calls = [Call("Search", "a b"), Call("Solve", "x=1;y=2")]
    assert render_commands(calls) == 'Search("a b"), Solve("x=1;y=2")'


@settings(deadline=None)  # the machine may be busy
@given(CALLS)
def test_rendered_calls_parse_back(calls: list[Call]) -> None:
    # A call inside an argument would need a quote, which no argument holds.
    assert parse_commands(render_commands(calls)) == calls[:MAX_CALLS]


@settings(deadline=None)  # the machine may be busy
@given(st.text())
def test_any_text_gives_calls_that_render_and_parse_to_themselves(text: str) -> None:
    calls = parse_commands(text)
    assert parse_commands(render_commands(calls)) == calls
    assert all(str(call) in text for call in calls)
