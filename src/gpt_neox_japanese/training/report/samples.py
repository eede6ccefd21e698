"""What the model writes while it learns."""
# transformers' methods carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.training.machine import cpu_attention

__all__ = ["write_samples"]


def write_samples(
    model: Any,
    codec: Codec,
    eos_token_id: int,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
) -> list[str]:
    """Continue each prompt; the same way every time, and without a trace in the run.

    Args:
        model: A causal language model, or PEFT's around one.
        codec: Its tokenizer.
        eos_token_id: What ends a text.
        prompts: Ids, at least one each.
        max_new_tokens: Of each continuation, at most.

    Returns:
        Prompt and continuation of each.
    """
    was_training = model.training
    implementation = model.config._attn_implementation
    if implementation == cpu_attention.NAME:  # it is made for whole windows
        model.set_attn_implementation("sdpa")
    padding = range(len(codec), model.config.vocab_size)  # rows that are no token's
    texts = []
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.no_grad():
        model.eval()
        for ids in prompts:
            torch.manual_seed(0)
            inputs = torch.tensor([ids], device=model.device)
            output = model.generate(
                input_ids=inputs,
                attention_mask=torch.ones_like(inputs),
                do_sample=True,
                top_p=0.95,
                temperature=0.8,
                max_new_tokens=max_new_tokens,
                pad_token_id=eos_token_id,
                eos_token_id=eos_token_id,
                suppress_tokens=list(padding) or None,
                use_cache=True,
            )
            written = [i for i in output[0].tolist() if i != eos_token_id]
            # Of a character in bytes the last ones may be missing.
            texts.append(codec.decode(written).rstrip("\ufffd"))
    model.train(was_training)
    if implementation == cpu_attention.NAME:
        model.set_attn_implementation(implementation)
    return texts
