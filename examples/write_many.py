"""Continue many prompts side by side, several times each.

    python examples/write_many.py

All of them share every step of the model, which is several times as fast as one after the other;
and each is the text that it would be alone. More prompts than `slots` are no mistake: they wait.
"""

from __future__ import annotations

from gpt_neox_japanese import SamplingParams, TextGenerator

PROMPTS = ["春の海は", "夏の夜に", "秋の山を", "冬の朝、"]

with TextGenerator.from_pretrained(slots=8) as generator:
    sampling = SamplingParams(temperature=0.9, top_p=0.95, repetition_penalty=1.1)
    found = generator.generate_details(
        PROMPTS,
        num_return_sequences=2,
        max_new_tokens=30,
        stop="\n",
        seed=0,
        echo=True,
        sampling_params=sampling,
    )

for completions in found:
    for completion in completions:
        print(f"{completion.finish_reason:6}  {completion.text}")
