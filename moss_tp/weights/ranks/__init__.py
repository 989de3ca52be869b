"""Weights that are already cut into ranks and packed for kernels: `moss shard` writes them."""
