"""The ABX engine: items, slices, features, distances and scores of the minimal-pair discrimination task.

`items` and `slicing` need numpy alone; `engine.score_abx` puts them together and needs numba on the CPU, or torch on
CUDA. Nothing here knows a tokenizer.
"""
