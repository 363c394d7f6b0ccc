"""How points are chosen: a sampler a file, found by its name (`sampler.name`).

A module has `study(settings, goals)`, an empty Optuna study of so many goals whose sampler is asked for points, or
`points(space, settings)`, all of them in their order.
"""
