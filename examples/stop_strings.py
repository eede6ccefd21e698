"""End a text where a sentence, a line or a speech ends.

    python examples/stop_strings.py

A stop string is found however it is cut into tokens, and is never shown, not even half of it while
the text is streamed. `finish_reason` tells whether one was found ("stop") or the text was cut off
("length").
"""

from __future__ import annotations

from gpt_neox_japanese import TextGenerator

with TextGenerator.from_pretrained() as generator:
    sentence = generator.generate("朝起きると、", stop="。", max_new_tokens=80, seed=3)
    print(f"朝起きると、{sentence}。")

    prompt = "「あなたは誰ですか」と聞くと、男は「"
    [answer] = generator.generate_details(prompt, stop=["」", "\n"], max_new_tokens=80, seed=4)
    print(f"{prompt}{answer.text}」  ({answer.finish_reason})")
