"""What could make the figures dishonest: near-duplicates, label issues, drift."""
