"""Heads that judge a text instead of continuing it: its class, its tokens' classes, an answer span.

transformers builds all of them alike on any decoder; only the names are this model's own.
"""
# transformers' methods carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from typing import cast

from torch import nn
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)
from transformers.modeling_layers import (
    GenericForQuestionAnswering,
    GenericForSequenceClassification,
    GenericForTokenClassification,
)

from gpt_neox_japanese.model.loading.auto import register_with
from gpt_neox_japanese.model.loading.pretrained import GPTNeoXJapanesePreTrainedModel
from gpt_neox_japanese.model.transformer import GPTNeoXJapaneseModel

__all__ = [
    "GPTNeoXJapaneseForQuestionAnswering",
    "GPTNeoXJapaneseForSequenceClassification",
    "GPTNeoXJapaneseForTokenClassification",
]

_PREFIX = GPTNeoXJapanesePreTrainedModel.base_model_prefix


@register_with(AutoModelForSequenceClassification)
class GPTNeoXJapaneseForSequenceClassification(
    GenericForSequenceClassification, GPTNeoXJapanesePreTrainedModel
):
    """Scores `num_labels` classes (or a number, with one label) at each text's last token.

    `logits` is [batch, num_labels]; the configuration says how many. Batches of more than one text
    need `config.pad_token_id`.
    """

    base_model_prefix = _PREFIX
    gpt_neox_japanese: GPTNeoXJapaneseModel


@register_with(AutoModelForTokenClassification)
class GPTNeoXJapaneseForTokenClassification(
    GenericForTokenClassification, GPTNeoXJapanesePreTrainedModel
):
    """Scores `num_labels` classes at every token.

    `logits` is [batch, tokens, num_labels]; the configuration says how many.
    """

    base_model_prefix = _PREFIX
    gpt_neox_japanese: GPTNeoXJapaneseModel


@register_with(AutoModelForQuestionAnswering)
class GPTNeoXJapaneseForQuestionAnswering(
    GenericForQuestionAnswering, GPTNeoXJapanesePreTrainedModel
):
    """Scores every token as start and as end of an answer found in the text.

    `start_logits` and `end_logits` are [batch, tokens].
    """

    base_model_prefix = _PREFIX
    gpt_neox_japanese: GPTNeoXJapaneseModel

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embedding."""
        return self.gpt_neox_japanese.embed_in

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embedding.

        Args:
            value: An embedding of `hidden_size` channels.
        """
        self.gpt_neox_japanese.embed_in = cast(nn.Embedding, value)
