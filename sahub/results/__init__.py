"""What a cell leaves: its validation, how it ended, its files, the best that is known."""
