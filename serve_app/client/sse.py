"""Reads a stream of server-sent events: bytes in, as they come from the network, events out.

A line ends with LF, CR LF or CR and with nothing else: U+2028 and its like are text. The bytes may
be cut anywhere, also inside a character. The rules are those of WHATWG HTML, section 9.2.6. It
opens no connection and does not know what the data means.
"""

import codecs
import re
from dataclasses import dataclass

_LINE_END = re.compile("\r\n|\n|\r")


@dataclass(frozen=True)
class ServerSentEvent:
    """`data` is never empty. `last_id` is the newest `id` of the stream so far, or empty."""

    data: str
    type: str = "message"
    last_id: str = ""


class EventStreamReader:
    """The state of one stream. An event that is not complete when the stream ends is dropped."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
        self._unfinished: list[str] = []  # pieces of the line that is not complete yet
        self._ended_with_cr = False
        self._data: list[str] = []
        self._type = ""
        self._last_id = ""

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """The events that `chunk` completes. Bytes that are not UTF-8 become U+FFFD."""
        events = map(self._take_line, self._complete_lines(self._decoder.decode(chunk)))
        return [event for event in events if event is not None]

    def _complete_lines(self, text: str) -> list[str]:
        if not text:
            return []
        if self._ended_with_cr:  # that line is complete already
            text = text.removeprefix("\n")
        self._ended_with_cr = text.endswith("\r")
        *lines, rest = _LINE_END.split(text)
        if lines:
            lines[0] = "".join((*self._unfinished, lines[0]))
            self._unfinished.clear()
        self._unfinished.append(rest)
        return lines

    def _take_line(self, line: str) -> ServerSentEvent | None:
        """The event that an empty line ends; any other line is a field of it, or a comment."""
        if not line:
            return self._end_event()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "data":
                self._data.append(value)
            case "event":
                self._type = value
            case "id" if "\0" not in value:
                self._last_id = value
        return None

    def _end_event(self) -> ServerSentEvent | None:
        data, kind = "\n".join(self._data), self._type or "message"
        self._data.clear()
        self._type = ""
        return ServerSentEvent(data, kind, self._last_id) if data else None
