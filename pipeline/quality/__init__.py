"""What could make the figures dishonest: duplicates, label issues, drift."""
