"""The same run in one process and in two."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import TrainingArguments

from gpt_neox_japanese.errors import NeoXJapaneseError
from gpt_neox_japanese.files.outputs import locked
from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig
from gpt_neox_japanese.model.modeling import GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.training.arguments import training_arguments
from gpt_neox_japanese.training.checkpoints.gather import (
    gather_optimizer,
    gather_parameters,
    restore_optimizer,
    restore_parameters,
    shard_again,
)
from gpt_neox_japanese.training.data.conversations import prepare_conversations
from gpt_neox_japanese.training.optim.optimizer import MuonAndAdamW
from gpt_neox_japanese.training.optim.weight_average import WeightAverage
from gpt_neox_japanese.training.run import train
from gpt_neox_japanese.training.settings import Architecture, Settings
from tests.training.test_defaults import SMALL, made

ROOT = Path(__file__).parents[2]
OPTIONS = {
    "sequence_length": 32,
    "steps": 4,
    "dtype": "fp32",
    "learning_rate": 3e-3,
    "log_every": 3,  # a checkpoint is saved between two lines
    "eval_every": 2,
    "save_every": 2,
    "hidden_size": 16,
    "layers": 1,
    "heads": 2,
}
IDS = torch.randint(3, 40, (2, 16), generator=torch.Generator().manual_seed(0))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`neox-ja train …` in two processes; torchrun itself would start a third for itself."""
    code = "from gpt_neox_japanese.cli import main; main()"
    environment = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code, "train", *map(str, arguments)],
            cwd=ROOT,
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outcomes = [process.communicate() for process in processes]
    status = max(process.returncode for process in processes)
    return subprocess.CompletedProcess(
        [], status, "".join(out for out, _ in outcomes), "".join(err for _, err in outcomes)
    )


def losses(run: Path) -> list[float]:
    lines = map(json.loads, (run / "loss.jsonl").read_text(encoding="utf-8").splitlines())
    return [
        line.get("loss") or line["held_out_bits_per_character"]
        for line in lines
        if "dtype" not in line
    ]


def test_two_processes_have_the_losses_of_one_which_resumes_them(
    prepared: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**OPTIONS, "data": str(prepared)}), encoding="utf-8")
    shape = Architecture(16, 1, 2)
    settings = {name: value for name, value in OPTIONS.items() if name not in vars(shape)}
    assert train(prepared, tmp_path / "one", Settings(batch_size=4, **settings), shape)  # type: ignore[arg-type]
    command = ("--config", config, "--output", tmp_path / "two", "--batch-size", 2)
    result = torchrun(*command)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"the model is in {tmp_path / 'two'}\n"
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    assert (tmp_path / "two" / "checkpoint-4" / "random-1.safetensors").is_file()
    for once in ("it takes about ", "step 0/4: held-out text ", "step 1/4: loss "):
        assert result.stderr.count(once) == 1, result.stderr
    shutil.rmtree(tmp_path / "two" / "checkpoint-4")
    settings |= {"batch_size": 2, "gradient_accumulation": 1}  # of each process
    assert train(prepared, tmp_path / "two", Settings(**settings), shape, resume=True)  # type: ignore[arg-type]
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    page = (tmp_path / "two" / "report.md").read_text(encoding="utf-8")
    assert "all of it, as `neox-ja evaluate` reads it" in page


def test_two_processes_end_both_where_another_run_is_writing(
    prepared: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**OPTIONS, "data": str(prepared)}), encoding="utf-8")
    output = tmp_path / "run"
    with locked(output / ".train", output):
        result = torchrun("--config", config, "--output", output)
    assert result.returncode == 2
    assert result.stderr.count(f"another run is writing --output {output}") == 2
    assert not list(output.iterdir())


@pytest.mark.filterwarnings("ignore")  # PEFT's and its dependencies' own
def test_two_processes_do_what_one_does_with_answers_adapters_averages_and_samples(
    tmp_path: Path,
) -> None:
    pytest.importorskip("peft")
    lines = [
        json.dumps({"id": str(number), "prompt": "空は何色？", "completion": "青です。" * number})
        for number in range(1, 13)
    ]
    (tmp_path / "talk.jsonl").write_text("\n".join(lines), encoding="utf-8")
    data, base = tmp_path / "data", tmp_path / "base"
    prepare_conversations([tmp_path / "talk.jsonl"], "default", data, held_out=0.3)
    shape = Architecture(16, 1, 2)
    assert train(data, base, Settings(sequence_length=64, batch_size=1, steps=1), shape)
    usual: dict[str, Any] = {
        **{name: value for name, value in OPTIONS.items() if name not in vars(shape)},
        "sequence_length": 64,
        "lora_rank": 2,
        "merge": True,
        "ema": 0.5,
        "keep_best": True,
        "early_stopping": 2,
        "sample_prompt": ["空は何色？"],
        "sample_tokens": 4,
    }
    settings = Settings(**{**usual, "sample_prompt": ("空は何色？",)}, batch_size=2)
    assert train(data, tmp_path / "one", settings, base)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**usual, "data": str(data), "init_from": str(base)}))
    command = ("--config", config, "--output", tmp_path / "two", "--batch-size", 1)
    result = torchrun(*command)
    assert result.returncode == 0, result.stderr
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    one, two = (
        load_file(tmp_path / run / "merged" / "model.safetensors") for run in ("one", "two")
    )
    assert all(torch.allclose(one[name].float(), two[name].float(), atol=1e-2) for name in one)
    written = [(tmp_path / run / "samples.jsonl").read_text() for run in ("one", "two")]
    assert written[0].count("\n") == written[1].count("\n") == 3


def test_sharding_on_cpus_is_refused_instead_of_ignored(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(NeoXJapaneseError, match="--shard needs GPUs"):
        train(prepared, tmp_path / "run", Settings(shard=True), Architecture())


def model() -> GPTNeoXJapaneseForCausalLM:
    torch.manual_seed(0)
    return GPTNeoXJapaneseForCausalLM(
        GPTNeoXJapaneseConfig(
            vocab_size=40,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=16,
            bos_token_id=1,
            eos_token_id=2,
            attention_dropout=0.0,
        )
    )


def steps(
    of: GPTNeoXJapaneseForCausalLM, optimizer: MuonAndAdamW, ids: torch.Tensor
) -> list[float]:
    found = []
    for _ in range(2):
        loss = of(ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.detach())
    losses = torch.stack(found)
    if dist.is_initialized():
        dist.all_reduce(losses)
        losses /= dist.get_world_size()
    return [round(loss, 5) for loss in losses.tolist()]


def sharded(rank: int, port: int, results: Path) -> None:
    """Two steps, measure an average, two steps, measure, gather, restore afresh, two steps."""
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", address, rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))

    def fresh() -> tuple[GPTNeoXJapaneseForCausalLM, MuonAndAdamW]:
        part = model()
        body = part.gpt_neox_japanese
        for layer in body.layers:
            fully_shard(layer, mesh=mesh)
        # As accelerate does it: these stay whole from a forward pass to the backward pass.
        ends = [body.final_layer_norm, body.embed_in, part.embed_out]
        fully_shard(ends, mesh=mesh, reshard_after_forward=False)
        fully_shard(part, mesh=mesh)
        return part, MuonAndAdamW(part, lr=1e-2, weight_decay=0.1)

    first, optimizer = fresh()
    average = WeightAverage(first.named_parameters(), decay=0.5)
    found = steps(first, optimizer, IDS[rank : rank + 1])
    with average.in_place(), torch.no_grad():
        first(IDS, use_cache=False)
        shard_again(first)
    found += steps(first, optimizer, IDS[rank : rank + 1])
    with torch.no_grad():
        first(IDS, use_cache=False)
    shard_again(first)
    names = list(first.named_parameters())
    weights = gather_parameters(names)
    tensors, groups = gather_optimizer(optimizer, names)
    second, again = fresh()
    names = list(second.named_parameters())
    restore_parameters(names, weights)
    restore_optimizer(again, names, tensors, groups)
    found += steps(second, again, IDS[rank : rank + 1])
    if rank == 0:
        results.write_text(json.dumps(found), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


def test_a_sharded_model_steps_is_measured_saves_and_loads_as_a_whole_one(tmp_path: Path) -> None:
    """FSDP2 itself, over two CPUs, with our optimizer; Trainer shards GPUs only."""
    arguments = (free_port(), tmp_path / "losses.json")
    torch.multiprocessing.spawn(sharded, arguments, nprocs=2)
    found = json.loads((tmp_path / "losses.json").read_text(encoding="utf-8"))
    whole = model()
    optimizer = MuonAndAdamW(whole, lr=1e-2, weight_decay=0.1)
    expected = [loss for _ in range(3) for loss in steps(whole, optimizer, IDS)]
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_process_trains_on_one_gpu_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(TrainingArguments, "n_gpu", 2)
        arguments = training_arguments(tmp_path, made(), SMALL, measures=False, starts=True)
    assert arguments.n_gpu == 1
