"""Settings: their schema, the configuration groups, cells, and Hydra's complaints in our words."""
