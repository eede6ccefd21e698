"""A model for ONNX Runtime: ids in, logits out, and a greedy text made of them.

    pip install onnxruntime onnxscript
    python examples/onnx_model.py

Without a KV cache: each token computes all that stand before it again.
"""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import torch

from gpt_neox_japanese import Codec, GPTNeoXJapaneseForCausalLM, default_model_directory

directory = default_model_directory()
model = GPTNeoXJapaneseForCausalLM.from_pretrained(directory).dequantize(torch.float32)  # type: ignore[no-untyped-call]


class Logits(torch.nn.Module):
    """What is exported: ids [rows, tokens] → logits [rows, tokens, vocabulary]."""

    def __init__(self) -> None:
        """Around the model."""
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """The scores of the token after each."""
        logits: torch.Tensor = self.model(input_ids=input_ids, use_cache=False).logits
        return logits


logging.disable(logging.WARNING)
sizes = {"input_ids": {0: "rows", 1: "tokens"}}
program = torch.onnx.export(
    Logits().eval(),
    (torch.ones(2, 8, dtype=torch.long),),
    dynamo=True,
    dynamic_shapes=sizes,
    verbose=False,
)
assert program is not None
codec = Codec.from_pretrained(directory)
with TemporaryDirectory() as folder:
    program.save(Path(folder, "model.onnx"))
    session = onnxruntime.InferenceSession(Path(folder, "model.onnx"))
ids = codec.encode("人とAIが協調するためには、")
for _ in range(20):
    [logits] = session.run(None, {"input_ids": np.array([ids], np.int64)})
    ids.append(int(logits[0, -1].argmax()))
print(codec.decode(ids))
