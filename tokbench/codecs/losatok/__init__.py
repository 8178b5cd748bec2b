"""LoSATok (arXiv 2605.27840): two encoders, a Gaussian bottleneck of 128 dimensions at 25 Hz, a Vocos decoder.

`checkpoint.load_losatok` gives a `model.Losatok`; the parts are `config`, `frontend`, `semantic` and `vocos`.
"""
