"""Intervals and what may be concluded from them."""
