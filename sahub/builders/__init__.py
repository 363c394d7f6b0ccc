"""From a builder's YAML to a stack of stages and to a search space."""
