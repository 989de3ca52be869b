"""Blocks: counted, shared by equal prefixes of one salt, evicted oldest first."""

import pytest

from moss_tp.engine.scheduling.block_manager import BlockManager
from moss_tp.engine.scheduling.sequence import Sequence
from moss_tp.sampling_params import SamplingParams

SIZE = 4


def sequence(ids: list[int], salt: str = "") -> Sequence:
    return Sequence("r", ids, SamplingParams(), frozenset(), salt)


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


def test_only_what_is_computed_becomes_known() -> None:
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


def test_reviving_counts_as_taking() -> None:
    """Two free blocks hold the prefix itself, so a third one is not to be had."""
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


def test_equal_blocks_behind_different_prefixes_are_different() -> None:
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
    assert probe.num_computed == 4, "the head of the older one was to outlive its tail"
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
