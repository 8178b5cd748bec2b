"""How a task is measured: data, pairs, encode, judge, score; may import everything but the command line."""
