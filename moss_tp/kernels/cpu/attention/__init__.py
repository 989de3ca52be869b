"""Attention over the paged KV cache: store the step's K and V, then decode and prefill rows."""
