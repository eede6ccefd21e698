"""What each route takes and gives, in OpenAI's names; begin with `completions`.

`schema` says what a request may hold, `logprobs` how tokens are told, `openapi` describes it all.
"""
