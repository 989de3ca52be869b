"""Numba beyond Numba: compiling and caching kernels, named parameters, memory, atomics, vectors.

It is independent of what is computed. Packages with kernels register their sources.
"""
