"""Tokenizers whose libraries cannot live beside ours: each runs in a process of an environment of its own.

`environments` makes and finds environments, `process` holds a child and its pipes, `worker` restarts it and gives up
in time. `child` is all that is sent to the other side: it runs there without tokbench. May be imported from
`tokbench.tokenizers` and `tokbench.commands`.
"""
