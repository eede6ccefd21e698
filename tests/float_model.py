"""The model in the package with floats for its integers, as other engines and formats want it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from gpt_neox_japanese import default_model_directory
from gpt_neox_japanese.files.tensor_files import read_tensors
from gpt_neox_japanese.quantization.convert import convert

_FOLDER = TemporaryDirectory()


@cache
def float_model() -> Path:
    """Convert it once.

    Returns:
        A model directory in bfloat16, which no test may change.
    """
    output = Path(_FOLDER.name, "floats")
    convert(default_model_directory(), output, bits=16, read=read_tensors)
    return output
