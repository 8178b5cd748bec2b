"""Models that a task trains on tokens: sequences of ids, the transformer over them, and what is drawn from it.

`layout` turns streams into steps and slots, `documents` packs them, `decoder` and `token_model` are the network,
`sampling` writes with it. Protocols import from here; nothing here imports a protocol, a tokenizer or a judge.
"""
