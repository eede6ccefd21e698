"""How likely is a text, and what would the model have written instead?

    python examples/score_text.py

The first part asks for log-probabilities of what is written. The second scores given texts: the one
with the higher number is the one that the model expects.
"""

from __future__ import annotations

import math

from gpt_neox_japanese import TextGenerator

with TextGenerator.from_pretrained() as generator:
    codec = generator.codec
    [written] = generator.generate_details(
        "吾輩は猫で", max_new_tokens=3, temperature=0, logprobs=4
    )
    assert written.top_logprobs is not None  # `logprobs` was asked for
    for likeliest in written.top_logprobs:
        shares = (f"{codec.id_to_token(i)} {math.exp(value):.0%}" for i, value in likeliest.items())
        print("  ".join(shares))

    for text in ("吾輩は猫である。", "吾輩を猫である。"):
        # The first id has no score, so that of the text's own first token needs one before it.
        score = generator.score([codec.eot_token, *codec.encode(text)])
        print(f"{text}  {score.total_logprob:.1f}")
