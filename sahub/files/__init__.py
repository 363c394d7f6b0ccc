"""Files that are written whole or not at all, and the journal of finished work."""
