"""CPU kernels in Numba. Importing a module of this package compiles its kernels, or loads them."""

from pathlib import Path

from moss_tp.native.sources import register_sources

register_sources(Path(__file__).parent)
