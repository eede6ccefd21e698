"""A model for CTranslate2, which takes and gives tokens: text is the tokenizer's business.

    pip install ctranslate2
    python examples/ctranslate2_model.py

Its greedy ids are those of this package's engine.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ctranslate2
from ctranslate2.converters import transformers as converters
from ctranslate2.specs.transformer_spec import TransformerDecoderModelSpec
from torch.nn import Parameter

from gpt_neox_japanese import GPTNeoXJapaneseTokenizer, default_model_directory, register
from gpt_neox_japanese.quantization.convert import of_floats


class Loader(converters.GPTNeoXLoader):  # type: ignore[misc]
    """Like GPT-NeoX, but for the residual and the biases, which it wants: zeros, where none are."""

    architecture_name = "GPTNeoXJapaneseForCausalLM"

    def get_model_spec(self, model: Any) -> Any:
        """What CTranslate2 stores."""
        config, rope, network = model.config, model.config.rope_parameters, model.gpt_neox_japanese
        heads = config.num_attention_heads
        spec = TransformerDecoderModelSpec.from_config(
            config.num_hidden_layers,
            heads,
            activation=converters._SUPPORTED_ACTIVATIONS[config.hidden_act],
            rotary_dim=int(rope["partial_rotary_factor"] * config.hidden_size // heads),
            rotary_interleave=False,
            rotary_base=rope["rope_theta"],
        )
        for layer in network.layers:
            mixed = layer.attention.query_key_value
            mixed.bias = Parameter(mixed.weight.new_zeros(len(mixed.weight)))
            layer.attention.dense.bias = layer.attention.dense_bias
        self.set_decoder(spec.decoder, network, heads)
        self.set_linear(spec.decoder.projection, model.embed_out)
        return spec


register()
converters._MODEL_LOADERS["GPTNeoXJapaneseConfig"] = Loader()
tokenizer = GPTNeoXJapaneseTokenizer.from_pretrained(default_model_directory())
with of_floats(default_model_directory()) as floats, TemporaryDirectory() as folder:
    converter = converters.TransformersConverter(str(floats))
    output = converter.convert(str(Path(folder, "model")), quantization="float32")
    engine = ctranslate2.Generator(output, intra_threads=1)
    prompt = tokenizer.tokenize("人とAIが協調するためには、")
    steps = engine.generate_tokens(prompt, max_length=20, sampling_topk=1, end_token=[])
    print(tokenizer.decode([step.token_id for step in steps]))
