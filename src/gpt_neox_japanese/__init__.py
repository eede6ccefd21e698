"""GPT-NeoX-Japanese: tokenizer, model, generation and training of Japanese language models.

The names below are loaded when they are first used: `import gpt_neox_japanese` itself reads no
heavy library, so a command line that only needs the tokenizer never waits for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # editors and type checkers see what is loaded below
    from gpt_neox_japanese.assets import default_model_directory
    from gpt_neox_japanese.errors import (
        ArgumentError,
        CheckpointError,
        CorpusError,
        DataError,
        GenerationError,
        NeoXJapaneseError,
        OutputError,
        QueueFullError,
        RemoteError,
        TokenizationError,
        TrainingError,
        VocabularyError,
    )
    from gpt_neox_japanese.inference.generator import TextGenerator
    from gpt_neox_japanese.inference.outputs import (
        Completion,
        OutputToken,
        TextChunk,
        TextScore,
    )
    from gpt_neox_japanese.inference.sampling.params import SamplingParams
    from gpt_neox_japanese.inference.text_stream import TextStream
    from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig
    from gpt_neox_japanese.model.heads import (
        GPTNeoXJapaneseForQuestionAnswering,
        GPTNeoXJapaneseForSequenceClassification,
        GPTNeoXJapaneseForTokenClassification,
    )
    from gpt_neox_japanese.model.modeling import (
        GPTNeoXJapaneseForCausalLM,
        GPTNeoXJapaneseModel,
        GPTNeoXJapanesePreTrainedModel,
    )
    from gpt_neox_japanese.registration import register
    from gpt_neox_japanese.tokenizer.codec import Codec
    from gpt_neox_japanese.tokenizer.hf.streamers import (
        AsyncTextIteratorStreamer,
        TextIteratorStreamer,
        TextStreamer,
    )
    from gpt_neox_japanese.tokenizer.hf.tokenizer import GPTNeoXJapaneseTokenizer
    from gpt_neox_japanese.tokenizer.results import Encoding
    from gpt_neox_japanese.tokenizer.vocabulary import Vocabulary

__version__ = "0.1.0"

_MODULE_OF = {
    "ArgumentError": "errors",
    "AsyncTextIteratorStreamer": "tokenizer.hf.streamers",
    "CheckpointError": "errors",
    "Codec": "tokenizer.codec",
    "Completion": "inference.outputs",
    "CorpusError": "errors",
    "DataError": "errors",
    "Encoding": "tokenizer.results",
    "GPTNeoXJapaneseConfig": "model.modeling",
    "GPTNeoXJapaneseForCausalLM": "model.modeling",
    "GPTNeoXJapaneseForQuestionAnswering": "model.heads",
    "GPTNeoXJapaneseForSequenceClassification": "model.heads",
    "GPTNeoXJapaneseForTokenClassification": "model.heads",
    "GPTNeoXJapaneseModel": "model.modeling",
    "GPTNeoXJapanesePreTrainedModel": "model.modeling",
    "GPTNeoXJapaneseTokenizer": "tokenizer.hf.tokenizer",
    "GenerationError": "errors",
    "NeoXJapaneseError": "errors",
    "OutputError": "errors",
    "OutputToken": "inference.outputs",
    "QueueFullError": "errors",
    "RemoteError": "errors",
    "SamplingParams": "inference.sampling.params",
    "TextChunk": "inference.outputs",
    "TextGenerator": "inference.generator",
    "TextIteratorStreamer": "tokenizer.hf.streamers",
    "TextScore": "inference.outputs",
    "TextStream": "inference.text_stream",
    "TextStreamer": "tokenizer.hf.streamers",
    "TokenizationError": "errors",
    "TrainingError": "errors",
    "Vocabulary": "tokenizer.vocabulary",
    "VocabularyError": "errors",
    "default_model_directory": "assets",
    "register": "registration",
}

__all__ = [
    "ArgumentError",
    "AsyncTextIteratorStreamer",
    "CheckpointError",
    "Codec",
    "Completion",
    "CorpusError",
    "DataError",
    "Encoding",
    "GPTNeoXJapaneseConfig",
    "GPTNeoXJapaneseForCausalLM",
    "GPTNeoXJapaneseForQuestionAnswering",
    "GPTNeoXJapaneseForSequenceClassification",
    "GPTNeoXJapaneseForTokenClassification",
    "GPTNeoXJapaneseModel",
    "GPTNeoXJapanesePreTrainedModel",
    "GPTNeoXJapaneseTokenizer",
    "GenerationError",
    "NeoXJapaneseError",
    "OutputError",
    "OutputToken",
    "QueueFullError",
    "RemoteError",
    "SamplingParams",
    "TextChunk",
    "TextGenerator",
    "TextIteratorStreamer",
    "TextScore",
    "TextStream",
    "TextStreamer",
    "TokenizationError",
    "TrainingError",
    "Vocabulary",
    "VocabularyError",
    "default_model_directory",
    "register",
]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name.startswith("GPTNeoXJapanese"):
        # transformers has classes of these names too: from now on its Auto classes give ours.
        importlib.import_module(f"{__name__}.registration").register_with_auto_classes()
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
