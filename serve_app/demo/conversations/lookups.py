"""Turns in which the user asks for a web search or for a picture.

Search results are invented. The model is to learn to copy the topic into `Search("…")` and the
first sentence of the first item into the reply, with its citation.
"""

from collections.abc import Sequence

from plugins_svc.protocol.calls import Call
from plugins_svc.sdk.output import Item, PluginOutput
from serve_app.demo.conversations.demo_turn import DemoTurn
from serve_app.demo.conversations.draw import Draw
from serve_app.demo.conversations.lexicon import WORD_KINDS, made_up, made_up_word, person, word
from serve_app.demo.conversations.manners import with_extra_words, with_opener_and_closer
from serve_app.demo.conversations.phrasebook import Language, phrasebook

_PHRASES = phrasebook("lookups")


def search_turn(draw: Draw, language: Language, is_enabled: bool) -> DemoTurn:
    """The user asks about a topic; the reply cites a search result, or says that there is none."""
    phrases = _PHRASES[language]["search"]
    topic = topic_of(draw, language)
    user = _request(draw, language, phrases["asks"], t=topic)
    thoughts = phrases["thoughts"]["enabled" if is_enabled else "disabled"]
    if not is_enabled:
        return DemoTurn(user, thoughts, phrases["refusal"])
    call = Call("Search", topic)
    if draw.chance(0.1):
        return DemoTurn(user, thoughts, phrases["nothing"], ((call, PluginOutput.no_result()),))
    items = [_snippet(draw, language, topic) for _ in range(draw.integer(1, 3))]
    reply = phrases["found"].format(s=items[0][0])
    joint = " " if language == "en" else ""
    found = tuple(Item(topic, "", joint.join(item)) for item in items)
    return DemoTurn(user, thoughts, reply, ((call, PluginOutput(True, items=found)),))


def picture_turn(draw: Draw, language: Language, is_enabled: bool) -> DemoTurn:
    """The user asks for a picture."""
    phrases = _PHRASES[language]["picture"]
    picture = picture_of(draw, language)
    user = _request(draw, language, phrases["asks"], d=picture)
    thoughts = phrases["thoughts"]["enabled" if is_enabled else "disabled"]
    if not is_enabled:
        return DemoTurn(user, thoughts, phrases["refusal"])
    outcome = (Call("Text2Image", picture), PluginOutput(True, ("image",)))
    return DemoTurn(user, thoughts, phrases["drawn"].format(d=picture), (outcome,))


def _request(draw: Draw, language: Language, asks: Sequence[str], **values: str) -> str:
    template = with_extra_words(draw, language, draw.choice(asks))
    return with_opener_and_closer(
        draw, language, template.format(**values, n=made_up_word(draw).lower())
    )


def topic_of(draw: Draw, language: Language) -> str:
    """Something to search for; held out if and only if `draw` is."""
    return draw.fresh(lambda: _topic(draw, language))


def picture_of(draw: Draw, language: Language) -> str:
    """Something to draw; held out if and only if `draw` is."""
    return draw.fresh(lambda: _picture(draw, language), "picture")


def _picture(draw: Draw, language: Language) -> str:
    phrases = _PHRASES[language]["picture"]
    colour, city = word(draw, "colour", language), word(draw, "city", language)
    first, second = word(draw, "pet", language), word(draw, "pet", language)
    food, thing = word(draw, "food", language), draw.phrase(phrases["things"])
    scene = draw.phrase(phrases["scenes"])
    return scene.format(a=first, a2=second, c=city, f=food, x=thing, y=colour)


def _topic(draw: Draw, language: Language) -> str:
    if draw.chance(0.4):
        return str(draw.choice(_PHRASES[language]["search"]["topics"]))
    if draw.chance(0.2):
        return person(draw, language)
    joint = "" if language == "zh" else " "
    return joint.join(_piece(draw, language) for _ in range(draw.integer(1, 3)))


def _piece(draw: Draw, language: Language) -> str:
    if draw.chance(0.5):
        return made_up(draw, language)
    return word(draw, draw.choice(WORD_KINDS), language)


def _snippet(draw: Draw, language: Language, topic: str) -> list[str]:
    """One to three sentences, the first about the topic."""
    return [_sentence(draw, language, topic) for _ in range(draw.weighted({1: 5, 2: 3, 3: 1}))]


def _sentence(draw: Draw, language: Language, topic: str) -> str:
    phrases = _PHRASES[language]["search"]
    gap = "" if language == "zh" else " "
    text = draw.phrase(phrases["sentences"]) + gap + draw.phrase(phrases["endings"])
    kind = draw.choice(WORD_KINDS)
    return text.format(
        t=topic,
        c=word(draw, "city", language),
        w=word(draw, kind, language, share_made_up=0.4),
        p=person(draw, language),
        n=draw.integer(2, 9999),
    )
