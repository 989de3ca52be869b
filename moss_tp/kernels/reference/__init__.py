"""The reference: plain torch operations on any device. Tests compare the other back ends to it.

torch chooses how to cut a product by its number of rows, and SDPA by the mask and the context. So a
row's bits depend on what it is computed with: the reference is outside the promise of
`moss_tp.kernels`.
"""
