"""tokbench measures speech tokenizers under one protocol.

Importing this package loads no torch: heavy libraries are imported by the functions that need them.
"""

__version__ = "0.1.0"
