"""Supervised fine-tuning of MOSS on conversations in its published JSON format."""
