"""The files in which a run tells what it did, beside the model that it made."""

from __future__ import annotations

__all__ = [
    "DATA_RECORD",
    "LOSS_LOG",
    "PICTURE",
    "RECORD",
    "REPORT",
    "RUN_RECORDS",
    "SAMPLES",
]

RECORD = "train.json"
DATA_RECORD = "data.json"
LOSS_LOG = "loss.jsonl"
SAMPLES = "samples.jsonl"
REPORT = "report.md"
PICTURE = "loss.svg"

# All are about that one model: what is made of it has other figures, and writes other texts.
RUN_RECORDS = (RECORD, DATA_RECORD, LOSS_LOG, SAMPLES, REPORT, PICTURE)
