"""The model split over two processes computes what it computes in one."""

from __future__ import annotations

import os
import socket
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig
from gpt_neox_japanese.model.modeling import GPTNeoXJapaneseForCausalLM
from tests.model.conftest import MakeModel

PROCESSES = 2
# One text for each process of data parallelism, of one length: then the mean of their losses is
# the loss of both.
IDS = torch.randint(3, 60, (PROCESSES, 8), generator=torch.Generator().manual_seed(0))


def take_steps(model: nn.Module, ids: Tensor) -> Tensor:
    """The losses of three steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    losses = []
    for _ in range(3):
        loss = model(ids, labels=ids, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def tensor_parallel(directory: str) -> Any:
    model = GPTNeoXJapaneseForCausalLM.from_pretrained(directory, tp_plan="auto")
    part = model.gpt_neox_japanese.layers[0].attention.query_key_value.weight
    local = part.to_local() if hasattr(part, "to_local") else part
    options = {"attention_mask": torch.ones_like(IDS), "max_new_tokens": 5, "do_sample": False}
    return {
        "rows": local.shape[0],
        "logits": model(IDS).logits.detach(),
        "tokens": model.generate(IDS, **options),
    }


def data_parallel(directory: str) -> Any:
    model = GPTNeoXJapaneseForCausalLM.from_pretrained(directory)
    mesh = init_device_mesh("cpu", (PROCESSES,))
    for layer in model.gpt_neox_japanese.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    losses = take_steps(model, IDS[dist.get_rank() :][:1])
    dist.all_reduce(losses)
    return {"losses": losses / PROCESSES}


def work(rank: int, port: int, directories: list[Path]) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(PROCESSES),
        "OMP_NUM_THREADS": "1",
    }
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for directory in directories:
        results = {job.__name__: job(directory) for job in (tensor_parallel, data_parallel)}
        torch.save(results, directory / f"rank{rank}.results")
    dist.barrier()  # who leaves early takes the connection along
    dist.destroy_process_group()


def small_model(*, tied: bool) -> GPTNeoXJapaneseForCausalLM:
    torch.manual_seed(0)
    config = GPTNeoXJapaneseConfig(
        vocab_size=62,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=1,
        eos_token_id=61,
        pad_token_id=0,
        attention_dropout=0.0,
        tie_word_embeddings=tied,
    )
    model = GPTNeoXJapaneseForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.fixture(scope="module")
def split_results(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Any]:
    """What each process computed, for a tied and an untied model."""
    directories = {tied: tmp_path_factory.mktemp("split") for tied in (True, False)}
    for tied, directory in directories.items():
        small_model(tied=tied).save_pretrained(directory)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(work, (port, list(directories.values())), nprocs=PROCESSES)
    return {
        tied: [torch.load(directory / f"rank{rank}.results") for rank in range(PROCESSES)]
        for tied, directory in directories.items()
    }


@pytest.mark.parametrize("tied", [True, False])
def test_tensor_parallel_logits_and_texts_are_those_of_one_process(
    split_results: dict[bool, Any], tied: bool
) -> None:
    model = small_model(tied=tied).eval()
    options = {"attention_mask": torch.ones_like(IDS), "max_new_tokens": 5, "do_sample": False}
    expected = model(IDS).logits.detach()
    for result in (each["tensor_parallel"] for each in split_results[tied]):
        assert result["rows"] == 3 * 32 // PROCESSES
        torch.testing.assert_close(result["logits"], expected, rtol=1e-5, atol=1e-5)
        assert result["tokens"].tolist() == model.generate(IDS, **options).tolist()


@pytest.mark.parametrize("tied", [True, False])
def test_sharded_data_parallel_training_is_that_of_one_process(
    split_results: dict[bool, Any], tied: bool
) -> None:
    expected = take_steps(small_model(tied=tied).eval(), IDS)
    assert expected[2] < expected[0]
    for result in (each["data_parallel"]["losses"] for each in split_results[tied]):
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def test_the_pipeline_plan_names_the_parts_in_their_order(tiny_model: MakeModel) -> None:
    """Runs the model as a pipeline engine would: part by part, by the plan alone."""
    model = tiny_model()
    base = model.gpt_neox_japanese
    plan = [
        *((base, name, names) for name, names in type(model.config).base_model_pp_plan.items()),
        *((model, name, names) for name, names in type(model)._pp_plan.items()),
    ]
    flow = {"input_ids": IDS, "attention_mask": None}
    for owner, name, (inputs, outputs) in plan:
        part = getattr(owner, name)
        first, *others = inputs
        if name == "layers":
            named = {other: flow[other] for other in others}
            named["position_embeddings"] = base.rotary_emb(flow[first], torch.arange(8)[None])
            for layer in part:
                flow[first] = layer(flow[first], **named)
        else:
            flow[outputs[0]] = part(flow[first])
        if "inputs_embeds" in outputs:
            flow["hidden_states"] = flow["inputs_embeds"]
    torch.testing.assert_close(flow["logits"], model(IDS).logits)
