"""The script that another environment's Python runs: `python start.py REQUESTS REPLIES FOLDER`.

REQUESTS and REPLIES are file descriptors, FOLDER is the private folder for arrays. Standard output is joined to
standard error before any library is imported, so that a chatty one cannot disturb the messages.
"""

from __future__ import annotations

import importlib.util
import os
import sys


def main() -> None:
    """Make this folder the package `tokbench_worker`, and serve."""
    os.dup2(2, 1)
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - before anything else is imported
    # Python puts the script's folder first, where `wire` or `files` would hide a library's modules of that name.
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]  # noqa: PTH100
    spec = importlib.util.spec_from_file_location(
        "tokbench_worker",
        os.path.join(here, "__init__.py"),  # noqa: PTH118
        submodule_search_locations=[here],
    )
    assert spec is not None and spec.loader is not None, "the package lies beside this script"  # noqa: PT018
    package = importlib.util.module_from_spec(spec)
    sys.modules["tokbench_worker"] = package
    spec.loader.exec_module(package)
    from tokbench_worker.serve import serve

    serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])


if __name__ == "__main__":
    main()
