"""The server as a stranger sees it: the started command, real clients, nothing of its inside.

What an OpenAI-compatible server must do, and where it is asked for:

- completions: every kind of prompt, `n`, `best_of`, `seed`, `stop`, penalties, biases, vLLM's
  fields, `echo` with scores, names and places of tokens, streams, usage, refusals
  (`test_completions`);
- chat with a template, and what is said without one (`test_completions`);
- models, tokens, health, metrics, the description, OpenAI's errors for everything (`test_http`);
- safety: key, hosts, origins, odd and large bodies, headers, logs (`test_http`);
- clients that leave, a full queue, the place in it, signals (`test_http`).

lm-eval's scores are compared in `tests/server/test_lm_eval.py`, the page in `tests/server/page`.
"""
