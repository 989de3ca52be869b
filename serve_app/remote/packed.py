"""A delta on its way from a replica to an ingress: bytes, which Ray passes on as they are.

Ray makes a pickler of its own for every other value, which costs more than the rest of a delta.
"""

import pickle

from moss_tp.engine.outputs import TokenDelta


def pack(delta: TokenDelta) -> bytes:
    return pickle.dumps(delta, pickle.HIGHEST_PROTOCOL)


def unpack(packed: bytes) -> TokenDelta:
    """Of bytes that a replica of this application has packed."""
    delta: TokenDelta = pickle.loads(packed)
    return delta
