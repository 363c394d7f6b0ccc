"""Experiment trackers, a file each."""
