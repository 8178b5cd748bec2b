"""The child's side of an isolated tokenizer; in its own process this package is called `tokbench_worker`.

It needs numpy, the standard library of Python 3.8 or newer, and nothing of tokbench. `start.py` is the script that the
other environment's Python runs, `serve` answers requests, `wire` is the form of messages and arrays (the parent's too),
`files` finds and reads checkpoints, `precision` is how nets are run, `backends` holds one module a family.
"""
