"""Rotary embedding, the paged cache and attention over it, for a step's DevicePlan.

    cache        a layer's K and V, int8 with scales in planes of their own
    store        rotates q and k, writes k and v: one launch
    attend       tiles of rows over a sequence's pieces of 128 tokens: one launch or two a kind
    reference    both in torch

A row's output has the same bits as a decoded row, a drafted one or a row of a prompt, see `attend`.
"""
