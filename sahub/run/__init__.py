"""All cells of a run together: searches, then validations, then the summary; and what it would cost."""
