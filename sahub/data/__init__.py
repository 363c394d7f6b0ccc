"""From rows of files, or a seed, to examples: reading, checking, fitting to a length."""
