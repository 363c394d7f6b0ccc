"""The page of runs: a section a file, in the order of their PLACE.

A section has a `TITLE`, and one or both of

    content(shown)   what its template, templates/sections/<name>.html.j2, is given; None where it has nothing to say
    plots(shown)     sahub.report.plots; those without a panel are left out

`FOLDED`: it is shown once somebody opens it.
"""
