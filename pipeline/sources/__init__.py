"""Sources of examples, and the split into train, val and test."""
