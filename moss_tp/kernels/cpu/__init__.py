"""Numba kernels for CPUs: importing a module of this package compiles (or loads) its kernels."""
