"""The innermost loops of products, in vector registers and in tiles."""
