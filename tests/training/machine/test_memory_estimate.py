"""What a step takes in memory is counted before it is tried."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gpt_neox_japanese import machine
from gpt_neox_japanese.errors import NeoXJapaneseError
from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig
from gpt_neox_japanese.model.modeling import GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.quantization.hf_modules import halve_matrices
from gpt_neox_japanese.training.machine import cpu_attention
from gpt_neox_japanese.training.machine import memory_estimate as module
from gpt_neox_japanese.training.machine.memory_estimate import estimate_memory
from gpt_neox_japanese.training.model_setup import add_adapters
from gpt_neox_japanese.training.optim.optimizer import MuonAndAdamW, adamw
from gpt_neox_japanese.training.run import train
from gpt_neox_japanese.training.settings import LORA_TARGETS, Architecture, RunSettings, Settings
from tests.cli.run import assert_refused, run

WINDOW, BATCH = 128, 4


def decided(**settings: Any) -> RunSettings:
    """Settings of a run, of which a test says what matters to it."""
    usual = {"sequence_length": 512, "batch_size": 16, "gradient_accumulation": 1, "steps": 1}
    intervals = dict.fromkeys(("log_every", "eval_every", "eval_tokens", "save_every"), 1)
    rates = {"learning_rate": 0.0, "warmup": 0.0, "decay": 0.0, "dtype": "fp32"}
    return RunSettings(**{**usual, **intervals, **rates, **settings})


def config(layers: int = 4, **sizes: Any) -> GPTNeoXJapaneseConfig:
    return GPTNeoXJapaneseConfig(
        vocab_size=1000,
        hidden_size=128,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=WINDOW,
        attention_dropout=0.0,
        bos_token_id=0,
        eos_token_id=1,
        **sizes,
    )


def kept_for_the_backward_pass(model: GPTNeoXJapaneseForCausalLM, dtype: str) -> int:
    """Bytes that a forward pass of a batch leaves in memory, besides the weights."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.randint(0, 1000, (BATCH, WINDOW))
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
        model(input_ids=ids, labels=ids)
    return sum(t.untyped_storage().nbytes() for p, t in kept.items() if p not in weights)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("sizes", [{}, {"intermediate_multiple_size": 2}], ids=str)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_count_is_near_what_a_forward_pass_keeps(
    dtype: Any, checkpointing: bool, sizes: dict[str, int]
) -> None:
    settings = decided(
        sequence_length=WINDOW, batch_size=BATCH, dtype=dtype, gradient_checkpointing=checkpointing
    )
    model = GPTNeoXJapaneseForCausalLM(config(**sizes)).train()
    model.skip_logits_in_training = True
    model.config.use_cache = False
    if dtype == "bf16":
        model.set_attn_implementation(cpu_attention.NAME)
    counted = estimate_memory(model.config, settings).per_window * BATCH
    if checkpointing:
        # The layer that is computed again comes on top of what is kept meanwhile.
        counted -= estimate_memory(config(1), settings).per_window * BATCH // 2
        model.gradient_checkpointing_enable()
        assert kept_for_the_backward_pass(model, dtype) <= 2 * counted
        return
    assert counted == pytest.approx(kept_for_the_backward_pass(model, dtype), rel=0.15)


@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs PEFT")
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("frozen", ["fp32", "bf16"])
@pytest.mark.parametrize("targets", [LORA_TARGETS[:1], LORA_TARGETS], ids=len)
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.filterwarnings("ignore")
def test_the_count_is_near_what_adapters_keep(
    dtype: Any, frozen: Any, targets: tuple[str, ...], dropout: float
) -> None:
    settings = decided(
        sequence_length=WINDOW,
        batch_size=BATCH,
        dtype=dtype,
        frozen_dtype=frozen,
        lora_rank=2,
        lora_target=targets,
        lora_dropout=dropout,
    )
    model = GPTNeoXJapaneseForCausalLM(config()).train()
    model.skip_logits_in_training = True
    model.config.use_cache = False
    if dtype == "bf16":
        model.set_attn_implementation(cpu_attention.NAME)
    if frozen == "bf16":
        halve_matrices(model)
    counted = estimate_memory(model.config, settings)
    adapted = add_adapters(model, settings)
    kept = kept_for_the_backward_pass(adapted, dtype)
    assert counted.per_window * BATCH == pytest.approx(kept, rel=0.15)
    trained = [p for p in adapted.parameters() if p.requires_grad]
    expected = sum(p.nbytes for p in adapted.parameters()) + 3 * sum(p.nbytes for p in trained)
    assert counted.fixed == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_the_count_of_what_stays_is_that_of_the_optimizer(optimizer: Any) -> None:
    model = GPTNeoXJapaneseForCausalLM(config()).train()
    make = MuonAndAdamW if optimizer == "muon" else adamw
    steps = make(model, 1e-3, 0.1)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    steps.step()
    tensors = [t for state in steps.state.values() for t in state.values()]
    tensors += [t for p in model.parameters() for t in (p, p.grad) if t is not None]
    expected = sum(t.numel() * t.element_size() for t in tensors)
    counted = estimate_memory(model.config, decided(optimizer=optimizer)).fixed
    assert counted == pytest.approx(expected, rel=0.02)


def test_a_batch_that_cannot_fit_is_refused_before_there_is_a_model(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = run("train", "--data", prepared, "--output", tmp_path / "run", "--batch-size", 10**7)
    assert_refused(result, "--batch-size 10000000 windows")
    assert not (tmp_path / "run").exists()
    found = re.search(r"use --batch-size (\d+) --gradient-accumulation (\d+)", result.stderr)
    assert found is not None
    windows, passes = map(int, found.groups())
    assert 0 < windows * (passes - 1) < 10**7 <= windows * passes
    size = estimate_memory(config(), decided())
    assert windows * size.per_window < machine.available_memory() * 2


SHAPE = Architecture(16, 1, 2)
SETTINGS = Settings(sequence_length=16, batch_size=2, steps=1, dtype="fp32")


@pytest.mark.parametrize(
    ("free", "remedy"),
    [
        (10_000, "train a smaller model"),
        (140_000, "--batch-size 1 --gradient-checkpointing"),
        (150_000, "use --batch-size 1 --gradient-accumulation 2"),
    ],
)
def test_the_remedy_is_one_that_fits(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, remedy: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(module, "available_memory", lambda: free)
    with pytest.raises(NeoXJapaneseError, match="a step needs at least") as refused:
        train(prepared, tmp_path / "run", SETTINGS, SHAPE)
    assert remedy in str(refused.value)


def test_processes_of_one_machine_share_its_memory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings = decided(sequence_length=16, batch_size=2)
    size = estimate_memory(config(), settings)
    monkeypatch.setattr(module, "available_memory", lambda: size.fixed + 3 * size.per_window)
    module.check_memory(config(), settings)
    assert "needs at least" in capsys.readouterr().err  # it may not be enough
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(NeoXJapaneseError, match="free for each process"):
        module.check_memory(config(), settings)


def test_adapters_and_shares_take_less() -> None:
    whole = estimate_memory(config(), decided())
    adapters = estimate_memory(config(), decided(lora_rank=4))
    assert adapters.fixed < whole.fixed / 2
    assert adapters.per_window < whole.per_window
    again = estimate_memory(config(), decided(gradient_checkpointing=True))
    assert again.per_window < whole.per_window
