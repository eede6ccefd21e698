"""What a step compiles, and when."""

from __future__ import annotations

import numpy as np

from gpt_neox_japanese.inference.cpu.network import CompiledNetwork
from gpt_neox_japanese.inference.network import BatchToken
from gpt_neox_japanese.kernels.constants import MAX_FEW_ROWS
from tests.inference.networks import network_of, random_model


def test_what_many_rows_need_waits_for_a_step_that_has_many() -> None:
    network = network_of(random_model(), threads=1)
    assert isinstance(network, CompiledNetwork)
    tokens = [BatchToken(3 + i, 0, i) for i in range(MAX_FEW_ROWS + 1)]
    few = [network.decode(tokens[:MAX_FEW_ROWS]).copy(), network.decode(tokens[-1:]).copy()]
    assert not network._workspace.many_rows.any()
    many = network.decode(tokens)
    assert network._workspace.many_rows.all()
    np.testing.assert_array_equal(many, np.concatenate(few))
