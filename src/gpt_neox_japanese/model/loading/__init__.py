"""From a model directory to a model: checks, errors, the Auto classes.

Start with `pretrained`.
"""
