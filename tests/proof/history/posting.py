"""Asks for one turn until its end is known: posts it, follows its events, comes back with the
number of the last one, and asks again with the same key when nobody knows of it."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.proof.history.asking import WAITING, AgainError, Asker, BrokenError, pause
from tests.proof.history.record import Act

Json = Mapping[str, Any]
DEMO_PREFIX = "\n<|MOSS|>: "
# Ends that asking again with the same key does not change.
FINAL = ("turn_cancelled", "deadline_exceeded", "context_length_exceeded")


@dataclass
class Posting:
    """`cancel` is sent as soon as the reply has begun. `turn` is the turn's id, once told."""

    asker: Asker
    act: Act
    path: str
    body: Json
    cancel: Json | None = None
    turn: str = ""
    after: int = -1
    broke_at: float = 0.0
    _cancelling: list["asyncio.Task[None]"] = field(default_factory=list)

    async def run(self, patience_s: float) -> None:
        until = time.monotonic() + patience_s
        while time.monotonic() < until:
            try:
                end = await self._ask()
            except AgainError as error:
                await pause(error.after_s if error.code not in WAITING else 0.1)
            except BrokenError as error:
                self.turn, self.after = error.turn, error.after
                self.broke_at = self.broke_at or time.monotonic()
                await pause(0)
            else:
                if self._is_end(end):
                    break
                self.turn, self.after = "", -1
        await asyncio.gather(*self._cancelling)

    async def _ask(self) -> tuple[str, Json] | httpx.Response:
        ask, act = self.asker.follow, self.act
        if not self.turn:
            return await ask("POST", self.path, act.key, on_event=self._note, json=self.body)
        path = f"/v1/sessions/{act.uid}/turns/{self.turn}/events"
        return await ask("GET", path, "", self.after, self.turn, self._note)

    async def _note(self, number: int, kind: str, data: Json) -> None:
        if kind == "turn":
            self.turn = str(data["id"])
        if self.broke_at and number >= 0:
            self.asker.record.gaps.append(time.monotonic() - self.broke_at)
            self.broke_at = 0.0
        if self.cancel is not None and kind == "delta":
            body, self.cancel = self.cancel, None
            self._cancelling.append(asyncio.create_task(self._ask_cancel(body)))

    async def _ask_cancel(self, body: Json) -> None:
        path = f"/v1/sessions/{self.act.uid}/turns/{self.turn}/cancel"
        with suppress(AgainError):  # nobody has to be heard
            await self.asker.ask("POST", path, json=body)

    def _is_end(self, end: tuple[str, Json] | httpx.Response) -> bool:
        """Notes what came; whether there is no more to ask."""
        if isinstance(end, httpx.Response):
            return self._is_last_answer(end)
        kind, data = end
        if kind == "done":
            self.act.ack(data["turn"])
            return True
        code = data["error"]["code"]
        if code == "session_not_found":
            self._gone()
            return True
        self.act.fail(self.turn)
        return code in FINAL

    def _is_last_answer(self, response: httpx.Response) -> bool:
        act, status = self.act, response.status_code
        if status == 204 or (status == 404 and "turn_not_found" in response.text and self.turn):
            return False  # nothing is left to follow: the key tells
        if status == 200:
            self._ack(response.json())
        elif status == 404 and "session_not_found" in response.text:
            self._gone()
        elif status == 409:  # cancelled
            act.fail(self.turn)
        else:
            act.state = "refused" if act.state == "open" else act.state
            self.asker.record.faults.append(f"G6 refused: {status} {response.text[:200]}")
        return True

    def _ack(self, body: Json) -> None:
        if "uid" in body:
            self.act.uid = body["uid"]
            self.asker.record.owners.setdefault(body["uid"], self.act.tenant)
        self.act.ack(_answer(body, self.act))

    def _gone(self) -> None:
        act, record = self.act, self.asker.record
        if act.uid not in record.deleting:
            record.faults.append(f"G1 lost: the session of {act.key}")
        act.state = "refused" if act.state == "open" else act.state


def _answer(body: Json, act: Act) -> Json:
    """What an answer says of its turn, in the names of the session resource."""
    if "turn" in body:
        turn: Json = body["turn"]
        return turn
    if "choices" in body:
        return {"user": act.user, "reply": body["choices"][0]["message"]["content"]}
    return {"user": body["history"][-1][0], "reply": body["response"].removeprefix(DEMO_PREFIX)}
