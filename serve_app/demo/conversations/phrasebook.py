"""The phrases of the demo conversations: TOML tables in `demo/phrases/`, read once."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

LANGUAGES = ("zh", "en")
Language = str  # one of LANGUAGES


@cache
def phrasebook(name: str) -> dict[str, Any]:
    """The tables of `phrases/<name>.toml`; arrays are lists of str."""
    text = (files("serve_app.demo") / "phrases" / f"{name}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
