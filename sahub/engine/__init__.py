"""A model at work: loading, prefixes, the attention hook, sessions, requests, outcomes and their measures."""
