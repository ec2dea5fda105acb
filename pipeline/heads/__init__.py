"""Heads: the small networks that are trained on features."""
