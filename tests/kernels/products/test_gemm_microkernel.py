"""What a tile's inner loop becomes: the processor's best instruction, and no sum in memory."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from llvmlite import binding, ir

from gpt_neox_japanese.kernels import llvm
from gpt_neox_japanese.kernels.products import gemm_microkernel
from gpt_neox_japanese.kernels.products.gemm_microkernel import outputs_of_tile

_LINUX, _ARM_LINUX = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
_ROWS = 16
_FLOATS = partial(gemm_microkernel._generate_floats, size=2)
_INT8, _INT4 = (
    partial(gemm_microkernel._generate_integers, pairs=pairs, carries=pairs > 32)
    for pairs in (32, 64)
)


def _assembly(generate: Callable[..., None], size: int, triple: str, name: str, has: str) -> str:
    """Of a function that computes a tile of PANEL_ROWS rows."""
    module, word = ir.Module(), llvm.INT64
    kinds = [llvm.INT8.as_pointer()] * 5 + [word] * 3
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), "tile")
    builder = ir.IRBuilder(function.append_basic_block())
    outputs = outputs_of_tile(_ROWS, size, has)
    generate(gemm_microkernel._Tile(builder, *function.args, _ROWS, outputs))
    builder.ret_void()
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    target = binding.Target.from_triple(triple)
    machine = target.create_target_machine(cpu=name, opt=3)
    parsed = binding.parse_assembly(str(module))
    parsed.triple = triple
    options = binding.create_pipeline_tuning_options(speed_level=3)
    passes = binding.create_pass_builder(machine, options)
    passes.getModulePassManager().run(parsed, passes)
    return machine.emit_assembly(parsed)


def _inner_loops(text: str) -> list[str]:
    """Blocks that jump back to themselves."""
    blocks = re.split(r"^(\.?L\w+):", text, flags=re.MULTILINE)
    labels, bodies = blocks[1::2], blocks[2::2]
    return [
        body
        for label, body in zip(labels, bodies, strict=True)
        if re.search(rf"^\s+(j\w+|b\.\w+|b|cbn?z)\s.*{re.escape(label)}$", body, re.MULTILINE)
    ]


@pytest.mark.parametrize(
    ("triple", "name", "has", "generate", "size", "there", "not_there"),
    [
        (_LINUX, "znver4", "+avx2,+avx512vl", _FLOATS, 4, "vfmadd231ps", "mulps"),
        (_LINUX, "znver4", "+avx2,+avx512vl", _INT8, 2, "vpdpwssd", "vpmaddwd"),
        (_LINUX, "znver4", "+avx2,+avx512vl", _INT4, 2, "vpdpwssd", "vpmulld"),
        (_LINUX, "skylake-avx512", "+avx2,+avx512vl", _INT8, 2, "vpmaddwd", "vpmulld"),
        (_LINUX, "haswell", "+avx2", _FLOATS, 4, "vfmadd231ps", "vmulps"),
        (_LINUX, "haswell", "+avx2", _INT8, 2, "vpmaddwd", "vpmulld"),
        (_LINUX, "haswell", "+avx2", _INT4, 2, "vpmaddwd", "vpmulld"),
        (_LINUX, "x86-64", "", _INT8, 2, "pmaddwd", "pmuludq"),
        (_ARM_LINUX, "neoverse-n1", "+neon", _FLOATS, 4, "fmla", "fmul"),
        (_ARM_LINUX, "neoverse-n1", "+neon", _INT8, 2, "smlal", "smull"),
        (_ARM_LINUX, "neoverse-n1", "+neon", _INT4, 2, "smlal", "uzp1"),
    ],
)
def test_the_inner_loop_multiplies_and_keeps_its_sums_in_registers(
    monkeypatch: pytest.MonkeyPatch,
    triple: str,
    name: str,
    has: str,
    generate: Any,
    size: int,
    there: str,
    not_there: str,
) -> None:
    for module in (llvm, gemm_microkernel):
        monkeypatch.setattr(module, "ARM", triple == _ARM_LINUX)
    text = _assembly(generate, size, triple, name, has)
    loops = [loop for loop in _inner_loops(text) if re.search(rf"\b{there}2?\b", loop)]
    assert loops
    for loop in loops:
        assert not re.search(rf"\b{not_there}2?\b", loop), loop
        assert "rsp" not in loop, loop
        assert "[sp" not in loop, loop
