"""Prepared tokens to a trained model, on transformers' Trainer.

Start with `run`, which puts a run together; `settings` has its options, and `defaults` chooses
those that are left open. `data` is what it reads, `checkpoints` what it resumes from, `optim` what
it steps with, `machine` what it asks of the machine, `report` what it tells.
"""
