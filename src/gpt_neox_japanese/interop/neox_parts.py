"""The files of a gpt-neox checkpoint: which there are, and what each part of a model is in them.

gpt-neox numbers the parts of a model: 0 is the embedding, 2 to L + 1 are the L transformer layers,
L + 3 the final norm, L + 4 the head where it is not the embedding; 1 and L + 2 hold no weights.
Every part is split over N GPUs. DeepSpeed saves them in a directory `global_stepS`,

    layer_PP-model_NN-model_states.pt    a file for each part and GPU, with pipeline parallelism
    mp_rank_NN_model_states.pt           a file for each GPU: all weights, as `sequential.P.…`,
                                         without pipeline parallelism; with it, no weights
    configs/*.yml                        what the model was trained with

beside a file `latest` that names the directory. All files are pickles, of which only data is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from gpt_neox_japanese.checks import short_repr
from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.files.regular_files import check_regular
from gpt_neox_japanese.files.tensor_files import read_pickle

__all__ = ["BIASES", "LATEST", "NeoXParts", "Part", "find_step", "layer_file", "rank_file", "split"]

Part = dict[str, Tensor]
"""The tensors of one part by gpt-neox's names."""

LATEST = "latest"

_LAYER_FILE = re.compile(r"layer_(\d{2,5})-model_(\d{2,5})-model_states\.pt", re.ASCII)
_RANK_FILE = re.compile(r"mp_rank_(\d{2,5})_model_states\.pt", re.ASCII)
_SEQUENTIAL = re.compile(r"sequential\.(\d{1,5})\.(.+)", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_-][\w.-]*", re.ASCII)

# Tensor → the axis on which it is split; None for those of which every GPU has a whole copy.
_EMBEDDING: dict[str, int | None] = {"word_embeddings.weight": 0}
_LAYER: dict[str, int | None] = {
    "input_layernorm.weight": None,
    "input_layernorm.bias": None,
    "attention.query_key_value.weight": 0,
    "attention.dense.weight": 1,
    "post_attention_layernorm.weight": None,
    "post_attention_layernorm.bias": None,
    "mlp.linear1.weight": 0,
    "mlp.linear2.weight": 1,
}
BIASES: dict[str, int | None] = {
    "attention.query_key_value.bias": 0,
    "attention.dense.bias": None,
    "mlp.linear1.bias": 0,
    "mlp.linear2.bias": None,
}
"""Those of a layer's matrices, which may be missing, and on which axis they are split."""
_NORM: dict[str, int | None] = {"norm.weight": None, "norm.bias": None}
_HEAD: dict[str, int | None] = {"final_linear.weight": 0}
_AXES = _EMBEDDING | _LAYER | BIASES | _NORM | _HEAD

# Until 2024 gpt-neox named the matrices of the MLP as we do.
_OLD_NAMES = {"mlp.dense_h_to_4h.": "mlp.linear1.", "mlp.dense_4h_to_h.": "mlp.linear2."}
# A table that some versions save and every version computes.
_COMPUTED = "attention.rotary_emb.inv_freq"


def layer_file(index: int, rank: int) -> str:
    """The name of a part's file."""
    return f"layer_{index:02}-model_{rank:02}-model_states.pt"


def rank_file(rank: int) -> str:
    """The name of a GPU's file."""
    return f"mp_rank_{rank:02}_model_states.pt"


def find_step(checkpoint: Path) -> Path:
    """The directory with the files of a checkpoint.

    Args:
        checkpoint: That directory itself, or the one that holds `latest`.

    Raises:
        CheckpointError: There is none.
    """
    if not checkpoint.is_dir():
        raise CheckpointError(
            f"no directory {str(checkpoint)!r}; give a global_stepS of gpt-neox, or its parent"
        )
    latest = checkpoint / LATEST
    check_regular(latest)
    if latest.is_file():
        tag = latest.read_bytes()[:200].decode("ascii", "replace").strip()
        if not _TAG.fullmatch(tag) or not (checkpoint / tag).is_dir():
            raise CheckpointError(
                f"{str(latest)!r} names {short_repr(tag)}, which is no directory beside it; give"
                " the directory global_stepS itself"
            )
        return checkpoint / tag
    names = [entry.name for entry in checkpoint.iterdir()]
    if any(_LAYER_FILE.fullmatch(name) or _RANK_FILE.fullmatch(name) for name in names):
        return checkpoint
    steps = sorted(name for name in names if name.startswith("global_step"))
    raise CheckpointError(
        f"{str(checkpoint)!r} has no layer_…-model_states.pt and no mp_rank_…_model_states.pt; "
        + (
            f"give one of its {', '.join(steps[:3])}"
            if steps
            else "give a global_stepS of gpt-neox"
        )
    )


def split(name: str, tensor: Tensor, ranks: int) -> list[Tensor]:
    """The pieces of a tensor that its GPUs have.

    Args:
        name: gpt-neox's.
        tensor: The whole one; its axis must be divisible.
        ranks: How many GPUs.
    """
    axis = _AXES[name]
    if axis is None:
        return [tensor] * ranks
    assert tensor.shape[axis] % ranks == 0, (name, tensor.shape)
    # Cloned because torch.save would save all of which a piece is a view.
    return [piece.contiguous().clone() for piece in tensor.chunk(ranks, dim=axis)]


class NeoXParts:
    """The parts of a checkpoint, each put together from its splits when it is asked for.

    Attributes:
        tied: Whether the head is the embedding.
        dtypes: Of all weights.
    """

    def __init__(self, step: Path, *, num_layers: int, num_ranks: int) -> None:
        """Look at the files of a checkpoint.

        Args:
            step: Of `find_step`.
            num_layers: Transformer layers that it must have.
            num_ranks: GPUs over which it must be split.

        Raises:
            CheckpointError: A file is missing, broken, or one too many.
        """
        self._step = step
        self._num_layers = num_layers
        self._num_ranks = num_ranks
        names = {entry.name for entry in step.iterdir()}
        layers = [m for name in sorted(names) if (m := _LAYER_FILE.fullmatch(name))]
        self._whole: list[dict[int, Part]] | None = None
        if layers:
            found = {int(match[1]) for match in layers}
            self._check_ranks({int(match[2]) for match in layers})
        else:
            ranks = [m for name in sorted(names) if (m := _RANK_FILE.fullmatch(name))]
            self._check_ranks({int(match[1]) for match in ranks})
            self._whole = [self._read_whole(rank) for rank in range(num_ranks)]
            found = {index for state in self._whole for index in state}
        self._kinds: dict[int, tuple[dict[str, int | None], dict[str, int | None]]] = {
            0: (_EMBEDDING, {}),
            # No more than there are files, whatever number the configuration says.
            **dict.fromkeys(range(2, min(num_layers, len(found)) + 2), (_LAYER, BIASES)),
            num_layers + 3: (_NORM, {}),
        }
        self.tied = num_layers + 4 not in found
        if not self.tied:
            self._kinds[num_layers + 4] = (_HEAD, {})
        if found != self._kinds.keys():
            missing, more = self._kinds.keys() - found, found - self._kinds.keys()
            what = f"has no part {min(missing)}" if missing else f"has a part {min(more)}"
            raise CheckpointError(
                f"{str(step)!r} {what}, and num_layers is {num_layers} in its .yml files; give a"
                " whole checkpoint with the files that it was trained with"
            )
        self.dtypes = {tensor.dtype for index in self._kinds for tensor in self._tensors(index)}

    def read(self, index: int) -> Part:
        """One part, whole.

        Args:
            index: gpt-neox's number of it.

        Returns:
            Its tensors; biases may be missing.

        Raises:
            CheckpointError: A file is missing or broken, or splits do not fit each other.
        """
        splits = [self._split(index, rank) for rank in range(self._num_ranks)]
        return {name: self._merge(index, name, splits) for name in set().union(*splits)}

    def tables(self) -> list[Tensor]:
        """The embedding, and the head where it is not the embedding.

        Raises:
            CheckpointError: As of `read`.
        """
        embedding = self.read(0)["word_embeddings.weight"]
        if self.tied:
            return [embedding]
        return [embedding, self.read(self._num_layers + 4)["final_linear.weight"]]

    def _check_ranks(self, ranks: set[int]) -> None:
        # Compared by count and maximum: the configuration may name a number that fills the memory.
        if len(ranks) != self._num_ranks or max(ranks) >= self._num_ranks:
            raise CheckpointError(
                f"{str(self._step)!r} has files of the model-parallel ranks"
                f" {', '.join(map(str, sorted(ranks)))}, and model_parallel_size is"
                f" {self._num_ranks} in its .yml files"
            )

    def _read_whole(self, rank: int) -> dict[int, Part]:
        """The parts in a file that holds all of a GPU's weights."""
        path = self._step / rank_file(rank)
        state = read_pickle(path)
        module = state.get("module") if isinstance(state, dict) else None
        if not isinstance(module, dict):
            raise CheckpointError(
                f"{str(path)!r} holds no weights; give a checkpoint that was saved without ZeRO"
                " stage 3, with all of its files"
            )
        parts: dict[int, Part] = {}
        for name, tensor in module.items():
            match = _SEQUENTIAL.fullmatch(str(name))
            if match is None:
                raise CheckpointError(
                    f"{str(path)!r} holds {short_repr(name)}, which is no part of a GPT of gpt-neox"
                )
            parts.setdefault(int(match[1]), {})[match[2]] = tensor
        return parts

    def _split(self, index: int, rank: int) -> Part:
        """What one GPU has of a part, in today's names."""
        if self._whole is not None:
            path, part = self._step / rank_file(rank), self._whole[rank].get(index, {})
        else:
            path = self._step / layer_file(index, rank)
            part = read_pickle(path)
        where = f"{str(path)!r}, part {index}"
        if not isinstance(part, dict):
            raise CheckpointError(f"{where}: it does not hold tensors by name")
        renamed: Part = {}
        needed, optional = self._kinds[index]
        for name, tensor in part.items():
            if name == _COMPUTED:
                continue
            new = _new_name(str(name))
            if new not in needed and new not in optional:
                raise CheckpointError(
                    f"{where}: there is no {short_repr(name)} in GPT-NeoX-Japanese; this model is"
                    " of another architecture"
                )
            if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
                raise CheckpointError(f"{where}: {name} is no tensor of floating-point numbers")
            renamed[new] = tensor
        for name in needed:
            if name not in renamed:
                raise CheckpointError(f"{where}: {name} is missing")
        return renamed

    def _tensors(self, index: int) -> Iterator[Tensor]:
        for rank in range(self._num_ranks):
            yield from self._split(index, rank).values()

    def _merge(self, index: int, name: str, splits: list[Part]) -> Tensor:
        tensors = [part[name] for part in splits if name in part]
        shapes = {tuple(tensor.shape) for tensor in tensors}
        if len(tensors) < len(splits) or len(shapes) > 1:
            raise CheckpointError(
                f"{str(self._step)!r}, part {index}: {name} is missing on some of the"
                f" {len(splits)} model-parallel ranks, or has another shape there; copy the"
                " checkpoint again"
            )
        axis = _AXES[name]
        if axis is None:
            first = tensors[0]
            if all(torch.equal(tensor, first) for tensor in tensors):
                return first
            # They drift apart by rounding when trained, and gpt-neox's own tools take the mean.
            return torch.stack([tensor.float() for tensor in tensors]).mean(0).to(first.dtype)
        if tensors[0].ndim <= axis:
            raise CheckpointError(
                f"{str(self._step)!r}, part {index}: {name} has shape {tuple(tensors[0].shape)};"
                " copy the checkpoint again"
            )
        return torch.cat(tensors, dim=axis)


def _new_name(name: str) -> str:
    for old, new in _OLD_NAMES.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
