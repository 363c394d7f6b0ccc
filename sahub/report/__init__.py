"""Results as people read them: tables, comparisons and pictures."""
