from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gpt_neox_japanese.checks import check_ids, check_integer
from gpt_neox_japanese.errors import GenerationError


@pytest.mark.parametrize(
    "ids", [5, None, "1", b"1", np.array(5), torch.tensor(5), [[1]], np.array([[1]]), [1.0], [True]]
)
def test_what_is_no_list_of_ids_is_named(ids: Any) -> None:
    with pytest.raises(GenerationError, match=r"the prompt (is|holds) "):
        check_ids("the prompt", ids, GenerationError, 10)


@pytest.mark.parametrize("ids", [[1, 9], (1, 9), np.array([1, 9]), range(1, 10, 8)])
def test_ids_come_back_as_integers(ids: Any) -> None:
    assert check_ids("the prompt", ids, GenerationError, 10) == [1, 9]


def test_integers_of_numpy_and_pytorch_are_integers() -> None:
    for value in (5, np.int64(5), np.array(5), torch.tensor(5)):
        assert type(check_integer("length", value, GenerationError, minimum=1)) is int
    for wrong in (True, np.bool_(True), 5.0, "5", None, torch.tensor(5.0)):
        with pytest.raises(GenerationError, match="must be an integer, 1 or more"):
            check_integer("length", wrong, GenerationError, minimum=1)
