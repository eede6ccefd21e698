"""The transformer with its language-model head, as transformers expects a model to be."""
# transformers' methods carry no annotations, and its class attributes are declared as instance
# variables, which ClassVar would contradict.
# mypy: disallow-untyped-calls=False
# ruff: noqa: RUF012

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

from gpt_neox_japanese.errors import ArgumentError
from gpt_neox_japanese.model.arguments import HiddenStatesChoice, Past, or_default, unread_keywords
from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig
from gpt_neox_japanese.model.decode.cache_names import (
    CACHE_NAME,
    CACHE_NAMES,
    cache_kwargs,
    cache_of,
)
from gpt_neox_japanese.model.decode.linear import linear
from gpt_neox_japanese.model.loading.auto import register_with
from gpt_neox_japanese.model.loading.pretrained import GPTNeoXJapanesePreTrainedModel
from gpt_neox_japanese.model.loss import causal_lm_loss
from gpt_neox_japanese.model.transformer import GPTNeoXJapaneseModel

__all__ = [
    "GPTNeoXJapaneseForCausalLM",
    "GPTNeoXJapaneseModel",
    "GPTNeoXJapanesePreTrainedModel",
]


@register_with(AutoModelForCausalLM)
class GPTNeoXJapaneseForCausalLM(GPTNeoXJapanesePreTrainedModel, GenerationMixin):
    """The transformer with a head that scores every next token.

    Args:
        config: The model's hyper-parameters.

    Example:
        >>> from gpt_neox_japanese import GPTNeoXJapaneseForCausalLM, GPTNeoXJapaneseTokenizer
        >>> from gpt_neox_japanese import default_model_directory
        >>> model = GPTNeoXJapaneseForCausalLM.from_pretrained(default_model_directory())
        >>> tokenizer = GPTNeoXJapaneseTokenizer.from_pretrained(default_model_directory())
        >>> prompt = tokenizer("吾輩は猫である。", return_tensors="pt")
        >>> model(**prompt).logits.shape[-1] == model.config.vocab_size
        True
        >>> ids = model.generate(**prompt, max_new_tokens=12, do_sample=False)
        >>> tokenizer.decode(ids[0]).startswith("吾輩は猫である。")
        True
    """

    _tied_weights_keys = {"embed_out.weight": "gpt_neox_japanese.embed_in.weight"}
    _tp_plan = {"embed_out": "colwise_gather_output"}
    _pp_plan = {"embed_out": (["hidden_states"], ["logits"])}  # type: ignore[dict-item]
    _loss_function = staticmethod(causal_lm_loss)

    skip_logits_in_training = False
    """Return no logits with the loss while training, for trainers that have no use for them."""

    def __init__(self, config: GPTNeoXJapaneseConfig) -> None:
        super().__init__(config)
        self.gpt_neox_japanese = GPTNeoXJapaneseModel(config)
        self.embed_out = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """Return the head."""
        return self.embed_out

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the head.

        Args:
            new_embeddings: A linear layer, hidden → vocab, without a bias.
        """
        self.embed_out = cast(nn.Linear, new_embeddings)

    # `generate` and PEFT read in the signature what can be handed on.
    @wraps(GenerationMixin.prepare_inputs_for_generation, assigned=(), updated=())
    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Collect what `generate` passes to `forward`; the arguments are those of transformers.

        Left out is what `generate` carries along for itself, such as `tokenizer`: of what its
        caller gave, it has refused by now what nobody reads. The cache has both of its names,
        because PEFT looks for the older one.

        Args:
            *args: As of `GenerationMixin.prepare_inputs_for_generation`.
            **kwargs: The same.

        Returns:
            Keyword arguments of `forward`.
        """
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(*args, **kwargs)
        if inputs.get(CACHE_NAME) is not None:
            inputs |= dict.fromkeys(CACHE_NAMES, inputs[CACHE_NAME])
        own = _argument_names(type(self).forward)
        others = {name: value for name, value in inputs.items() if name not in own}
        unread = unread_keywords(others, self.config)
        return {name: value for name, value in inputs.items() if name not in unread}

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values: Past | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: HiddenStatesChoice = None,
        return_dict: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        head_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        skip_logits: bool | None = None,
        cache: Past | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Score the next token at every position, and compare with `labels` if given.

        Args:
            input_ids: Token ids, int64 [batch, tokens]; or give `inputs_embeds`.
            attention_mask: As of `GPTNeoXJapaneseModel.forward`.
            position_ids: Position of each token, int64 [batch, tokens].
            inputs_embeds: [batch, tokens, hidden], instead of `input_ids`.
            past_key_values: Keys and values of earlier calls.
            labels: The input ids again, int64 [batch, tokens], shifted here; positions labelled
                -100 do not count, and if none counts the loss is zero.
            use_cache: Return keys and values for the next call.
            output_attentions: Return each layer's weights.
            output_hidden_states: Return each layer's input and the final output.
            return_dict: False for a plain tuple; `config.return_dict` if None.
            logits_to_keep: Score only the last n positions (0: all), or the positions listed in
                this int64 tensor, [kept tokens].
            head_mask: [heads] or [layers, heads]: 1 keeps a head, 0 silences it.
            token_type_ids: Ignored, with a warning.
            skip_logits: Return the loss alone, `logits` being None. The logits of a long batch are
                then never in memory together; second derivatives need them, though. None stands for
                `skip_logits_in_training` while the model is training and for False otherwise.
            cache: The new name of `past_key_values`.
            **kwargs: Arguments of the attention implementation, and of the loss:
                `num_items_in_batch`, `ignore_index`, `shift_labels` (labels that are shifted
                already) and `num_ids` (further rows of the head are left out).

        Returns:
            `loss` (a scalar, if there are labels), `logits` [batch, kept tokens, vocab], and
            the cache, `hidden_states` and `attentions` as `GPTNeoXJapaneseModel.forward`.

        Raises:
            ArgumentError: (a `ValueError`) `skip_logits` is True without labels or with a loss
                function of one's own; or as `GPTNeoXJapaneseModel.forward`.
            TypeError: For a keyword argument that nothing would read.
        """
        outputs = self.gpt_neox_japanese(
            input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            past_key_values=past_key_values,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            head_mask=head_mask,
            token_type_ids=token_type_ids,
            cache=cache,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits, loss = self._score(
            outputs.last_hidden_state[:, kept], labels, skip_logits=skip_logits, **kwargs
        )
        result = CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **cache_kwargs(cache_of(outputs)),
        )
        return result if or_default(return_dict, self.config.return_dict) else result.to_tuple()

    def _score(
        self,
        hidden_states: Tensor,
        labels: Tensor | None,
        *,
        skip_logits: bool | None,
        shift_labels: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return logits and loss, each if it is wanted; `kwargs` are arguments of the loss."""
        learning = labels is not None or shift_labels is not None
        if skip_logits is None:
            skip_logits = self.skip_logits_in_training and self.training and learning
        kwargs |= {"labels": labels, "shift_labels": shift_labels}
        kwargs["vocab_size"] = self.config.vocab_size
        if not skip_logits:
            logits = linear(self.embed_out, hidden_states)
            return logits, self.loss_function(logits=logits, **kwargs) if learning else None
        if not learning or self.loss_function is not causal_lm_loss:
            raise ArgumentError(
                "skip_logits=True leaves only the model's own loss to return; give labels, and no "
                "loss_function, or use skip_logits=False"
            )
        return None, causal_lm_loss(hidden_states, head=self.embed_out, **kwargs)

    def tie_weights(self, *args: Any, **kwargs: Any) -> None:
        """Tie the head to the embedding, unless a checkpoint brought two different tensors.

        transformers then keeps both and says so. The config is made to agree, so that no later
        call, nor a reload of a saved copy, ties them after all and loses one.

        Args:
            *args: As of `PreTrainedModel.tie_weights`.
            **kwargs: The same.
        """
        super().tie_weights(*args, **kwargs)
        if "embed_out.weight" not in self.all_tied_weights_keys:
            self.config.tie_word_embeddings = False

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Make room for two tensors where `load_state_dict` would write both into the tied one."""
        embedding = state_dict.get(f"{prefix}gpt_neox_japanese.embed_in.weight")
        head = state_dict.get(f"{prefix}embed_out.weight")
        tied = self.embed_out.weight is self.gpt_neox_japanese.embed_in.weight
        if tied and embedding is not None and head is not None and not torch.equal(embedding, head):
            warnings.warn(
                "the state dict has an embed_out.weight that differs from embed_in.weight: keeping "
                "both and setting tie_word_embeddings=False",
                stacklevel=2,
            )
            self.embed_out.weight = nn.Parameter(self.embed_out.weight.detach().clone())
            self.config.tie_word_embeddings = False
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


@cache  # of a function for each token
def _argument_names(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)
