"""Values of every kind that a caller in a hurry could pass, for Hypothesis."""

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st

_scalars: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 130),
    st.integers(),
    st.sampled_from([2**31, 2**63 - 1, 2**63, -(2**64), 10**400]),
    st.just(5000).map(lambda digits: 10**digits),  # it has no repr
    st.floats(),
    st.sampled_from([math.nan, math.inf, -0.0, 5e-324, 1e-320, 1.0, 0.5, 2.0]),
    st.text(max_size=4),
    st.sampled_from(["", "0.5", "1", "\ud800", "x" * 257, b"ab", 1j]),
    st.sampled_from([Decimal("0.5"), Decimal("nan"), Fraction(1, 3), Fraction(10**400, 3)]),
    st.sampled_from([np.int64(3), np.uint64(2**64 - 1), np.float32(0.5), np.bool_(True)]),
    st.sampled_from([object(), object, len, range(10**12), range(2**70), iter([1]), ...]),
    st.sampled_from([np.array(3), np.arange(3), np.array([[5, 1.5]]), np.array(["a"])]),
)
anything: st.SearchStrategy[Any] = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.lists(st.tuples(st.integers(-1, 300), inner), max_size=3),
        st.dictionaries(st.integers(-1, 300) | st.text(max_size=2), inner, max_size=3),
        st.sets(st.integers(-1, 300) | st.text(max_size=2), max_size=3),
    ),
    max_leaves=6,
)
