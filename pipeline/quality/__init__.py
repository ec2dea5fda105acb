"""Checks for what can make metrics misleading: near-duplicates, label issues, drift."""
