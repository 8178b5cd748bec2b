"""NanoCodec (arXiv 2508.05835), NVIDIA NeMo's `AudioCodecModel`, read from its `.nemo` archive without NeMo.

`archive.load_nanocodec` gives a `model.NanoCodec`; the parts are `config`, `nets` and `fsq`.
"""
