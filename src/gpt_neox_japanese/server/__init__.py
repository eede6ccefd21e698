"""`neox-ja serve`: the engine behind HTTP, with OpenAI's names.

A request comes in by `lifecycle` (socket, signals) and a `connection`, passes `gate` (who may ask,
and how much), and is answered by a route of `api/`, drawn together in `app`. What writes is a
`generation`: the texts of one request, taken from the engine; `streaming` sends them as they are
written.
"""
