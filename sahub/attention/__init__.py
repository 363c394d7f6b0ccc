"""The mathematics of sparse attention: selections, budgets, stacks, and attention over what they keep."""
