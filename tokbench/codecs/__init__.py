"""Ports of codecs whose own packages do not fit the stack; pure torch, no tokbench types."""
