"""Codecs whose nets are classes of `transformers`: one mechanism (`base`, `loading`), and a small file a kind of codec.

Adapters elsewhere may import `base` and `loading`; nothing here imports torch or transformers until a model is loaded.
"""
