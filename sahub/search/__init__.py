"""Searching a builder's space: trials, generations, samplers, schedulers, objectives."""
