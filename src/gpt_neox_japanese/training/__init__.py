"""Prepared tokens to a trained model, on transformers' Trainer.

Start with `run`, which puts a run together; `settings` has its options. `data` is what it reads,
`checkpoints` what it resumes from, `optim` what it steps with, `report` what it tells.
"""
