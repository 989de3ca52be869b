"""Chats of many turns over several replicas, and how much of each prompt its replica had."""

import asyncio
import random
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx

from tests.proof.history.run import NO_LIMIT
from tests.proof.server import DigestProcess

AT_ONCE = 12
MAX_TOKENS = 32  # of thoughts and reply
PAUSE_S = 2.0  # up to so long a reader takes
# The end of a prompt is no whole block, and is encoded otherwise once a reply follows.
TAIL_TOKENS = 24
TIMEOUT_S = 120.0


@dataclass
class Chats:
    """`num_chats` of `num_turns` each on one server: in sessions kept there, if they `have_uids`,
    else sent whole every time, as OpenAI's clients do. `prompts` holds tokens, cached and not, of
    each turn in each chat."""

    server: DigestProcess
    num_chats: int
    num_turns: int
    have_uids: bool
    prompts: list[list[tuple[int, int]]] = field(default_factory=list)

    async def run(self) -> None:
        room = asyncio.Semaphore(AT_ONCE)
        async with httpx.AsyncClient(limits=NO_LIMIT, trust_env=False, timeout=TIMEOUT_S) as http:
            chats = (self._chat(http, room, number) for number in range(self.num_chats))
            self.prompts = list(await asyncio.gather(*chats))

    @property
    def landed(self) -> float:
        """The share of turns, but the first of each chat, whose replica had the turn before."""
        later = [
            cached >= before - TAIL_TOKENS
            for chat in self.prompts
            for (before, _), (_, cached) in pairwise(chat)
        ]
        return sum(later) / len(later)

    @property
    def num_prompt_tokens(self) -> int:
        return sum(num for chat in self.prompts for num, _ in chat)

    async def _chat(
        self, http: httpx.AsyncClient, room: asyncio.Semaphore, number: int
    ) -> list[tuple[int, int]]:
        choice = random.Random(number)
        uid: str | None = await self._new_uid(http) if self.have_uids else None
        messages: list[dict[str, str]] = []
        prompts = []
        for turn in range(self.num_turns):
            await asyncio.sleep(choice.random() * PAUSE_S)
            messages.append({"role": "user", "content": f"{number} {turn}"})
            sent = messages if uid is None else messages[-1:]
            async with room:
                answer = await self._ask(http, sent, {} if uid is None else {"session_id": uid})
            usage = answer["usage"]
            prompts.append(
                (usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"])
            )
            messages.append(answer["choices"][0]["message"])
        return prompts

    async def _new_uid(self, http: httpx.AsyncClient) -> str:
        response = await http.post(f"{self.server.url}/v1/sessions", headers=self._headers, json={})
        response.raise_for_status()
        return str(response.json()["id"])

    async def _ask(
        self, http: httpx.AsyncClient, messages: list[dict[str, str]], more: dict[str, str]
    ) -> dict[str, Any]:
        body = {"messages": messages, "plugins": [], "max_completion_tokens": MAX_TOKENS, **more}
        url = f"{self.server.url}/v1/chat/completions"
        response = await http.post(url, json=body, headers=self._headers)
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.server.api_keys['ann']}"}


async def computed_tokens(server: DigestProcess) -> float:
    """Prompt tokens of both passes that all replicas of the server have computed so far."""
    headers = {"Authorization": f"Bearer {server.api_keys['admin']}"}
    async with httpx.AsyncClient(trust_env=False, timeout=TIMEOUT_S) as http:
        await asyncio.sleep(2)  # until all have put their counters into the store
        text = (await http.get(f"{server.url}/metrics", headers=headers)).text
    return _sum(text, "vllm:prefix_cache_queries_total") - _sum(
        text, "vllm:prefix_cache_hits_total"
    )


def _sum(text: str, name: str) -> float:
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name + "{"))
