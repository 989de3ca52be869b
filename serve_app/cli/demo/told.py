"""What has come of a reply, for a page that shows all of it anew with every event."""

from dataclasses import dataclass, field

from serve_app.client.citations import cited
from serve_app.client.turn_events import Delta, Done, PluginCall, Reset, Thoughts, TurnEvent


@dataclass
class Told:
    """`text` is the reply; `asides` are titles and texts of thoughts and of calls that have ended.

    `num_tokens` is what prompt and reply had together, once the turn is done.
    """

    text: str = ""
    asides: list[tuple[str, str]] = field(default_factory=list)
    num_tokens: int = 0

    @property
    def markdown(self) -> str:
        """The reply with its pictures as links: by loading one a browser would tell its host of
        the chat."""
        return cited(self.text, "[{}]").replace("![", "[")

    def take(self, event: TurnEvent) -> None:
        match event:
            case Thoughts(text) if text.strip():
                self.asides.append(("Inner thoughts", text.strip()))
            case PluginCall(name, argument, state, output) if state != "started":
                self.asides.append((f"{name}({argument})", _text(output)))
            case Delta(piece):
                self.text += piece
            case Reset():
                self.text = ""
            case Done(turn):
                self.text = event.reply
                self.num_tokens = int(turn["usage"]["total_tokens"])


def _text(output: object) -> str:
    if isinstance(output, list):
        return "\n".join(str(item.get("title") or item["url"]) for item in output)
    return str(output or "no result")
