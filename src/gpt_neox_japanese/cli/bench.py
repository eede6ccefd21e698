"""`neox-ja bench`: how fast a model writes on this machine."""

from __future__ import annotations

import json
from typing import Any

import click

from gpt_neox_japanese.cli.options.number_types import Whole
from gpt_neox_japanese.cli.options.shared import network_options

__all__ = ["command"]


@click.command()
@network_options
@click.option(
    "--texts",
    type=Whole(1, 4096),
    multiple=True,
    default=(1, 8, 32),
    show_default=True,
    help="How many texts to write at once. May be given several times.",
)
@click.option(
    "--prompt-tokens",
    type=Whole(min=1),
    help="Length of the prompt whose prefill is timed.  [default: 512, or what the model reads]",
)
@click.option(
    "--new-tokens",
    type=Whole(min=1),
    help="Length of each text that is written.  [default: 128, or what the model reads]",
)
@click.option("--rounds", type=Whole(1, 1000), default=3, show_default=True, help="Medians of.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    model: str,
    dtype: str,
    device: str,
    threads: int | None,
    texts: tuple[int, ...],
    prompt_tokens: int | None,
    new_tokens: int | None,
    rounds: int,
    as_json: bool,
) -> None:
    """Measure how fast a model writes on this machine.

    Tokens a second of several texts at once, of the prefill of a prompt, and how long the first
    token takes; tokens are sampled as the model's generation_config.json says. Nothing else should
    run meanwhile.

    One text reads all weights for each token: beside its rate stands the rate at which the same
    threads read them without computing. A text of Japanese has about two characters a token.
    """
    from dataclasses import asdict

    from gpt_neox_japanese import __version__
    from gpt_neox_japanese.inference.cpu.network import CompiledNetwork
    from gpt_neox_japanese.inference.loading.checkpoint import Checkpoint
    from gpt_neox_japanese.inference.loading.load import load_network
    from gpt_neox_japanese.inference.speed import bytes_per_step, measure_reading, measure_speed

    checkpoint = Checkpoint.open(model)
    network = load_network(
        checkpoint, dtype=dtype, device=device, slots=max(texts), threads=threads
    )
    room = network.capacity - 1
    prompt, writing = measure_speed(
        network,
        params=checkpoint.sampling_params,
        texts=texts,
        prompt_tokens=min(512, room) if prompt_tokens is None else prompt_tokens,
        new_tokens=min(128, room) if new_tokens is None else new_tokens,
        rounds=rounds,
    )
    result: dict[str, Any] = {
        "model": model,
        "version": __version__,
        "runs": network.description,
        "prompt": asdict(prompt),
        "writing": [asdict(each) for each in writing],
    }
    if isinstance(network, CompiledNetwork):  # a GPU's memory is not read from here
        size = bytes_per_step(network.weights)
        result["memory"] = {
            "bytes_per_token": size,
            "bytes_per_second": measure_reading(network.weights, network.threads),
        }
    click.echo(json.dumps(result, ensure_ascii=False) if as_json else _table(result))


def _table(result: dict[str, Any]) -> str:
    prompt, memory = result["prompt"], result.get("memory")
    speed = f"{prompt['tokens_per_second']:,.1f} tokens/s"
    first = f"{prompt['seconds_to_first_token']:.3f} s to the first new token"
    lines = [
        f"{result['model']}: {result['runs']}",
        "",
        f"a prompt of {prompt['tokens']:,} tokens: {speed}, {first}",
        "",
        f"{'texts at once':>13}{'tokens/s':>12}{'ms a token':>12}",
    ]
    for each in result["writing"]:
        milliseconds = 1000 * each["seconds_per_token"]
        lines.append(f"{each['texts']:>13}{each['tokens_per_second']:>12,.1f}{milliseconds:>12.2f}")
    alone = [each["tokens_per_second"] for each in result["writing"] if each["texts"] == 1]
    if memory and alone:
        size, possible = memory["bytes_per_token"], memory["bytes_per_second"]
        read = size * alone[0]
        share = f"{read / 1e9:.1f} GB/s, {read / possible:.0%} of the {possible / 1e9:.1f} it could"
        lines += ["", f"weights: {size / 1e6:,.1f} MB a token; one text reads {share}"]
    return "\n".join(lines)
