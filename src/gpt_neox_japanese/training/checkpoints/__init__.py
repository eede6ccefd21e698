"""Checkpoints that a run resumes from, and finished models.

Start with `manager`, which writes and finds checkpoints; `reader` reads them and believes nothing.
`gather` makes whole tensors of sharded ones; `export` writes the model directory that others load.
"""
