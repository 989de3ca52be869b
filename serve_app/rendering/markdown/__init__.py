"""Markdown of a block to clean HTML. It may take any time, so it runs in a worker only.

text ──> blocks ──> parser (formulas, links) ──> markup (code, mathml) ──> cleaning
"""
