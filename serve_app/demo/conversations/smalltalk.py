"""Turns of small talk: greetings, thanks, who the model is, what it can do, and fallback answers.

Replies are few and fixed, so that a small model gets them right.
"""

from collections.abc import Collection

from serve_app.demo.conversations.demo_turn import DemoTurn
from serve_app.demo.conversations.draw import Draw
from serve_app.demo.conversations.phrasebook import Language, phrasebook

_PHRASES = phrasebook("smalltalk")


def topic_turn(draw: Draw, language: Language) -> DemoTurn:
    """A turn of small talk."""
    topics = _PHRASES[language]["topics"]
    topic = topics[draw.choice(tuple(topics))]
    return DemoTurn(draw.choice(topic["users"]), topic["thoughts"], draw.choice(topic["replies"]))


def ability_turn(draw: Draw, language: Language, enabled: Collection[str]) -> DemoTurn:
    """The user asks what the model can do; the reply lists the plugins that are on."""
    user = draw.choice(_PHRASES[language]["ability_asks"])
    on = [text for name, text in _PHRASES[language]["abilities"].items() if name in enabled]
    if language == "zh":
        reply = "我会聊天，会记住你说过的话" + "".join(f"，会{text}" for text in on) + "。"
        return DemoTurn(user, "用户问我会什么。", reply)
    *others, last = ["chat", "remember what you tell me", *on]
    reply = f"I can {', '.join(others)} and {last}."
    return DemoTurn(user, "The user asks what I can do.", reply)
