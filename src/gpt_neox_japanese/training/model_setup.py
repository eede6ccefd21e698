"""The model a run starts with: a new one, a trained one, or a trained one with adapters."""
# transformers' methods carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any
from warnings import catch_warnings

import torch
from transformers import PreTrainedModel

from gpt_neox_japanese.checks import short_repr
from gpt_neox_japanese.errors import ArgumentError, CheckpointError, DataError
from gpt_neox_japanese.files.atomic import checksum
from gpt_neox_japanese.files.json_files import read_object
from gpt_neox_japanese.files.tensor_files import read_tensors, weight_files
from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig
from gpt_neox_japanese.model.loading.auto import register_peft_targets
from gpt_neox_japanese.model.loading.safety import check_adapter_config, check_files
from gpt_neox_japanese.model.modeling import GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.quantization.hf_modules import QuantizedLinear, halve_matrices
from gpt_neox_japanese.tokenizer.model_check import check_model
from gpt_neox_japanese.training.data.run_data import ConversationData, RunData
from gpt_neox_japanese.training.machine import cpu_attention
from gpt_neox_japanese.training.machine.memory_estimate import check_memory, is_quantized
from gpt_neox_japanese.training.settings import Architecture, RunSettings

__all__ = ["add_adapters", "base_digest", "make_model", "merged_model", "model_config"]

_WINDOW = 512  # of a new model, if nothing is said


def model_config(
    init_from: Architecture | Path, data: RunData, sequence_length: int | None
) -> GPTNeoXJapaneseConfig:
    """Tell what a run's model is, before there is one.

    Args:
        init_from: A new model's shape, or the directory of a model to train on.
        data: What it is trained on; a new model gets its vocabulary.
        sequence_length: Tokens of a window, which a new model reads; 512 if None.

    Returns:
        The configuration.

    Raises:
        DataError: The model does not fit the data, or reads fewer tokens than a window has.
        CheckpointError: Its directory is broken.
    """
    if isinstance(init_from, Architecture):
        return _new_config(init_from, data, sequence_length or _WINDOW)
    fields = read_object(init_from / "config.json")  # first: a vocabulary alone is no model
    data.check_vocabulary(init_from)
    check_model(data.codec, fields, init_from)
    config = GPTNeoXJapaneseConfig.from_pretrained(init_from)
    longest = int(config.max_position_embeddings)
    if sequence_length is not None and sequence_length > longest:
        raise DataError(
            f"the model in {init_from} reads at most {longest} tokens, "
            f"--sequence-length is {sequence_length}"
        )
    return config


def base_digest(directory: Path) -> str:
    """Tell a model that adapters stand beside from others of its name.

    Args:
        directory: Of the model.

    Returns:
        A digest of its configuration and of its weights, those that are read.

    Raises:
        CheckpointError: There are none, or a file is a pipe or a device.
    """
    form, weights = weight_files(directory)
    read = {"config.json", f"{form}.index.json", *(file.name for file in weights)}
    files = [file for file in check_files(directory) if file.name in read]
    sums = [(file.name, *checksum(file)) for file in files]
    return hashlib.sha256(json.dumps(sums).encode()).hexdigest()


# What a new model's generation_config.json recommends: plain sampling of a small model wanders off,
# and without a penalty it repeats itself.
_SAMPLING = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.25}


def make_model(
    init_from: Architecture | Path, data: RunData, settings: RunSettings
) -> GPTNeoXJapaneseForCausalLM | Any:
    """Make or load the model, ready to be trained.

    Args:
        init_from: A new model's shape, or the directory of a model to train on.
        data: What it is trained on; a new model gets its vocabulary.
        settings: How it is trained.

    Returns:
        The model, float32, on the CPU, of a quantised one what its integers stand for; with
        adapters it is PEFT's around it, and the matrices are stored as `frozen_dtype` says, or in
        integers if they are in `init_from`.

    Raises:
        DataError: The model does not fit the data or the length of the windows.
        ArgumentError: There is not enough memory, no attention of that name or none that keeps
            texts apart, an option of frozen floats for frozen integers, or PEFT is wanted and not
            installed.
    """
    if settings.lora_rank:
        _import_peft()  # before anything takes time
    _check_attention(data, settings)
    config = model_config(init_from, data, settings.sequence_length)
    if is_quantized(config) and settings.lora_rank:
        _check_quantized(init_from, settings)
    check_memory(config, settings)
    torch.manual_seed(settings.seed)
    if isinstance(init_from, Path):
        half = settings.frozen_dtype == "bf16"
        dtype = torch.bfloat16 if half else torch.float32
        model = GPTNeoXJapaneseForCausalLM.from_pretrained(init_from, dtype=dtype)
        if is_quantized(config) and not settings.lora_rank:
            model.dequantize(dtype)
        if half:
            halve_matrices(model)
            _restore_vectors(model, init_from)
    else:
        model = GPTNeoXJapaneseForCausalLM(config)
        model.generation_config.update(**_SAMPLING, pad_token_id=data.eos_token_id)
    # Nobody reads the scores of a training step, and they are its largest tensor.
    model.skip_logits_in_training = True
    model.config.use_cache = False  # with a cache, transformers does not look for documents
    implementation = settings.attention
    if implementation is None and settings.dtype == "bf16" and not torch.cuda.is_available():
        implementation = cpu_attention.NAME
    if implementation is not None:
        _set_attention(model, implementation)
    if not settings.lora_rank:
        return model
    return add_adapters(model, settings)


def _restore_vectors(model: PreTrainedModel, directory: Path) -> None:
    """Take from the files what loading has rounded though it is kept in float32."""
    stored = read_tensors(directory)
    prefix = f"{model.base_model_prefix}."
    for name, parameter in model.named_parameters():
        exact = stored.get(name, stored.get(name.removeprefix(prefix)))
        if parameter.ndim == 1 and exact is not None:
            parameter.data.copy_(exact)


def add_adapters(model: GPTNeoXJapaneseForCausalLM, settings: RunSettings) -> Any:
    """Freeze a model and put adapters beside its matrices.

    Args:
        model: Its matrices may be stored in any format.
        settings: Which adapters.

    Returns:
        PEFT's model around it; the adapters are float32.

    Raises:
        ArgumentError: PEFT is not installed.
    """
    peft = _import_peft()
    register_peft_targets()
    if settings.gradient_checkpointing:
        model.enable_input_require_grads()
    lora = peft.LoraConfig(
        r=settings.lora_rank,
        lora_alpha=2 * settings.lora_rank if settings.lora_alpha is None else settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=list(settings.lora_target) or None,
        task_type="CAUSAL_LM",
    )
    # The only way to name a layer that PEFT does not know; it is not saved with the adapters.
    lora._register_custom_module({QuantizedLinear: peft.tuners.lora.Linear})
    with catch_warnings(action="ignore"):  # that it does not know it, and of names in transformers
        return peft.get_peft_model(model, lora)


def _check_quantized(init_from: Architecture | Path, settings: RunSettings) -> None:
    for given, option in (
        (settings.frozen_dtype, "--frozen-dtype is for weights that are floats"),
        (settings.shard, "--shard shares fp32 weights only"),
    ):
        if given:
            raise ArgumentError(f"{option}, and those of {init_from} are integers; leave it out")


def _check_attention(data: RunData, settings: RunSettings) -> None:
    # transformers tells flash attention where texts begin in a batch of one row only.
    keeps_apart = settings.document_masking or isinstance(data, ConversationData)
    name, batch = settings.attention or "", settings.batch_size
    if name.startswith("flash_attention") and keeps_apart and batch > 1:
        raise ArgumentError(
            f"--attention {name} keeps the texts of a window apart only with --batch-size 1, and it"
            f" is {batch}; give --batch-size 1 and --gradient-accumulation"
            f" {batch * settings.gradient_accumulation}, or another --attention"
        )


def _set_attention(model: GPTNeoXJapaneseForCausalLM, name: str) -> None:
    # To transformers, OWNER/NAME is a kernel on the Hub: a program, which a file of options from
    # somebody else could name.
    if not re.fullmatch(r"\w+", name, re.ASCII):
        raise ArgumentError(
            f"--attention {short_repr(name)} cannot be used; name an implementation of"
            " transformers, such as sdpa, eager or flash_attention_2"
        )
    try:
        model.set_attn_implementation(name)
    except (ValueError, ImportError) as error:
        raise ArgumentError(f"--attention {name} cannot be used: {error}") from error


def merged_model(init_from: Path, adapter: Path) -> PreTrainedModel:
    """Load the model that training started from, with its adapters added to its weights.

    Args:
        init_from: The directory of the model.
        adapter: The directory of the adapters.

    Returns:
        The model, float32, on the CPU.

    Raises:
        ArgumentError: PEFT is not installed.
        CheckpointError: The weights of the model or the adapters are missing or broken, or the
            adapters are another model's.
    """
    peft = _import_peft()
    check_adapter_config(adapter / "adapter_config.json")
    if not any(path.stem == "adapter_model" for path in check_files(adapter)):
        # PEFT would ask the Hub for it.
        raise CheckpointError(f"{str(adapter)!r} has no adapter_model.safetensors; copy it again")
    model = GPTNeoXJapaneseForCausalLM.from_pretrained(init_from, dtype=torch.float32)
    if is_quantized(model.config):
        model.dequantize(torch.float32)
    with catch_warnings(action="ignore"):  # of names in transformers
        adapted = peft.PeftModel.from_pretrained(model, adapter)
    _check_all_added(adapted, init_from, adapter)
    merged: PreTrainedModel = adapted.merge_and_unload()
    return merged


def _check_all_added(adapted: Any, init_from: Path, adapter: Path) -> None:
    """PEFT passes over adapters that no layer has, and begins others anew where one is missing."""
    peft = _import_peft()
    saved = peft.load_peft_weights(str(adapter), device="cpu").keys()
    expected = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False).keys()
    superfluous = saved - expected - adapted.state_dict().keys()  # PEFT may save embeddings too
    for name in sorted(superfluous | (expected - saved)):
        whose = "only the adapter has" if name in saved else "the adapter lacks"
        raise CheckpointError(
            f"{str(adapter)!r} does not fit {str(init_from)!r}: {whose} {name}; name the model that"
            " was adapted with --base"
        )


def _new_config(shape: Architecture, data: RunData, sequence_length: int) -> GPTNeoXJapaneseConfig:
    return GPTNeoXJapaneseConfig(
        vocab_size=len(data.codec),
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=sequence_length,
        bos_token_id=_start_of_text_id(data),
        eos_token_id=data.eos_token_id,
        attention_dropout=0.0,
        hidden_dropout=0.0,
    )


def _start_of_text_id(data: RunData) -> int:
    token_id = data.codec.token_to_id("<|startoftext|>")
    return data.eos_token_id if token_id is None else token_id


def _import_peft() -> Any:
    try:
        import peft
    except ImportError:
        raise ArgumentError(
            "--lora-rank needs PEFT: pip install 'gpt-neox-japanese[lora]'"
        ) from None
    return peft
