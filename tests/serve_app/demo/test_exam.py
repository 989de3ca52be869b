"""Questions and the grading of their answers."""

import pytest

from serve_app.demo.conversations.draw import is_held_out
from serve_app.demo.exam import (
    Question,
    arithmetic_questions,
    lookup_questions,
    memory_questions,
)
from serve_app.prompt.exchange import Exchange


def turn(reply: str = "", commands: str = "None") -> Exchange:
    return Exchange("user", "thoughts", commands, "results", reply)


@pytest.mark.parametrize(
    ("reply", "is_right"),
    [
        ("12*34 = 408", True),
        ("答案是 408。", True),
        ("The answer is 408.0", True),
        ("408 = 12*34", False),
        ("It is 4080", False),
        ("No number", False),
        ("", False),
    ],
)
def test_the_last_number_of_the_reply_counts(reply: str, is_right: bool) -> None:
    assert Question(("12*34",), "408", "number").is_answered_by(turn(reply)) is is_right


def test_fractions_are_compared_to_nine_digits() -> None:
    question = Question(("10/3",), "3.3333333333333335", "number")
    assert question.is_answered_by(turn("10/3 = 3.33333333333"))
    assert not question.is_answered_by(turn("10/3 = 3.3333"))
    assert not question.is_answered_by(turn("10/3 = 33.33333333333333"))


def test_a_negative_number_needs_its_sign() -> None:
    question = Question(("3-10",), "-7", "number")
    assert question.is_answered_by(turn("3-10 = -7"))
    assert not question.is_answered_by(turn("It is 7"))


def test_a_fact_must_occur_in_the_reply() -> None:
    question = Question(("I am Ann", "Hi", "Who am I?"), "Ann", "fact")
    assert question.is_answered_by(turn("Your name is Ann."))
    assert not question.is_answered_by(turn("You have not told me yet."))


def test_questions_alternate_between_languages() -> None:
    users = [question.users[0] for question in arithmetic_questions(40, seed=1)]
    assert any("多少" in user or "计算" in user for user in users[::2])
    assert all(user.isascii() or set(user) & set("×÷＋−－") for user in users[1::2])


def test_a_fact_is_asked_for_two_turns_later() -> None:
    for question in memory_questions(40, seed=1):
        told, _, asked = question.users
        assert question.expected in told
        assert question.expected not in asked


def test_lookups_are_graded_by_their_command() -> None:
    questions = lookup_questions(40, seed=1)
    assert {question.expected.split("(")[0] for question in questions} == {"Search", "Text2Image"}
    for question in questions:
        topic = question.expected.split('"')[1]
        assert topic in question.users[0]
        assert is_held_out(topic) or is_held_out(f"picture{topic}")
        assert question.is_answered_by(turn(commands=question.expected))
        assert not question.is_answered_by(turn(reply=question.expected))
