"""What LLVM makes of vectors, by the processor."""

from __future__ import annotations

import ctypes
import re

import numpy as np
import pytest
from llvmlite import binding, ir

from gpt_neox_japanese.kernels.llvm import INT16, INT32, add_products, vector

_LANES = 16


def _module(*, arm: bool) -> str:
    """A function `add(sums, left, right)` of pointers."""
    module = ir.Module()
    kinds = [vector(INT32, _LANES // 2), vector(INT16, _LANES), vector(INT16, _LANES)]
    pointers = [kind.as_pointer() for kind in kinds]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), pointers), "add")
    builder = ir.IRBuilder(function.append_basic_block())
    values = [builder.load(pointer, align=1) for pointer in function.args]
    total = add_products(builder, *values, arm=arm)
    builder.store(total, function.args[0], align=1)
    builder.ret_void()
    return str(module)


def _instructions(module: str, triple: str, processor: str) -> set[str]:
    """The names of the instructions of an optimised module."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    target = binding.Target.from_triple(triple)
    machine = target.create_target_machine(cpu=processor, opt=3)
    parsed = binding.parse_assembly(module)
    parsed.triple = triple
    passes = binding.create_pass_builder(
        machine, binding.create_pipeline_tuning_options(speed_level=3)
    )
    passes.getModulePassManager().run(parsed, passes)
    text = machine.emit_assembly(parsed)
    return set(re.findall(r"^\s+([a-z]\w*)", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("triple", "processor", "there", "not_there"),
    [
        ("x86_64-unknown-linux-gnu", "haswell", {"vpmaddwd"}, {"vpmulld"}),
        ("x86_64-unknown-linux-gnu", "znver4", {"vpdpwssd"}, {"vpmulld", "vpmaddwd"}),
        ("aarch64-unknown-linux-gnu", "neoverse-n1", {"smlal", "smlal2"}, {"smull", "smull2"}),
        ("arm64-apple-macosx", "apple-m1", {"smlal", "smlal2"}, {"smull", "smull2"}),
    ],
)
def test_products_are_added_by_the_instruction_that_the_processor_has_for_it(
    triple: str, processor: str, there: set[str], not_there: set[str]
) -> None:
    arm = not triple.startswith("x86")
    names = _instructions(_module(arm=arm), triple, processor)
    assert there <= names
    assert not not_there & names


def test_arm_and_others_add_the_same_products() -> None:
    generator = np.random.default_rng(0)
    left = generator.integers(-(2**15), 2**15, _LANES, dtype=np.int16)
    right = generator.integers(-2047, 2048, _LANES, dtype=np.int16)
    before = generator.integers(-(2**20), 2**20, _LANES // 2, dtype=np.int32)
    results = []
    for arm in (False, True):
        machine = binding.Target.from_default_triple().create_target_machine()
        module = binding.parse_assembly(_module(arm=arm))
        engine = binding.create_mcjit_compiler(module, machine)
        engine.finalize_object()
        add = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3)(engine.get_function_address("add"))
        sums = before.copy()
        add(sums.ctypes.data, left.ctypes.data, right.ctypes.data)
        results.append(sums)
    products = left.astype(np.int32) * right
    np.testing.assert_array_equal(results[0], before + products.reshape(-1, 2).sum(axis=1))
    assert results[1].sum() == results[0].sum()
