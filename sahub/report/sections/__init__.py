"""The page of a run: a section a file, in the order of their PLACE.

A section has `html(shown)`, empty where it has nothing to say; one that is a picture also has `picture(found)`, which
gives a PNG or None, and its words for those who cannot see it, ALT.
"""
