"""Adapters, one module a family, over the contract in `base`; may import types, config, audio and errors."""
