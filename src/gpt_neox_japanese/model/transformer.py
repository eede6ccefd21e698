"""The stack of layers: token ids to final hidden states.

`rotary.py`, `attention.py` and `layer.py` are the mathematics; `arguments.py` and `masks.py` check
what callers pass. Here the documented interface is given its meaning.
"""
# transformers' methods carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import copy
import warnings
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation.continuous_batching.cache import PagedAttentionCache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from gpt_neox_japanese.errors import ArgumentError
from gpt_neox_japanese.model.arguments import (
    HiddenStatesChoice,
    Past,
    as_cache,
    check_shapes,
    head_mask_per_layer,
    keep_hidden_states,
    or_default,
    reject_cache,
    reject_unknown_keywords,
    wanted_hidden_states,
    warn_of_extrapolation,
)
from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig
from gpt_neox_japanese.model.decode.cache_names import cache_kwargs
from gpt_neox_japanese.model.decode.kv_cache import preallocate
from gpt_neox_japanese.model.layer import GPTNeoXJapaneseLayer
from gpt_neox_japanese.model.loading.auto import register_with
from gpt_neox_japanese.model.loading.pretrained import GPTNeoXJapanesePreTrainedModel
from gpt_neox_japanese.model.masks import as_mask, document_positions, warn_of_unmasked_padding
from gpt_neox_japanese.model.rotary import GPTNeoXJapaneseRotaryEmbedding

__all__ = ["GPTNeoXJapaneseModel"]


@register_with(AutoModel)
class GPTNeoXJapaneseModel(GPTNeoXJapanesePreTrainedModel):
    """Token ids to final hidden states.

    Args:
        config: The model's hyper-parameters.
    """

    def __init__(self, config: GPTNeoXJapaneseConfig) -> None:
        super().__init__(config)
        self.embed_in = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            GPTNeoXJapaneseLayer(config, index) for index in range(config.num_hidden_layers)
        )
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.rotary_emb = GPTNeoXJapaneseRotaryEmbedding(config)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embedding."""
        return self.embed_in

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embedding.

        Args:
            value: An embedding of `hidden_size` channels.
        """
        self.embed_in = cast(nn.Embedding, value)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values: Past | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: HiddenStatesChoice = None,
        return_dict: bool | None = None,
        head_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        cache: Past | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast | tuple[Any, ...]:
        """Run the transformer.

        Args:
            input_ids: Token ids, int64 [batch, tokens]; or give `inputs_embeds`.
            attention_mask: [batch, past + tokens], 1 for text and 0 for padding, where further
                columns do not count; or a prepared mask, [batch, 1, tokens, past + tokens]:
                added to the scores if of a floating dtype, else 1 or True where a token may look;
                with flex attention a `BlockMask` instead, with flash attention none.
            position_ids: Position of each token, int64 [batch, tokens]; counted on from the past
                if not given. Without a past and a mask, a row whose positions leave off only to
                return to 0 holds documents: each begins at a 0 and reads nothing of those before.
                Any other row is one text, whatever positions it skips or repeats.
            inputs_embeds: [batch, tokens, hidden], instead of `input_ids`.
            past_key_values: Keys and values of earlier calls: a `Cache`, or for each layer a pair
                of [batch, heads, past, head_dim].
            use_cache: Return keys and values for the next call; `config.use_cache` if None.
            output_attentions: Return each layer's weights; computed by the eager implementation.
            output_hidden_states: Return each layer's input and the final output; or, given indices
                such as `[0, -1]`, these of them, and None for the others.
            return_dict: False for a plain tuple; `config.return_dict` if None.
            head_mask: [heads] or [layers, heads]: 1 keeps a head, 0 silences it.
            token_type_ids: Ignored, with a warning: the architecture has no segments.
            cache: The new name of `past_key_values`; or the pages of continuous batching.
            **kwargs: Arguments of the attention implementation.

        Returns:
            `last_hidden_state` [batch, tokens, hidden] and, if asked for, the cache (as `cache`,
            before transformers 5.24 as `past_key_values`), `hidden_states` (layers + 1 of [batch,
            tokens, hidden]) and `attentions` (layers of [batch, heads, tokens, past + tokens]).

        Raises:
            ArgumentError: (a `ValueError`) unless exactly one of `input_ids` and
                `inputs_embeds` is given, if an argument has the wrong shape, if the mask is no
                tensor or the attention implementation does not read it, if positions are no
                integers, if two caches are given, if a cache is given while gradients are
                checkpointed, or if `output_hidden_states` is neither a flag nor indices.
            TypeError: For a keyword argument that nothing would read.
        """
        reject_unknown_keywords(kwargs, self.config)
        cache = as_cache(cache, past_key_values, self.config)
        if token_type_ids is not None:
            warnings.warn("token_type_ids is ignored: the model has no segments", stacklevel=2)
        if (input_ids is None) == (inputs_embeds is None):
            raise ArgumentError("give exactly one of input_ids and inputs_embeds")
        if inputs_embeds is not None:
            check_shapes("inputs_embeds", inputs_embeds, "[batch, tokens, hidden]", position_ids)
        if input_ids is not None:
            check_shapes("input_ids", input_ids, "[batch, tokens]", position_ids)
            if attention_mask is None and cache is None and not self.training:
                warn_of_unmasked_padding(input_ids, self.config)
            inputs_embeds = self.embed_in(input_ids)

        config = self.config
        wanted = wanted_hidden_states(output_hidden_states, config.output_hidden_states)
        outputs: BaseModelOutputWithPast = self._run_layers(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            use_cache=use_cache,
            head_mask=head_mask_per_layer(head_mask, config),
            # The decorators would take None for False.
            output_attentions=or_default(output_attentions, config.output_attentions),
            output_hidden_states=wanted,
            return_dict=True,
            **kwargs,
        )
        if isinstance(wanted, list) and outputs.hidden_states is not None:
            # Before 5.24 transformers knows of no choice.
            outputs.hidden_states = keep_hidden_states(outputs.hidden_states, wanted)  # type: ignore[assignment]
        return outputs if or_default(return_dict, config.return_dict) else outputs.to_tuple()

    @merge_with_config_defaults  # type: ignore[untyped-decorator]
    @capture_outputs  # type: ignore[untyped-decorator]
    def _run_layers(
        self,
        *,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        cache: Cache | PagedAttentionCache | None,
        use_cache: bool,
        head_mask: Tensor | None,
        output_attentions: bool,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        checkpointing = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        if checkpointing:
            reject_cache(cache)
        past = preallocate(cache) if isinstance(cache, Cache) else None
        past_length = 0 if past is None else past.get_seq_length()
        tokens = inputs_embeds.shape[1]
        warn_of_extrapolation(past_length, tokens, self.config)
        documents = None  # beside a cache, even an empty one, no mask tells them apart
        if cache is None and attention_mask is None:
            documents = document_positions(position_ids, len(inputs_embeds), self.config)
        causal_mask = create_causal_mask(
            config=self._config_that_has_weights() if output_attentions else self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=as_mask(
                attention_mask, inputs_embeds, cache if past is None else past, self.config
            ),
            position_ids=documents,
            **cache_kwargs(past),
        )
        if use_cache and cache is None and not checkpointing:
            cache = past = preallocate(DynamicCache(config=self.config))
        if position_ids is None:
            position_ids = (torch.arange(tokens, device=inputs_embeds.device) + past_length)[None]
        position_embeddings = self.rotary_emb(inputs_embeds, position_ids)
        hidden_states = inputs_embeds
        # Fewer than there are, if the config says so: `generate(assistant_early_exit=…)` makes it.
        for index, layer in zip(range(self.config.num_hidden_layers), self.layers, strict=False):
            hidden_states = layer(
                hidden_states,
                attention_mask=causal_mask,
                position_embeddings=position_embeddings,
                position_ids=documents,  # flash attention makes its masks of them
                cache=cache,
                use_cache=use_cache,
                head_mask=None if head_mask is None else head_mask[index],
                output_attentions=output_attentions,
                **kwargs,
            )
        return BaseModelOutputWithPast(
            last_hidden_state=self.final_layer_norm(hidden_states),
            **cache_kwargs(past),
        )

    def _config_that_has_weights(self) -> GPTNeoXJapaneseConfig:
        """Return a config for eager masks, and say so if it is not the one in use."""
        implementation = self.config._attn_implementation
        if implementation == "eager":
            return self.config
        if not torch.compiler.is_compiling():
            warnings.warn(
                f"{implementation!r} attention has no weights to return, so with "
                "output_attentions=True this call is computed with 'eager'; load the model with "
                "attn_implementation='eager' to choose that yourself",
                stacklevel=2,
            )
        config = copy.copy(self.config)
        config._attn_implementation = "eager"
        return config
