"""Turns in which the user tells a fact about themselves, and turns that ask for it later.

`Facts` holds what the user has told so far; a question about anything else is answered with "you
have not told me". Phrasings reserved for the evaluation are in phrases/held_out.toml.
"""

from dataclasses import dataclass, field

from serve_app.demo.conversations.demo_turn import DemoTurn
from serve_app.demo.conversations.draw import Draw
from serve_app.demo.conversations.lexicon import made_up_word, person, word
from serve_app.demo.conversations.manners import (
    with_extra_words,
    with_opener,
    with_opener_and_closer,
)
from serve_app.demo.conversations.phrasebook import Language, phrasebook


@dataclass
class Facts:
    """The values that the user has told in this chat, by attribute."""

    values: dict[str, str] = field(default_factory=dict)


_PHRASES = phrasebook("memory")
KINDS: tuple[str, ...] = tuple(_PHRASES["zh"]["attributes"])
_PEOPLE = {"name", "pet_name", "friend", "sister"}


def value_of(draw: Draw, language: Language, kind: str) -> str:
    """A value of the attribute; held out if and only if `draw` is."""
    if kind in _PEOPLE:
        return person(draw, language, kind)
    if kind == "age":
        return draw.fresh(lambda: str(draw.integer(5, 99)), kind)
    if kind == "number":
        return draw.fresh(lambda: str(draw.integer(1, 9999)), kind)
    # The model cannot copy tokens that it has never seen, so training shows words of all kinds
    # here: a word held out as one kind occurs as another.
    return word(draw, kind, language, other_kinds=0 if draw.held_out else 0.5)


def tell_turn(draw: Draw, language: Language, facts: Facts) -> DemoTurn:
    """The user tells one fact, sometimes two, which are added to `facts`.

    The thoughts state what to remember in the words of a later recall.
    """
    phrases = _PHRASES[language]
    gap, joint = ("", "，") if language == "zh" else (" ", ". ")
    user, recall, kind, value = _new_fact(draw, language, facts)
    reply = draw.phrase(phrases["name_acks"] if kind == "name" else phrases["acks"])
    reply = reply.format(v=value, r=recall)
    if draw.chance(0.25):
        second_user, second_recall, _, _ = _new_fact(draw, language, facts)
        user = user.rstrip("。.") + joint + second_user
        recall, reply = recall + gap + second_recall, reply + gap + second_recall
    thoughts = phrases["thoughts"]["tell"].format(r=recall)
    return DemoTurn(with_opener(draw, language, user), thoughts, reply)


def ask_turn(draw: Draw, language: Language, facts: Facts) -> DemoTurn:
    """The user asks for a fact, told or not."""
    is_told = bool(facts.values) and draw.chance(0.9)
    kind = draw.choice(tuple(facts.values) if is_told else KINDS)
    question = with_extra_words(draw, language, draw.choice(_attribute(language, kind)["asks"]))
    question = with_opener_and_closer(draw, language, question)
    thoughts = _PHRASES[language]["thoughts"]
    if kind not in facts.values:
        return DemoTurn(question, thoughts["unknown"], draw.choice(_PHRASES[language]["unknown"]))
    recalls = [text.format(v=facts.values[kind]) for text in _attribute(language, kind)["recalls"]]
    return DemoTurn(question, thoughts["recall"].format(r=recalls[0]), draw.choice(recalls))


def _new_fact(draw: Draw, language: Language, facts: Facts) -> tuple[str, str, str, str]:
    """Adds a fact; returns the user's words, the words that recall it, its kind and its value."""
    kind = draw.choice([kind for kind in KINDS if kind not in facts.values] or KINDS)
    value = facts.values[kind] = value_of(draw, language, kind)
    attribute = _attribute(language, kind)
    template = with_extra_words(draw, language, draw.choice(attribute["tells"]))
    user = template.format(v=value, n=made_up_word(draw).lower())
    return user, attribute["recalls"][0].format(v=value), kind, value


def _attribute(language: Language, kind: str) -> dict[str, list[str]]:
    attribute: dict[str, list[str]] = _PHRASES[language]["attributes"][kind]
    return attribute
