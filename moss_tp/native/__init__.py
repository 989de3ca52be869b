"""Numba beyond Numba: compiling and caching kernels, named parameters, memory, atomics, vectors.

Nothing here knows what is computed. Packages with kernels register their sources.
"""
