"""A short handwritten chat in MOSS's published JSON."""

from typing import Any


def published_chat() -> dict[str, Any]:
    """Two turns: a sum through the calculator, then a question without a tool."""
    return {
        "conversation_id": 7,
        "meta_instruction": "Be kind.\n",
        "num_turns": 2,
        "chat": {
            "turn_1": {
                "Human": "<|Human|>: I am Ann. 2+3?<eoh>\n",
                "Inner Thoughts": "<|Inner Thoughts|>: A sum.<eot>\n",
                "Commands": '<|Commands|>: Calculate("2+3")<eoc>\n',
                "Tool Responses": "<|Results|>:\nCalculate(\"2+3\") => '5'\n<eor>\n",
                "MOSS": "<|MOSS|>: It is 5.<eom>\n",
            },
            "turn_2": {
                "Human": "<|Human|>: My name?<eoh>\n",
                "Inner Thoughts": "<|Inner Thoughts|>: Ann.<eot>\n",
                "Commands": "<|Commands|>: None<eoc>\n",
                "Tool Responses": "<|Results|>:\nNone\n<eor>\n",
                "MOSS": "<|MOSS|>: You are Ann.<eom>\n",
            },
        },
    }
