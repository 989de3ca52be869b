"""What counts as a right answer."""

import pytest

from serve_app.demo.exam import Question, arithmetic_questions, memory_questions


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
def test_the_last_number_counts(reply: str, is_right: bool) -> None:
    assert Question(("12*34",), "408", is_number=True).is_answered_by(reply) is is_right


def test_long_fractions_may_differ_beyond_nine_digits() -> None:
    question = Question(("10/3",), "3.3333333333333335", is_number=True)
    assert question.is_answered_by("10/3 = 3.33333333333")
    assert not question.is_answered_by("10/3 = 3.3333")
    assert not question.is_answered_by("10/3 = 33.33333333333333")


def test_a_negative_number_needs_its_sign() -> None:
    question = Question(("3-10",), "-7", is_number=True)
    assert question.is_answered_by("3-10 = -7")
    assert not question.is_answered_by("It is 7")


def test_a_fact_must_stand_in_the_reply() -> None:
    question = Question(("I am Ann", "Hi", "Who am I?"), "Ann", is_number=False)
    assert question.is_answered_by("Your name is Ann.")
    assert not question.is_answered_by("You have not told me yet.")


def test_questions_take_turns_in_both_languages() -> None:
    users = [question.users[0] for question in arithmetic_questions(40, seed=1)]
    assert any("多少" in user or "计算" in user for user in users[::2])
    assert all(user.isascii() or set(user) & set("×÷＋−－") for user in users[1::2])


def test_memory_is_asked_for_two_turns_later() -> None:
    for question in memory_questions(40, seed=1):
        told, _, asked = question.users
        assert question.expected in told
        assert question.expected not in asked
