"""What int8 and int4 cost in quality: bits per character, and how far the next token's odds move.

    python benchmarks/bench_quantization.py CORPUS [--works 20] [--characters 5000]

The default model reads held-out works of a corpus with its own weights in float32, with bfloat16,
and with int8 and int4 once with searched scales and once with plain rounding; with int4 also
calibrated, on text that it writes itself and on works that it was trained on. The divergence is
Kullback and Leibler's of float32's distribution from the other's, in bits for a token.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from harness import write_result
from numpy.typing import NDArray

from gpt_neox_japanese import GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.assets import default_model_directory
from gpt_neox_japanese.corpus import corpus_files, is_held_out, read_documents
from gpt_neox_japanese.evaluation.bits_per_character import bits_per_character
from gpt_neox_japanese.files.tensor_files import read_tensors
from gpt_neox_japanese.inference.calibration_text import windows_of_own_text, windows_of_texts
from gpt_neox_japanese.inference.loading.checkpoint import Checkpoint
from gpt_neox_japanese.model.calibration import LayerwiseCalibration
from gpt_neox_japanese.quantization.convert import convert, of_floats
from gpt_neox_japanese.tokenizer.codec import Codec

HELD_OUT = 0.01  # of the works, as when the model was trained


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--works", type=int, default=20)
    parser.add_argument("--characters", type=int, default=5000, help="at most, of a work")
    arguments = parser.parse_args()

    def works(*, held_out: bool) -> Iterator[str]:
        for document in read_documents(corpus_files([arguments.corpus])):
            if is_held_out(document.id, HELD_OUT) == held_out:
                yield document.text[: arguments.characters]

    texts = list(islice(works(held_out=True), arguments.works))
    checkpoint = Checkpoint.open()
    codec = checkpoint.codec
    own, trained_on = (
        partial(calibrated_on, windows)
        for windows in (
            windows_of_own_text(checkpoint),
            windows_of_texts(checkpoint, works(held_out=False)),
        )
    )
    formats: dict[str, dict[str, Any]] = {
        "bfloat16": {"bits": 16},
        "int8": {"bits": 8},
        "int8, plain rounding": {"bits": 8, "search": False},
        "int4": {"bits": 4},
        "int4, plain rounding": {"bits": 4, "search": False},
        "int4, calibrated on its own text": {"bits": 4, "calibrate": own},
        "int4, calibrated on its training text": {"bits": 4, "calibrate": trained_on},
    }
    windows = list(windows_of(texts, codec))

    with of_floats(default_model_directory()) as floats:
        original = load(floats)
        expected = [odds(original, window) for window in windows]
        results = {"float32": measure(original, texts, codec, windows, expected)}
        for name, options in formats.items():
            with TemporaryDirectory() as directory:
                output = Path(directory, "model")
                size = convert(floats, output, read=read_tensors, **options)
                result = measure(load(output), texts, codec, windows, expected)
            results[name] = {"megabytes": size / 1e6, **result}
    for name, result in results.items():
        print(f"{name:40}", *(f"{key} {value:.4f}  " for key, value in result.items()))
    characters = sum(map(len, texts))
    print(write_result("quantization", ["torch"], characters=characters, formats=results))


def calibrated_on(
    windows: NDArray[np.int64], config: Any, tensors: Any, allocation: Any
) -> LayerwiseCalibration:
    """What `convert` calls to begin a calibration on a text."""
    return LayerwiseCalibration(config, tensors, allocation, windows)


def load(directory: Path) -> GPTNeoXJapaneseForCausalLM:
    """The model, computing in float32."""
    model = GPTNeoXJapaneseForCausalLM.from_pretrained(directory, dtype=torch.float32)
    model.eval()  # type: ignore[no-untyped-call]
    return model


def windows_of(texts: list[str], codec: Codec) -> Iterator[torch.Tensor]:
    """Ids `(1, 512)`, without overlap."""
    for text in texts:
        ids = torch.from_numpy(codec.encode_to_numpy(text).astype(np.int64))
        yield from (part[None] for part in torch.split(ids, 512) if len(part) == 512)


@torch.inference_mode()
def odds(model: GPTNeoXJapaneseForCausalLM, window: torch.Tensor) -> torch.Tensor:
    """Logarithms of the next token's odds, float16 `(tokens, vocabulary)`."""
    logits: torch.Tensor = model(window).logits
    return logits[0].log_softmax(-1).half()


def measure(
    model: GPTNeoXJapaneseForCausalLM,
    texts: list[str],
    codec: Codec,
    windows: list[torch.Tensor],
    expected: list[torch.Tensor],
) -> dict[str, float]:
    """Bits per character of texts, and divergence from what is expected of windows."""
    divergence = torch.tensor(0.0, dtype=torch.float64)
    for window, known in zip(windows, expected, strict=True):
        theirs = odds(model, window).float()
        divergence += (known.float().exp() * (known.float() - theirs)).sum()
    tokens = sum(window.numel() for window in windows)
    return {
        "bits_per_character": bits_per_character(model, codec, texts).bits_per_character,
        "divergence_bits": float(divergence) / tokens / math.log(2),
    }


if __name__ == "__main__":
    main()
