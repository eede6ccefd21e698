"""`neox-ja train`: pretraining from scratch, or training on from a checkpoint."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from gpt_neox_japanese.checks import short_repr
from gpt_neox_japanese.cli.options.number_types import Real, Whole
from gpt_neox_japanese.cli.options.shared import MODEL, PATH, PATH_OR_URL, renamed_option
from gpt_neox_japanese.cli.options.stdin import TEXT
from gpt_neox_japanese.errors import TrainingError
from gpt_neox_japanese.training.settings import (
    FLOAT_RANGES,
    INTEGER_RANGES,
    LORA_TARGETS,
    Architecture,
    Settings,
)

__all__ = ["command"]

_PRECISION = click.Choice(["bf16", "fp32"])
_DEFAULTS = {**asdict(Architecture()), **asdict(Settings())}
_FLAG = ParameterSource.COMMANDLINE
_SHAPE = tuple(asdict(Architecture()))


def _option(name: str, kind: Any, text: str) -> Callable[[Any], Any]:
    default = _DEFAULTS[name.removeprefix("--").replace("-", "_")]
    shown = default is not None
    return click.option(name, type=kind, default=default, show_default=shown, help=text)


def _number(name: str, text: str) -> Callable[[Any], Any]:
    setting = name.removeprefix("--").replace("-", "_")
    kind = (
        Whole(*INTEGER_RANGES[setting])
        if setting in INTEGER_RANGES
        else Real(*FLOAT_RANGES[setting])
    )
    return _option(name, kind, text)


class _HereOrInFile(click.Option):
    """A required option that the file of --config may give."""

    def get_help_extra(self, ctx: click.Context) -> Any:
        """What `--help` shows in brackets."""
        return {**super().get_help_extra(ctx), "required": "required, here or in --config"}


def _flag(name: str, text: str) -> Callable[[Any], Any]:
    return click.option(name, is_flag=True, help=text)


def _read_config(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Make the file's values the defaults of the options."""
    if path is None:
        return
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise click.UsageError(f"{path} cannot be read: {error}; it must be TOML or JSON") from None
    if not isinstance(values, dict):
        raise click.UsageError(f"{path} must hold names and values")
    values = {name.replace("-", "_"): value for name, value in values.items()}
    if "model" in values:
        raise click.UsageError(f"{path} has 'model', which is called 'init_from' now")
    options = {str(option.name): option for option in context.command.params}
    if unknown := sorted(values.keys() - (options.keys() - {"config", "resume"})):
        raise click.UsageError(f"{path} has {short_repr(unknown[0])}, which is no option of train")
    # A null stands for an option that is not given.
    values = {name: value for name, value in values.items() if value is not None}
    for name, value in values.items():
        if kind := _other_kind(options[name], value):
            raise click.UsageError(f"{path}: {name} is {short_repr(value)}; it must be {kind}")
    context.default_map = values


def _other_kind(option: click.Parameter, value: Any) -> str | None:
    """What a value of a file must be, if it is something else; click expects texts everywhere."""
    if isinstance(option, click.Option) and option.is_flag:
        return None if isinstance(value, bool) else "true or false"
    if option.multiple:
        texts = isinstance(value, list) and all(isinstance(text, str) for text in value)
        return None if texts else "a list of texts"
    if isinstance(option.type, (Whole, Real)):
        return None if isinstance(value, (int, float, str)) else "a number"
    return None if isinstance(value, str) else "a text"


@click.command()
@click.option(
    "--config",
    type=PATH,
    is_eager=True,
    expose_value=False,
    callback=_read_config,
    help="TOML or JSON file of these options, such as a run's train.json; flags go first.",
)
@click.option(
    "--data",
    cls=_HereOrInFile,
    required=True,
    type=PATH_OR_URL,
    help="Directory that `neox-ja prepare` made, an indexed dataset (.bin and .idx), or what "
    "datatrove wrote (a .ds file, or a directory of them). Of a URL, a copy is kept here.",
)
@click.option(
    "--output",
    cls=_HereOrInFile,
    required=True,
    type=PATH,
    help="Directory of the run: the model, report.md, train.json, loss.jsonl, checkpoints.",
)
@click.option(
    "--init-from",
    type=MODEL,
    metavar="PATH_OR_ID",
    help="Model to train on from: a directory or a Hub id; without it, a new one is made.",
)
@renamed_option("--model", "--init-from")
@click.option(
    "--tokenizer",
    type=MODEL,
    metavar="PATH_OR_ID",
    help="Vocabulary of an indexed dataset.  [default: --init-from's]",
)
@click.option("--held-out-data", type=PATH_OR_URL, help="Held-out part of an indexed dataset.")
@_number("--hidden-size", "Channels of a new model.")
@_number("--layers", "Layers of a new model.")
@_number("--heads", "Attention heads of a new model.")
@_number("--sequence-length", "Tokens of a window.  [default: 512, or what the model reads]")
@_number("--batch-size", "Windows per device and forward pass.  [default: by length and memory]")
@_number("--gradient-accumulation", "Forward passes per step.  [default: 1, or by memory]")
@_number("--steps", "Length of the run in steps.")
@_number("--tokens", "Length of the run in tokens.")
@_number(
    "--epochs",
    "Length of the run in passes over the text.  [default: 3 for --init-from; 10 for a new model, "
    "and at most 8 million tokens]",
)
@_option("--optimizer", click.Choice(["auto", "muon", "adamw"]), "auto: adamw for LoRA, or muon.")
@_number("--learning-rate", "Peak learning rate.  [default: by kind of run and size of model]")
@_option("--schedule", click.Choice(["wsd", "cosine"]), "wsd: warm-up, constant, linear decay.")
@_number(
    "--warmup",
    "Fraction of the steps over which the learning rate rises.  [default: 0.02; 0.05 for "
    "--init-from]",
)
@_number(
    "--decay",
    "Fraction of the steps over which it falls, at the end (wsd).  [default: 0.2; 0.5 for "
    "--init-from]",
)
@_number("--weight-decay", "Weight decay of the matrices.")
@_number("--max-grad-norm", "Gradients are clipped to this norm; 0: no clipping.")
@_number("--seed", "Seed of the weights and of the order of the windows.")
@_option(
    "--dtype",
    click.Choice(["auto", "bf16", "fp32"]),
    "Precision of the computation; weights stay fp32. auto: bf16 where the device has units for "
    "it.",
)
@_option("--save-dtype", _PRECISION, "Precision of the finished model.")
@_flag("--compile", "Run the model through torch.compile.")
@_flag("--gradient-checkpointing", "Compute activations twice instead of keeping them.")
@_option("--attention", TEXT, "Attention of transformers: sdpa, flash_attention_2, …")
@_flag("--document-masking", "Mask attention between documents.")
@_number("--subword-dropout", "BPE-dropout-style subword regularisation probability.")
@_number("--lora-rank", "Train adapters of this rank for --init-from; 0: all weights.")
@_number("--lora-alpha", "Scale of the adapters.  [default: twice the rank]")
@click.option(
    "--lora-target",
    type=click.Choice(LORA_TARGETS),
    multiple=True,
    help="Matrix that has adapters; may be repeated.  [default: query_key_value]",
)
@_number("--lora-dropout", "Probability of dropping an input of the adapters.")
@_option(
    "--frozen-dtype",
    _PRECISION,
    "How the matrices beside adapters are kept, if --init-from is not quantised.  "
    "[default: as --dtype]",
)
@_flag("--merge", "Write --init-from with its adapters merged to OUTPUT/merged as well.")
@_number("--ema", "Measure and leave a running average of the weights of this decay; 0: none.")
@_flag("--shard", "Shard weights and optimizer state over torchrun's GPUs (FSDP2).")
@_number("--log-every", "Steps between lines of loss.jsonl.  [default: at most 10]")
@_number("--eval-every", "Steps between measurements on the held-out text.  [default: a tenth]")
@_number("--eval-tokens", "Held-out tokens of such a measurement.  [default: 10 % of the time]")
@_number("--save-every", "Steps between saves.  [default: half of the run, at most 500]")
@_flag("--keep-best", "Leave the model with the best measurement, not the last one.")
@_number("--early-stopping", "End after so many measurements without a better one; 0: never.")
@click.option(
    "--sample-prompt",
    type=TEXT,
    multiple=True,
    help="Beginning that the model continues at each measurement; may be repeated.",
)
@_number("--sample-tokens", "Tokens of such a continuation.")
@click.option(
    "--report-to",
    type=TEXT,
    multiple=True,
    metavar="NAME",
    help="Tell a reporter of transformers as well: tensorboard, wandb, mlflow, …; may be repeated.",
)
@click.option("--resume", is_flag=True, help="Continue the run in --output.")
def command(
    data: Path | str,
    output: Path,
    init_from: str | None,
    tokenizer: str | None,
    held_out_data: Path | str | None,
    hidden_size: int,
    layers: int,
    heads: int,
    resume: bool,
    **options: Any,
) -> None:
    """Train a model on a prepared corpus.

    Ctrl-C ends the run after the step it is in and saves it; the same command with --resume
    continues it. Under torchrun each process trains on different windows.
    """
    context = click.get_current_context()
    _settle_length(context, options)
    if init_from is not None:
        _refuse_shape(context)
    elif hidden_size % heads:
        raise click.UsageError(f"--hidden-size {hidden_size} is not a multiple of --heads {heads}")
    if options["lora_rank"] and init_from is None:
        raise click.UsageError("--lora-rank adapts a trained model; name one with --init-from")

    from transformers.utils.logging import disable_progress_bar

    from gpt_neox_japanese.training.distributed import destroy_process_group, rank
    from gpt_neox_japanese.training.run import train

    disable_progress_bar()  # the run has its own
    settings = Settings(**options)
    start = init_from or Architecture(hidden_size, layers, heads)
    try:
        finished = train(
            data,
            output,
            settings,
            start,
            tokenizer=tokenizer,
            held_out=held_out_data,
            resume=resume,
        )
    except TrainingError as error:
        raise click.ClickException(str(error)) from error
    finally:
        destroy_process_group()
    if rank() != 0:
        return
    if finished and settings.merge:
        click.echo(
            f"the adapters are in {output}, the model with them merged in {output / 'merged'}"
        )
    elif finished and settings.lora_rank:
        click.echo(
            f"the adapters are in {output}; neox-ja merge {output} --output MODEL makes a model of "
            "them"
        )
    elif finished:
        click.echo(f"the model is in {output}")
    else:
        click.echo(f"stopped; continue with the same command and --resume ({output})", err=True)
        raise click.exceptions.Exit(130)


def _settle_length(context: click.Context, options: dict[str, Any]) -> None:
    """Let the length that a flag gives go before another one of the file."""
    lengths = [name for name in ("steps", "tokens", "epochs") if options[name] is not None]
    flags = [name for name in lengths if context.get_parameter_source(name) is _FLAG]
    for name in lengths:
        if flags and name not in flags:
            options[name] = None
    both = flags or lengths
    if len(both) > 1:
        raise click.UsageError(f"--{both[0]} and --{both[1]} exclude each other")


def _refuse_shape(context: click.Context) -> None:
    """Refuse the shape of a new model where there is a model already.

    In a file, that of a new model may stand beside a flag that names a model.
    """
    named_by = context.get_parameter_source("init_from")
    for name in _SHAPE:
        source = context.get_parameter_source(name)
        if source is _FLAG or (source is ParameterSource.DEFAULT_MAP and source is named_by):
            raise click.UsageError(
                f"--{name.replace('_', '-')} is of a new model, and --init-from names one that has "
                "a shape; leave out one of them"
            )
