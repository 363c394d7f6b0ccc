"""Benchmarks: one module or package each, found by its name.

A module has `load(spec, *, split, limit, length, count_tokens, seed) -> list[Example]` and, where its data are files,
`missing(spec) -> str | None`.
"""
