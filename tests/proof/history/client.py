"""A client that does everything that clients do with chats, at random, and writes it down."""

import asyncio
import random
import time
from collections.abc import Mapping
from typing import Any

from tests.proof.history.asking import AgainError, Asker, pause
from tests.proof.history.posting import Posting
from tests.proof.history.record import Act, Read, Record, canary_of

Json = Mapping[str, Any]
# What is done how often.
WEIGHTS = {
    "turn": 10,
    "demo": 3,
    "chat": 3,
    "regenerate": 4,
    "edit": 2,
    "keep": 2,
    "drop": 2,
    "repeat": 4,
    "mismatch": 1,
    "read": 5,
    "foreign": 3,
    "delete": 1,
}
MAX_SESSIONS = 4  # of a tenant, at a time, so that clients meet in them


class Client:
    """`patience_s` is how long it asks again for one turn; `weights` say what it does how often."""

    def __init__(
        self,
        asker: Asker,
        number: int,
        seed: str,
        patience_s: float = 30,
        weights: Mapping[str, int] = WEIGHTS,
    ) -> None:
        self._weights = weights
        self._asker, self._number, self._patience_s = asker, number, patience_s
        self._random = random.Random(f"{seed}/{number}")
        self._count = 0
        self.paths: dict[str, tuple[str, Json]] = {}  # by key: where and what was posted

    @property
    def record(self) -> Record:
        return self._asker.record

    async def run(self, until: float) -> None:
        """Until that time by the monotonic clock; then it ends what it is at."""
        names, weights = [*self._weights], [*self._weights.values()]
        while time.monotonic() < until:
            (name,) = self._random.choices(names, weights)
            try:
                await getattr(self, f"_{name}")()
            except AgainError as error:
                await pause(error.after_s)
            await asyncio.sleep(self._random.uniform(0, 0.1))

    async def settle(self) -> None:
        """Asks again for every turn of which no end is known."""
        for key, (path, body) in self.paths.items():
            act = next(act for act in self.record.acts if act.key == key)
            if act.state == "open":
                await self._post(act, path, body)

    async def read(self, uid: str, *, is_foreign: bool = False) -> Json | None:
        began = time.monotonic()
        response = await self._asker.ask("GET", f"/v1/sessions/{uid}?all=true")
        found = response.json() if response.status_code == 200 else None
        turns = None if found is None else tuple(found["tree"])
        reads = self.record.foreign if is_foreign else self.record.reads
        reads.append(Read(self._asker.tenant, uid, began, time.monotonic(), turns))
        return None if found is None else dict(found)

    async def _uid(self) -> str:
        uids = self.record.uids(self._asker.tenant)
        if len(uids) < MAX_SESSIONS:
            made = (await self._asker.ask("POST", "/v1/sessions", json={})).json()["id"]
            self.record.owners[made] = self._asker.tenant
            return str(made)
        return self._random.choice(uids[-MAX_SESSIONS:])

    def _act(self, kind: str, uid: str | None, user: str | None = None) -> Act:
        self._count += 1
        key = f"{self._number:04}-{self._count:06}-{self._random.getrandbits(64):016x}"
        text = f"{canary_of(self._asker.tenant)} {self._number}.{self._count}"
        act = Act(self._asker.tenant, kind, key, text if user is None else user, uid)
        self.record.acts.append(act)
        return act

    async def _turn(self) -> None:
        uid = await self._uid()
        act = self._act("turn", uid)
        stream = self._random.random() < 0.7
        await self._post(act, f"/v1/sessions/{uid}/turns", {"user": act.user, "stream": stream})

    async def _edit(self) -> None:
        uid, turn = await self._some_turn()
        if turn is not None:
            act = self._act("edit", uid)
            body = {"user": act.user, "parent": turn["parent"], "stream": True}
            await self._post(act, f"/v1/sessions/{uid}/turns", body)

    async def _regenerate(self) -> None:
        uid, turn = await self._some_turn()
        if turn is not None:
            act = self._act("regenerate", uid, turn["user"])
            path = f"/v1/sessions/{uid}/turns/{turn['id']}/regenerate"
            await self._post(act, path, {"stream": True})

    async def _keep(self) -> None:
        await self._cancel(keep=True)

    async def _drop(self) -> None:
        await self._cancel(keep=False)

    async def _cancel(self, *, keep: bool) -> None:
        uid = await self._uid()
        act = self._act("keep" if keep else "drop", uid)
        body = {"user": act.user, "stream": True}
        await self._post(act, f"/v1/sessions/{uid}/turns", body, cancel={"keep": keep})

    async def _demo(self) -> None:
        is_new = self._random.random() < 0.2
        act = self._act("demo", None if is_new else await self._uid())
        await self._post(act, "/", {"prompt": act.user, "uid": act.uid})

    async def _chat(self) -> None:
        act = self._act("chat", await self._uid())
        messages = [{"role": "user", "content": act.user}]
        await self._post(act, "/v1/chat/completions", {"messages": messages, "session_id": act.uid})

    async def _repeat(self) -> None:
        """The same request with the same key, of a turn that was answered. Once its chat is
        deleted, `POST /` would start another one, whose turn and calls are its own."""
        act = self._acked()
        if act is not None and not (act.kind == "demo" and act.uid in self.record.deleting):
            await self._post(act, *self.paths[act.key])

    async def _mismatch(self) -> None:
        """Another request with the key of a turn that was answered."""
        act = self._acked()
        if act is None or act.kind == "regenerate" or act.uid in self.record.deleting:
            return
        path, body = self.paths[act.key]
        name = "prompt" if "prompt" in body else "user"
        if name not in body:
            return
        other = {**body, name: f"{act.user} other", "stream": False}
        response = await self._asker.ask("POST", path, act.key, json=other)
        if response.status_code != 422 and act.uid not in self.record.deleting:
            self.record.faults.append(f"G3 other body: {response.status_code} for {act.key}")

    async def _read(self) -> None:
        await self.read(await self._uid())

    async def _foreign(self) -> None:
        foreign = [u for u, t in self.record.owners.items() if t != self._asker.tenant]
        if foreign:
            await self.read(self._random.choice(foreign), is_foreign=True)

    async def _delete(self) -> None:
        uid = await self._uid()
        self.record.deleting[uid] = time.monotonic()
        for _ in range(20):
            try:
                await self._asker.ask("DELETE", f"/v1/sessions/{uid}")
                break
            except AgainError as error:
                await pause(error.after_s)
        else:
            return
        self.record.deleted[uid] = time.monotonic()
        await self.read(uid)

    def _acked(self) -> Act | None:
        acked = [a for a in self.record.acts if a.key in self.paths and a.state == "acked"]
        return self._random.choice(acked) if acked else None

    async def _some_turn(self) -> tuple[str, Json | None]:
        uid = await self._uid()
        found = await self.read(uid)
        turns = found["tree"] if found else []
        return uid, self._random.choice(turns[-3:]) if turns else None

    async def _post(self, act: Act, path: str, body: Json, cancel: Json | None = None) -> None:
        self.paths[act.key] = path, body
        await Posting(self._asker, act, path, body, cancel).run(self._patience_s)
