"""What kernels need beyond Numba: caching, named parameters, memory by address, atomics, vectors.

It is independent of what is computed. Packages with kernels register their sources.
"""
