"""Write the model in 8 bits, half of its size, and generate with it.

    python examples/quantize.py
    python examples/quantize.py CHECKPOINT OUTPUT

The same as `neox-ja convert CHECKPOINT --to int8 --output OUTPUT`. `bits=4` is a third less again.
What is made is a checkpoint like any other: `from_pretrained` of this package's classes reads it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from gpt_neox_japanese import TextGenerator, default_model_directory
from gpt_neox_japanese.files.tensor_files import read_tensors
from gpt_neox_japanese.quantization.convert import convert

with tempfile.TemporaryDirectory() as temporary:
    given = [Path(argument) for argument in sys.argv[1:3]]
    checkpoint, output = given or (Path(temporary, "floats"), Path(temporary, "int8"))
    if not given:  # the model in the package has 8 bits already
        convert(default_model_directory(), checkpoint, bits=16, read=read_tensors)

    before = sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))
    after = convert(checkpoint, output, bits=8, read=read_tensors)
    print(f"{before / 1e6:.1f} MB → {after / 1e6:.1f} MB")

    with TextGenerator.from_pretrained(output) as generator:
        print(generator.generate("吾輩は猫である。", max_new_tokens=30, temperature=0, echo=True))
