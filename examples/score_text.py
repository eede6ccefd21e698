"""How likely is a text, and what would the model have written instead?

    python examples/score_text.py

The first part asks the engine for log-probabilities of what it writes. The second scores given
texts with the model of PyTorch: the text with the higher number is the one that the model expects.
"""

from __future__ import annotations

import math

import torch

from gpt_neox_japanese import (
    Codec,
    GPTNeoXJapaneseForCausalLM,
    TextGenerator,
    default_model_directory,
)

directory = default_model_directory()
codec = Codec.load(directory)

with TextGenerator.from_pretrained(directory) as generator:
    [written] = generator.generate_details(
        "吾輩は猫で", max_new_tokens=3, temperature=0, logprobs=4
    )
assert written.top_logprobs is not None  # `logprobs` was asked for
for likeliest in written.top_logprobs:
    shares = (f"{codec.id_to_token(i)} {math.exp(logprob):.0%}" for i, logprob in likeliest.items())
    print("  ".join(shares))

model = GPTNeoXJapaneseForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
for text in ("吾輩は猫である。", "吾輩を猫である。"):
    ids = torch.tensor([[codec.eot_token, *codec.encode(text)]])  # int64 [1, tokens]
    with torch.no_grad():
        logprobs = model(ids[:, :-1]).logits.log_softmax(-1)  # float32 [1, tokens - 1, vocabulary]
    chosen = logprobs.gather(-1, ids[:, 1:, None])
    print(f"{text}  {chosen.sum().item():.1f}")
