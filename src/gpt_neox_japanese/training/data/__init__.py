"""Corpus to token shards, and which tokens a training step sees.

Start with `prepare`, which makes the directory that `shards` opens. `run_data` opens whatever
`--data` names; `dataset` cuts it into windows.
"""
