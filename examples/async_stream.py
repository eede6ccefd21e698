"""Several texts at once in one event loop, each shown as soon as it grows.

    python examples/async_stream.py

`astream` waits for tokens without holding up the loop, so that a web application can serve others
meanwhile. Who leaves the `async for` early, or is cancelled, ends the text.
"""

from __future__ import annotations

import asyncio

from gpt_neox_japanese import TextGenerator


async def show(generator: TextGenerator, prompt: str) -> str:
    """Write one text, and tell of every part of it."""
    text = prompt
    async for part in generator.astream(prompt, max_new_tokens=20, seed=2):
        text += part
        print(f"{prompt} … {part!r}")
    return text


async def main() -> None:
    """Write two texts side by side."""
    with TextGenerator.from_pretrained() as generator:
        texts = await asyncio.gather(*(show(generator, prompt) for prompt in ("海は", "山は")))
    print(*texts, sep="\n")


asyncio.run(main())
