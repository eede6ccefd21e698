"""Train a model like the one in the package, by the clock or without an end that is known yet.

    python scripts/default_model/pretrain.py DATA RUN --shape 512x8x8 --minutes 9       # a GPU
    torchrun --nproc-per-node 2 scripts/default_model/pretrain.py DATA RUN --init-from MODEL  # CPUs

DATA is what `neox-ja prepare` made. `neox-ja train` ends after a number of steps; this ends after
`--minutes`, its learning rate following the clock, or goes on at a constant rate until it is told
to `--finish-tokens N`: then the rate falls to zero over N tokens. The same command goes on with
what RUN holds. SIGTERM ends it after the step, with everything saved; a kill costs what came since
the last save. With torchrun each process computes its part of a step on one thread and they meet
once a step, so that beside other programs none waits long for a thread that the system has put
aside.

RUN gets

    state.pt        weights, their running average, optimizer, place in the data
    log.jsonl       losses, tokens per second, bits per character of held-out text
    model           the weights in bfloat16, as a model directory
    average         their running average over about `--average-tokens`, likewise

and `--pieces DIR` the better of the two, in files of at most 15 MB that `cat` joins.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers.utils.logging import disable_progress_bar

from gpt_neox_japanese import GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.files.atomic import write_file
from gpt_neox_japanese.files.model_directory import find_model
from gpt_neox_japanese.training.checkpoints.export import export
from gpt_neox_japanese.training.data.dataset import IGNORED, TrainingWindows, collate
from gpt_neox_japanese.training.data.run_data import TextData, open_data
from gpt_neox_japanese.training.defaults import RunFacts, complete_settings, mode_of
from gpt_neox_japanese.training.distributed import destroy_process_group, rank, world_size
from gpt_neox_japanese.training.machine.malloc import keep_freed_memory
from gpt_neox_japanese.training.machine.memory_estimate import free_memory
from gpt_neox_japanese.training.machine.precision import training_device
from gpt_neox_japanese.training.model_setup import make_model, model_config
from gpt_neox_japanese.training.optim.optimizer import MuonAndAdamW
from gpt_neox_japanese.training.settings import Architecture, Settings

STATE, LOG = "state.pt", "log.jsonl"
PIECE = 15_000_000


def main(arguments: Sequence[str] | None = None, age: float = 0.0) -> None:
    """Train as the command line says; the process is already so many seconds old."""
    started = time.monotonic() - age
    options = _parser().parse_args(arguments)
    disable_progress_bar()
    run = Run(options, started)
    try:
        run.train()
    finally:
        destroy_process_group()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--init-from", help="a model directory, or `default`")
    start.add_argument("--shape", help="of a new model: CHANNELSxLAYERSxHEADS")
    parser.add_argument("--sequence-length", type=int, default=512)
    parser.add_argument("--batch", type=int, default=32, help="windows a step, of all processes")
    parser.add_argument("--micro-batch", type=int, default=4, help="windows a forward pass")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--warmup-steps", type=int, default=200)
    end = parser.add_mutually_exclusive_group()
    end.add_argument("--minutes", type=float, help="until the end, everything counted")
    end.add_argument("--finish-tokens", type=float, help="decay over these from now on, then end")
    parser.add_argument("--decay", type=float, default=0.3, help="last part of --minutes")
    parser.add_argument("--reserve-seconds", type=float, default=15, help="of --minutes, to save")
    parser.add_argument("--average-tokens", type=float, default=4e6)
    parser.add_argument("--pieces", type=Path, help="directory for the pieces")
    parser.add_argument("--save-minutes", type=float, default=10)
    parser.add_argument("--measure-minutes", type=float, default=30)
    parser.add_argument("--held-out-tokens", type=int, default=2**17)
    parser.add_argument("--log-steps", type=int, default=10)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="worth it on a GPU")
    return parser


class Run:
    """One process of a run.

    Args:
        options: The command line.
        started: When the process began, on the monotonic clock.
    """

    def __init__(self, options: argparse.Namespace, started: float) -> None:
        self._options, self._started = options, started
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self._device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        else:
            keep_freed_memory()
        if world_size() > 1:
            torch.set_num_threads(1)
            # A process may be stopped for hours and go on.
            dist.init_process_group("gloo", timeout=timedelta(days=30))
        self._data = _open_texts(options.data)
        self._micro = options.batch // (options.micro_batch * world_size())
        if self._micro * options.micro_batch * world_size() != options.batch:
            raise SystemExit("--batch must be a multiple of --micro-batch times the processes")
        options.run.mkdir(parents=True, exist_ok=True)
        self._model = _make_model(options, self._data)
        self._model.to(self._device)  # type: ignore[arg-type]
        self._parameters = dict(self._model.named_parameters())
        self._optimizer = MuonAndAdamW(self._model, options.learning_rate, options.weight_decay)
        self._average = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._step = 0
        self._finish: tuple[int, float] | None = None  # from this token on, over so many
        self._elapsed = 0.0  # as the first process has it
        self._asked_to_stop = self._stopping = False  # this process; all of them
        self._best = "average"
        self._resume()
        if options.finish_tokens and self._finish is None:
            self._finish = self._tokens, options.finish_tokens
        self._compute_loss = _loss_function(self._model, compiled=options.compile)
        held_out = self._data.held_out_windows(options.sequence_length, options.held_out_tokens)
        self._held_out = DataLoader(held_out, batch_size=options.micro_batch, collate_fn=collate)

    def train(self) -> None:
        """Take steps until the end, or until somebody asks to stop."""
        options = self._options
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask_to_stop)
        batches = iter(self._batches())
        saved = measured = logged = time.monotonic()
        logged_step = self._step
        while self._left() > 0 and not self._stopping:
            rate = self._rate()
            loss = self._take_step(batches, rate)
            if self._step % options.log_steps == 0:
                value = float(loss)  # waits for the device
                now = time.monotonic()
                per_step = options.batch * options.sequence_length
                speed = (self._step - logged_step) * per_step / (now - logged)
                self._write_log(loss=value, rate=rate, tokens_per_second=round(speed))
                logged, logged_step = now, self._step
            now = time.monotonic()
            if now - measured > options.measure_minutes * 60:
                self._measure()
                measured = time.monotonic()
            if now - saved > options.save_minutes * 60:
                self._save()
                saved = time.monotonic()
        if not self._stopping:
            self._measure()
        self._save()

    def _take_step(self, batches: Iterator[Mapping[str, Tensor]], rate: float) -> Tensor:
        """Update the weights once, and return the loss; nothing here waits for a GPU."""
        options = self._options
        total = torch.zeros((), device=self._device)
        for _ in range(self._micro):
            ids = next(batches)["input_ids"].to(self._device, non_blocking=True)
            with torch.autocast(self._device.type, torch.bfloat16):
                loss = self._compute_loss(ids) / self._micro
            loss.backward()
            total += loss.detach()
        loss = self._meet(total)
        self._ignore_overflow()
        nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        weight = min(1.0, options.batch * options.sequence_length / options.average_tokens)
        weight = max(weight, 1 / (self._step + 1))
        parameters = [p.detach() for p in self._parameters.values()]
        torch._foreach_lerp_(list(self._average.values()), parameters, weight)
        self._optimizer.zero_grad(set_to_none=True)
        self._step += 1
        return loss

    def _ignore_overflow(self) -> None:
        """Make all gradients zero if one of them is no number, without waiting for the device."""
        gradients = [p.grad for p in self._parameters.values() if p.grad is not None]
        overflow = ~torch.stack(torch._foreach_norm(gradients)).isfinite().all()
        for gradient in gradients:
            gradient.masked_fill_(overflow, 0.0)

    def _meet(self, loss: Tensor) -> Tensor:
        """Average gradients and loss over the processes, and agree on the time and on stopping."""
        if world_size() == 1:
            self._elapsed = time.monotonic() - self._started
            self._stopping = self._asked_to_stop
            return loss
        gradients = [p.grad for p in self._parameters.values()]
        mine = time.monotonic() - self._started if rank() == 0 else 0.0
        flags = torch.tensor([float(loss), float(self._asked_to_stop), mine])
        flat = torch.cat([flags, *(g.flatten() for g in gradients if g is not None)])
        dist.all_reduce(flat)
        first = 3
        for gradient in gradients:
            if gradient is not None:
                part = flat[first : first + gradient.numel()]
                gradient.copy_(part.view_as(gradient)).div_(world_size())
                first += gradient.numel()
        self._stopping, self._elapsed = bool(flat[1] > 0), float(flat[2])
        return flat[0] / world_size()

    @property
    def _tokens(self) -> int:
        return self._step * int(self._options.batch * self._options.sequence_length)

    def _left(self) -> float:
        """How much of the decay is left: 1 or more before it, 0 at the end."""
        options = self._options
        if options.minutes:
            whole = options.minutes * 60 - options.reserve_seconds
            return float((1 - self._elapsed / whole) / options.decay)
        if self._finish is not None:
            start, length = self._finish
            return 1 - (self._tokens - start) / length
        return math.inf

    def _rate(self) -> float:
        warm = (self._step + 1) / self._options.warmup_steps
        return float(self._options.learning_rate * min(warm, self._left(), 1.0))

    def _batches(self) -> DataLoader[dict[str, Tensor]]:
        """The forward passes of this process, from the next step on."""
        options = self._options
        windows = TrainingWindows(self._data.train, options.sequence_length, 2**53, options.seed)
        own = options.batch // world_size()

        def indices() -> Iterator[list[int]]:
            for step in count(self._step):
                first = step * options.batch + rank() * own
                for start in range(first, first + own, options.micro_batch):
                    yield list(range(start, start + options.micro_batch))

        on_gpu = self._device.type == "cuda"
        return DataLoader(
            windows,
            batch_sampler=_Batches(indices),
            num_workers=8 if on_gpu else 0,
            prefetch_factor=4 if on_gpu else None,
            pin_memory=on_gpu,
        )

    def _measure(self) -> None:
        """Bits per character of held-out text, of the weights and of their average."""
        if rank() == 0:
            bits = self._bits_per_character()
            with self._averaged():
                average = self._bits_per_character()
            self._best = "average" if average < bits else "model"
            self._write_log(held_out=bits, held_out_average=average)
        # The others wait for it in the next step.

    def _bits_per_character(self) -> float:
        nats, tokens = torch.zeros(2, dtype=torch.float64, device=self._device)
        # Without gradients everything would be compiled once more.
        stance = (
            torch.compiler.set_stance("force_eager") if self._options.compile else nullcontext()
        )
        with torch.no_grad(), stance, torch.autocast(self._device.type, torch.bfloat16):
            for batch in self._held_out:
                inputs = {name: tensor.to(self._device) for name, tensor in batch.items()}
                count = (inputs["shift_labels"] != IGNORED).sum()
                nats += self._model(**inputs, skip_logits=True, use_cache=False).loss * count
                tokens += count
        return float(nats / tokens) / math.log(2) * self._data.tokens_per_character

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The model with its averaged weights."""
        for swap in range(2):
            with torch.no_grad():
                for name, parameter in self._parameters.items():
                    kept = parameter.detach().clone()
                    parameter.copy_(self._average[name])
                    self._average[name].copy_(kept)
            if not swap:
                yield

    def _save(self) -> None:
        if rank() != 0:
            return
        state = {
            "model": {name: p.detach() for name, p in self._parameters.items()},
            "average": self._average,
            "optimizer": self._optimizer.state_dict(),
            "step": self._step,
            "finish": self._finish,
            "best": self._best,
            "seed": self._options.seed,
            "window": self._options.sequence_length,
            "batch": self._options.batch,
        }
        fresh = self._options.run / f".{STATE}.new"
        with fresh.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._options.run / STATE)
        for name, weights in (("model", state["model"]), ("average", self._average)):
            export(
                self._model,
                {key: weight.cpu() for key, weight in weights.items()},
                self._data.tokenizer,
                self._options.run / name,
                torch.bfloat16,
            )
        if self._options.pieces:
            _write_pieces(self._options.run / self._best, self._options.pieces)

    def _resume(self) -> None:
        path = self._options.run / STATE
        if not path.is_file():
            return
        state = torch.load(path, map_location=self._device, weights_only=True)
        options = self._options
        now = options.seed, options.sequence_length, options.batch
        if now != (state["seed"], state["window"], state["batch"]):
            raise SystemExit(
                f"{path} was written with --seed {state['seed']} --sequence-length "
                f"{state['window']} --batch {state['batch']}; give the same, or start another run "
                f"with --init-from {options.run / 'model'}"
            )
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(state["model"][name])
                self._average[name].copy_(state["average"][name])
        self._optimizer.load_state_dict(state["optimizer"])
        self._best = state.get("best", self._best)  # older states do not say
        self._step, self._finish = state["step"], state["finish"]

    def _write_log(self, **values: float) -> None:
        if rank() != 0:
            return
        line = {
            "step": self._step,
            "tokens": self._tokens,
            "seconds": round(self._elapsed),
            **values,
        }
        with (self._options.run / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(line, flush=True)

    def _ask_to_stop(self, *_: Any) -> None:
        self._asked_to_stop = True


def _write_pieces(model: Path, directory: Path) -> None:
    """Write a model's weights in files of at most `PIECE` bytes, and the SHA-256 of the whole."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = (model / "model.safetensors").read_bytes()
    for index in range(-(-len(weights) // PIECE)):
        part = weights[index * PIECE : (index + 1) * PIECE]
        write_file(directory / f"model.safetensors.{index}", part)
    digest = hashlib.sha256(weights).hexdigest()
    write_file(directory / "model.safetensors.sha256", f"{digest}  model.safetensors\n".encode())
    write_file(directory / "config.json", (model / "config.json").read_bytes())


class _Batches:
    """What a `DataLoader` takes for a sampler of batches."""

    def __init__(self, indices: Callable[[], Iterator[list[int]]]) -> None:
        self._indices = indices

    def __iter__(self) -> Iterator[list[int]]:
        return self._indices()


def _open_texts(name: Path) -> TextData:
    data = open_data(name, None)
    if not isinstance(data, TextData) or not data.num_held_out_tokens:
        raise SystemExit(f"{name} must hold texts, some of them held out; prepare them anew")
    return data


def _make_model(options: argparse.Namespace, data: TextData) -> GPTNeoXJapaneseForCausalLM:
    if options.init_from is not None:
        start: Architecture | Path = find_model(options.init_from)
    else:
        start = Architecture(*map(int, options.shape.split("x")))
    settings = Settings(
        sequence_length=options.sequence_length, batch_size=options.micro_batch, seed=options.seed
    )
    facts = RunFacts(
        mode=mode_of(settings, start),
        config=model_config(start, data, options.sequence_length),
        tokens_per_epoch=data.tokens_per_epoch,
        processes=world_size(),
        device=training_device(),
        free_memory=free_memory(),
    )
    model = make_model(start, data, complete_settings(settings, facts))
    model.train()
    return model


def _loss_function(model: GPTNeoXJapaneseForCausalLM, *, compiled: bool) -> Any:
    """Window ids [windows, tokens] → mean loss of the next token."""
    if not compiled:
        return lambda ids: model(input_ids=ids, labels=ids, use_cache=False).loss
    # Layers share what is compiled for one of them, which takes seconds, not minutes.
    for layer in model.gpt_neox_japanese.layers:
        layer.compile()
    weight = model.embed_out.weight

    @torch.compile
    def head_loss(states: Tensor, targets: Tensor) -> Tensor:
        scores = nn.functional.linear(states, weight)
        return nn.functional.cross_entropy(scores.float(), targets)

    def loss(ids: Tensor) -> Tensor:
        states = model.gpt_neox_japanese(input_ids=ids, use_cache=False).last_hidden_state
        return head_loss(states[:, :-1].flatten(0, 1), ids[:, 1:].flatten())

    return loss


if __name__ == "__main__":
    main(age=time.time() - psutil.Process().create_time())  # imports count, too
