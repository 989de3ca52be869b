"""The key of a request's route: equal for requests that have a chat's blocks in common.

A chat is known by its session, or by how it begins, where its client sends the whole of it every
time. Raw prompts have neither: one that goes on from an earlier one has its key. An ingress knows
earlier ones by hashes of their whole blocks, as many as it remembers, and makes the key of any
other of its first blocks: so do other ingresses, if it has as many.
"""

from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from cluster.routing.hashing import bytes_hash, hash_of
from moss_tp.engine.request import EngineRequest

BLOCK_TOKENS = 16
FIRST_BLOCKS = 4  # they tell prompts apart that begin alike
MIN_TOKENS = 4  # too many prompts begin with fewer
MAX_PROMPTS = 8192


class RouteKeys:
    """Makes the keys in one ingress."""

    def __init__(self, max_prompts: int = MAX_PROMPTS) -> None:
        self._max_prompts = max_prompts
        self._by_prompt: OrderedDict[int, str] = OrderedDict()

    def key_of(self, request: EngineRequest, chat: str) -> str:
        """`chat` names the chat among those of its owner; "" for a raw prompt. The key of a prompt
        of a few tokens is ""."""
        if chat:
            return _spelled(hash_of(f"{request.salt}|{chat}"))
        ids = request.prompt_ids[request.num_shared_tokens :]
        return self._key_of_prompt(ids, request.salt) if len(ids) >= MIN_TOKENS else ""

    def _key_of_prompt(self, prompt_ids: Sequence[int], salt: str) -> str:
        hashes = list(_hashes(prompt_ids, hash_of(salt)))
        known = (self._by_prompt[each] for each in reversed(hashes) if each in self._by_prompt)
        key = next(known, None) or _spelled(hashes[:_NUM_FIRST][-1])
        self._by_prompt[hashes[-1]] = key
        self._by_prompt.move_to_end(hashes[-1])
        if len(self._by_prompt) > self._max_prompts:
            self._by_prompt.popitem(last=False)
        return key


def _hashes(ids: Sequence[int], seed: int) -> Iterator[int]:
    """Of each beginning of a prompt: of every length below a block, then of whole blocks, since its
    end may be encoded otherwise once more follows."""
    for length in range(MIN_TOKENS, min(len(ids) + 1, BLOCK_TOKENS)):
        yield _extended(seed, ids[:length])
    for start in range(0, len(ids) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
        seed = _extended(seed, ids[start : start + BLOCK_TOKENS])
        yield seed


# How many of the hashes are of the first blocks.
_NUM_FIRST = BLOCK_TOKENS - MIN_TOKENS + FIRST_BLOCKS


def _extended(seed: int, ids: Sequence[int]) -> int:
    return bytes_hash(array("Q", [seed, *ids]).tobytes())


def _spelled(hashed: int) -> str:
    return f"{hashed:016x}"
