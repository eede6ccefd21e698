"""SGLang's own loader, registry and model with our plug-in: `scripts/test_sglang`.

SGLang computes on GPUs, so this goes as far as a CPU can: its `load_plugins` finds the plug-in, its
registry gives our class, which is built of SGLang's layers and loads a checkpoint by SGLang's
loader. Then a forward pass is compared with our model's; attention and the KV cache, which need
SGLang's kernels, are torch's for it. Libraries of kernels and images that are not there are put
out of the way.
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch
from harness import write_result
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoProcessor, PreTrainedModel

import gpt_neox_japanese

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.float_model import float_model
from tests.interop import samples

_ABSENT = (
    *("torchvision", "torchvision.io", "torchvision.transforms", "torchvision.transforms.v2"),
    *("torchvision.transforms.functional", "torchvision.transforms.v2.functional"),
    *("sgl_kernel", "gguf"),
)
_NAME = "GPTNeoXJapaneseForCausalLM"


def main() -> None:
    """Run everything, and write `results/sglang.json`."""
    os.environ |= {"SGLANG_USE_CPU_ENGINE": "1", "HF_HUB_OFFLINE": "1"}
    assert all((AutoModel, AutoProcessor, PreTrainedModel))  # transformers has looked around by now
    for name in _ABSENT:
        module = MagicMock(name=name, __name__=name, __path__=[], __version__="0")
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        sys.modules[name] = module
    default = float_model()
    from sglang.srt.plugins import load_plugins

    load_plugins()
    from sglang.srt.models.registry import ModelRegistry

    model_class, _ = ModelRegistry.resolve_model_cls([_NAME])
    assert model_class.__module__ == "gpt_neox_japanese.interop.sglang.model", model_class
    be_one_process(str(default))
    with tempfile.TemporaryDirectory() as directory:
        untied = samples.small_model(
            Path(directory),
            samples.default_codec(),
            tie_word_embeddings=False,
            rotary_pct=0.5,
        )
        differences = {
            "default": difference(model_class, Path(default)),
            "random, untied head, rotary_pct 0.5": difference(model_class, untied),
        }
    write_result(
        "sglang",
        ["sglang", "torch", "transformers"],
        tried="load_plugins, ModelRegistry, TransformersForCausalLM and AutoWeightsLoader of"
        " SGLang; not its attention, KV cache, scheduler and server",
        largest_difference_of_logits=differences,
    )


def be_one_process(model: str) -> None:
    """Tell SGLang that this is all there is."""
    import sglang.srt.distributed as distributed
    from sglang.srt.runtime_context import get_parallel
    from sglang.srt.server_args import ServerArgs, set_global_server_args_for_scheduler

    set_global_server_args_for_scheduler(
        ServerArgs(model_path=model, device="cpu", attention_backend="torch_native")
    )
    with tempfile.NamedTemporaryFile() as meeting:
        distributed.init_distributed_environment(
            world_size=1,
            rank=0,
            local_rank=0,
            distributed_init_method=f"file://{meeting.name}-here",
            backend="gloo",
        )
    ranks = ("tp", "pp", "attn_dp", "attn_tp", "attn_cp", "moe_ep")
    sizes = ("pp", "attn_dp", "attn_tp", "attn_dcp", "moe_ep", "moe_dp", "moe_tp")
    get_parallel().override_permanently(
        **{f"{name}_rank": 0 for name in ranks}, **{f"{name}_size": 1 for name in sizes}
    )
    distributed.initialize_model_parallel()


def attend(
    _module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: object, **kwargs: Any
) -> tuple[Tensor, None]:
    """Causal attention over one text, in the place of SGLang's."""
    attention = nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=kwargs["scaling"]
    )
    return attention.transpose(1, 2), None


def difference(model_class: Any, directory: Path) -> float:
    """How far the logits of some prompts are from those of our own model, at most."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS["sglang"] = attend
    theirs = model_class(AutoConfig.from_pretrained(directory))
    loaded = theirs.load_weights(iter(load_file(directory / "model.safetensors").items()))
    missing = set(dict(theirs.named_parameters())) - loaded
    assert not missing, missing
    ours = gpt_neox_japanese.GPTNeoXJapaneseForCausalLM.from_pretrained(  # type: ignore[no-untyped-call]
        directory, dtype=torch.float32
    ).eval()
    codec = gpt_neox_japanese.Codec.load(directory)
    largest = 0.0
    for prompt in samples.PROMPTS:
        ids = torch.tensor([codec.encode(prompt)])
        places = torch.arange(ids.shape[1])[None]
        with torch.no_grad():
            states = theirs.model(
                input_ids=ids, position_ids=places, use_cache=False, return_dict=False
            )[0]
            logits = states @ theirs.lm_head.weight[: theirs.vocab_size].T
            largest = max(largest, (logits - ours(ids).logits).abs().max().item())
    return largest


if __name__ == "__main__":
    main()
