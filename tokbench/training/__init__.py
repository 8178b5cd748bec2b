"""Training of probes: a recipe, seekable batches, one loop that resumes after a kill, and what it reports.

Import `Recipe` from `recipe`, `Order` from `order`, `Batch`, `fit` and `Fitted` from `loop`, `Checkpoint` from
`checkpoint`. Protocols reach the loop through `Bench.training`, which puts it behind the store.
"""
