"""What a run tells: loss log, MFU, samples, and the page at the end.

Start with `callbacks`, which transformers' Trainer calls; `page` writes `report.md` and `plot` its
curve.
"""
