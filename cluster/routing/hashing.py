"""Hashes that every process computes alike; Python's own differ from process to process."""

import hashlib

HASH_BYTES = 8


def hash_of(text: str) -> int:
    """64 bits of `text`."""
    return bytes_hash(text.encode())


def bytes_hash(data: bytes) -> int:
    """64 bits of `data`."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=HASH_BYTES).digest(), "little")


def weight(key: int, replica: str) -> int:
    """Rendezvous hashing (Thaler and Ravishankar, 1998): of several replicas, `key` belongs to the
    one of the largest weight. One more takes keys from each other, and moves none besides."""
    return hash_of(f"{key}|{replica}")
