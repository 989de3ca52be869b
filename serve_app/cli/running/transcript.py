"""A chat as a file: Markdown to read, or the server's JSON."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from moss_tp.errors import MossError
from serve_app.client.citations import cited, source_lines


class SaveError(MossError):
    """The file is there already, or cannot be written."""


def save(session: Mapping[str, Any], path: Path) -> None:
    """Writes a chat of the session resource to a new file: JSON if its name ends with `.json`.

    `~` is the user's home. Raises SaveError.
    """
    if path.suffix.lower() == ".json":
        text = json.dumps(session, ensure_ascii=False, indent=2) + "\n"
    else:
        text = "\n".join(_markdown(session))
    try:
        path = path.expanduser()
        with path.open("x", encoding="utf-8", errors="replace") as file:
            file.write(text)
    except FileExistsError as error:
        raise SaveError(f"{path} is there already: choose another name") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise SaveError(f"cannot write {path}: {error}") from error


def _markdown(session: Mapping[str, Any]) -> Iterator[str]:
    yield f"# {session.get('title') or 'A chat with MOSS'}\n"
    for turn in session["turns"]:
        yield f"## Human\n\n{turn['user']}\n"
        yield f"## MOSS\n\n{cited(turn['reply'], '[{}]').strip()}\n"
        calls = turn["plugin_calls"]
        items = [i for call in calls if isinstance(call["output"], list) for i in call["output"]]
        if sources := [f"- {line}" for line in source_lines(turn["reply"], items)]:
            yield "\n".join(sources) + "\n"
