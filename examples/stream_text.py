"""Show a text while it is written.

    python examples/stream_text.py
    python examples/stream_text.py 雪の朝、

Without a model's name, the small one that comes with the package writes. `temperature` is how
freely it chooses: 0 always takes the likeliest token, 1 takes each as often as the model expects.
"""

from __future__ import annotations

import sys

from gpt_neox_japanese import TextGenerator

prompt = sys.argv[1] if len(sys.argv) > 1 else "吾輩は猫である。"

with TextGenerator.from_pretrained() as generator:
    print(prompt, end="", flush=True)
    for text in generator.stream(prompt, max_new_tokens=60, temperature=0.8, top_p=0.95, seed=1):
        print(text, end="", flush=True)
    print()
