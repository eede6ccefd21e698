"""Use the model through transformers' pipeline, as any other model of transformers.

    python examples/transformers_pipeline.py

`register()` puts this package's classes where transformers looks for those of this architecture.
"""

from __future__ import annotations

from transformers import pipeline, set_seed

from gpt_neox_japanese import default_model_directory, register

register()
set_seed(5)
write = pipeline("text-generation", model=str(default_model_directory()), dtype="float32")
for result in write(["雨の降る晩に、", "山の上から"], max_new_tokens=20, do_sample=True, top_p=0.9):
    print(result[0]["generated_text"])
