"""Corpus to token shards, and which tokens a step sees: start with `prepare`."""
