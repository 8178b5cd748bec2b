"""Code as part of a key: a hash that changes when behaviour may change, and not when a comment does."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from tokbench.errors import CardError

__all__ = ["class_hash", "modules_hash"]


def modules_hash(names: Iterable[str]) -> str:
    """Sha256 over the modules' source without comments and docstrings; nothing is imported but parent packages."""
    digest = hashlib.sha256()
    for name in sorted(set(names)):
        digest.update(f"{name} {_module_hash(name)}\n".encode())
    return digest.hexdigest()


def class_hash(cls: type) -> str:
    """`modules_hash` over the modules that define the class and its tokbench bases, and its `code_modules`."""
    modules = {base.__module__ for base in cls.__mro__ if base.__module__ not in ("builtins", "abc")}
    for base in cls.__mro__:
        modules.update(vars(base).get("code_modules", ()))
    return modules_hash(modules)


@lru_cache
def _module_hash(name: str) -> str:
    try:
        spec = find_spec(name)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise CardError(f"there is no module '{name}'", where="code_modules")
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()
