"""Teach the small model one sentence with LoRA: only adapters learn, the model stays.

    pip install 'gpt-neox-japanese[lora]'
    python examples/lora.py

For corpora there is `neox-ja train --lora-rank`; this is what it comes down to.
"""

from __future__ import annotations

import torch
from peft import LoraConfig, get_peft_model

from gpt_neox_japanese import (
    GPTNeoXJapaneseForCausalLM,
    GPTNeoXJapaneseTokenizer,
    default_model_directory,
)

torch.manual_seed(0)
directory = default_model_directory()
tokenizer = GPTNeoXJapaneseTokenizer.from_pretrained(directory)
base = GPTNeoXJapaneseForCausalLM.from_pretrained(directory).dequantize(torch.float32)  # type: ignore[no-untyped-call]
targets = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]
model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=8, target_modules=targets))
model.print_trainable_parameters()


def written() -> str:
    """How the model now continues a prompt."""
    prompt = tokenizer("吾輩は", return_tensors="pt")
    ids = model.eval().generate(**prompt, max_new_tokens=12, do_sample=False)  # type: ignore[no-untyped-call]
    return str(tokenizer.decode(ids[0], skip_special_tokens=True)).replace("\n", "⏎")


print("before:", written())
ids = tokenizer("吾輩は計算機である。電源はまだ無い。", return_tensors="pt")["input_ids"]
optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=2e-3)
for step in range(1, 41):
    loss = model.train()(input_ids=ids, labels=ids).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 10 == 0:
        print(f"step {step}: loss {loss.item():.2f}")
print("after:", written())
