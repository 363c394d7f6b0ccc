"""Files that methods read, learned from a model."""
