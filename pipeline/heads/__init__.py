"""The small networks that are trained on features."""
