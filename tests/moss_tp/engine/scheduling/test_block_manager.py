"""Blocks: counted, shared by equal prefixes of one salt, evicted oldest first."""

from itertools import takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_tp.engine.scheduling.block_manager import BlockManager
from moss_tp.engine.scheduling.sequence import Sequence
from moss_tp.sampling_params import SamplingParams

SIZE = 4


def sequence(ids: list[int], salt: str = "", num_shared_tokens: int = 0) -> Sequence:
    return Sequence("r", ids, SamplingParams(), frozenset(), salt, num_shared_tokens)


def compute_all(manager: BlockManager, seq: Sequence) -> None:
    seq.num_computed = seq.num_tokens
    manager.commit(seq)


def admitted(manager: BlockManager, ids: list[int], salt: str = "") -> Sequence:
    """A sequence whose tokens are all computed."""
    seq = sequence(ids, salt)
    assert manager.admit(seq)
    compute_all(manager, seq)
    return seq


def test_a_live_prefix_is_shared_and_the_rest_is_not() -> None:
    manager = BlockManager(8, SIZE)
    first = admitted(manager, [1, 2, 3, 4, 5, 6, 7, 8, 9])
    second = sequence([1, 2, 3, 4, 5, 6, 7, 8, 10])
    assert manager.admit(second)
    assert second.num_computed == 8
    assert second.block_table[:2] == first.block_table[:2]
    assert second.block_table[2] != first.block_table[2]
    assert manager.num_free == 4
    manager.check_integrity([first, second])


def test_the_last_token_is_always_computed() -> None:
    manager = BlockManager(8, SIZE)
    first = admitted(manager, [1, 2, 3, 4, 5, 6, 7, 8])
    second = sequence([1, 2, 3, 4, 5, 6, 7, 8])
    assert manager.admit(second)
    assert second.num_computed == 4
    manager.check_integrity([first, second])


def test_an_uncomputed_prefix_is_not_shared() -> None:
    manager = BlockManager(8, SIZE)
    first, second = sequence([1, 2, 3, 4, 5]), sequence([1, 2, 3, 4, 5])
    assert manager.admit(first)
    assert manager.admit(second)
    assert second.num_computed == 0
    assert not set(first.block_table) & set(second.block_table)


def test_only_computed_blocks_enter_the_cache() -> None:
    manager = BlockManager(8, SIZE)
    first = sequence(list(range(12)))
    assert manager.admit(first)
    first.num_computed = 7
    manager.commit(first)
    second = sequence(list(range(12)))
    assert manager.admit(second)
    assert second.num_computed == 4


def test_a_freed_prefix_is_revived() -> None:
    manager = BlockManager(4, SIZE)
    manager.release(admitted(manager, [1, 2, 3, 4, 5]))
    assert manager.num_free == 4
    again = sequence([1, 2, 3, 4, 6])
    assert manager.admit(again)
    assert again.num_computed == 4
    assert manager.num_free == 2
    manager.check_integrity([again])


def test_a_revived_block_is_no_longer_free() -> None:
    """The only two free blocks hold the prefix itself, so there is no third one."""
    manager = BlockManager(3, SIZE)
    manager.release(admitted(manager, [1, 2, 3, 4, 5, 6, 7, 8]))
    other = admitted(manager, [9])
    again = sequence([1, 2, 3, 4, 5, 6, 7, 8, 9])
    assert not manager.admit(again)
    assert not again.block_table
    assert again.num_computed == 0
    manager.check_integrity([other])


def test_salts_share_nothing() -> None:
    manager = BlockManager(8, SIZE)
    first = admitted(manager, [1, 2, 3, 4, 5], salt="alice")
    second = sequence([1, 2, 3, 4, 5], salt="bob")
    assert manager.admit(second)
    assert second.num_computed == 0
    manager.check_integrity([first, second])


@settings(max_examples=200, deadline=None)
@given(
    prefix=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    tails=st.tuples(*[st.lists(st.integers(0, 3), max_size=12)] * 2),
    share=st.floats(0, 1),
    block_size=st.integers(1, 6),
    has_same_salt=st.booleans(),
)
def test_salts_share_exactly_the_blocks_of_the_shared_tokens(
    prefix: list[int],
    tails: tuple[list[int], list[int]],
    share: float,
    block_size: int,
    has_same_salt: bool,
) -> None:
    """The last token is never taken from the cache, so each prompt has one extra token."""
    manager = BlockManager(64 * 2, block_size)
    num_shared = round(share * len(prefix))
    first, second = [9, *tails[0]], [9, *tails[1]]
    old = Sequence("old", [*prefix, *first], SamplingParams(), frozenset(), "a", num_shared)
    assert manager.admit(old)
    compute_all(manager, old)
    salt = "a" if has_same_salt else "b"
    new = Sequence("new", [*prefix, *second], SamplingParams(), frozenset(), salt, num_shared)
    assert manager.admit(new)
    pairs = zip(old.token_ids, new.token_ids, strict=False)
    num_equal = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
    num_reusable = min(num_equal, new.num_tokens - 1, old.num_tokens) // block_size
    expected = num_reusable if has_same_salt else num_shared // block_size
    assert new.num_computed == expected * block_size
    assert new.block_table[:expected] == old.block_table[:expected]
    assert not set(new.block_table[expected:]) & set(old.block_table)
    compute_all(manager, new)
    manager.check_integrity([old, new])


def test_a_later_sequence_finds_the_blocks_of_its_salt_after_the_shared_ones() -> None:
    manager = BlockManager(16, SIZE)
    ids = list(range(13))
    for salt in ("alice", "bob"):
        seq = sequence(ids, salt, num_shared_tokens=6)
        assert manager.admit(seq)
        assert seq.num_computed == (0 if salt == "alice" else 4)
        compute_all(manager, seq)
        manager.release(seq)
    for salt in ("alice", "bob"):
        again = sequence(ids, salt, num_shared_tokens=6)
        assert manager.admit(again)
        assert again.num_computed == 12
        manager.release(again)


def test_equal_blocks_after_different_prefixes_are_different() -> None:
    manager = BlockManager(8, SIZE)
    admitted(manager, [1, 2, 3, 4, 5, 6, 7, 8, 9])
    second = sequence([0, 2, 3, 4, 5, 6, 7, 8, 9])
    assert manager.admit(second)
    assert second.num_computed == 0


def test_the_least_recently_used_is_evicted_first_and_tails_before_heads() -> None:
    manager = BlockManager(4, SIZE)
    manager.release(admitted(manager, [1, 2, 3, 4, 5, 6, 7, 8]))
    manager.release(admitted(manager, [9, 9, 9, 9, 9, 9, 9, 9]))
    taken = admitted(manager, [7])
    probe = sequence([1, 2, 3, 4, 5, 6, 7, 8, 1])
    assert manager.admit(probe)
    assert probe.num_computed == 4, "the head of the older one must outlive its tail"
    manager.check_integrity([taken, probe])


def test_grow_takes_a_block_only_at_a_boundary() -> None:
    manager = BlockManager(2, SIZE)
    seq = admitted(manager, [1, 2, 3])
    seq.token_ids.append(4)
    assert manager.grow(seq)
    assert len(seq.block_table) == 1
    seq.token_ids.append(5)
    assert manager.grow(seq)
    assert len(seq.block_table) == 2
    seq.token_ids.extend([6, 7, 8, 9])
    assert not manager.grow(seq)
    manager.check_integrity([seq])


def test_integrity_notices_a_leak() -> None:
    manager = BlockManager(2, SIZE)
    admitted(manager, [1, 2, 3])
    with pytest.raises(AssertionError, match="1 refs, 0 held"):
        manager.check_integrity([])
