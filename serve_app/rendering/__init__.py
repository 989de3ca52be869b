"""Replies as safe HTML: markdown, formulas and code, rendered in a process of its own.

LiveBlocks ──> IsolatedRenderer ──> Supervisor ──(frames)──> worker ──> markdown/
"""
