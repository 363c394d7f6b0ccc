"""Contexts: what a model holds after them, how it gets there, and where it goes when there is no room."""
