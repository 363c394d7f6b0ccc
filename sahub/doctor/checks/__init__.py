"""What is examined of a subject: a check a file, with SUBJECT, `check(cell, report)`, and a PLACE where order matters.

A check adds to the report what it finds, and raises SahubError where nothing more can be found.
"""
