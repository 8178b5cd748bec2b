"""Checkpoints on the child's side: refused in one line that says what to do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

torch = pytest.importorskip("torch")


@pytest.fixture
def files() -> Iterator[ModuleType]:
    """The module as the child imports it."""
    import tokbench.isolated.child as package

    before = set(sys.modules)
    sys.modules["tokbench_worker"] = package
    try:
        from tokbench_worker import files

        yield files
    finally:
        for name in set(sys.modules) - before:
            if name.startswith("tokbench_worker"):
                del sys.modules[name]


def options(
    files: ModuleType, weights: Path | None, *, names: tuple[str, ...] = ("net.pt",), pickle: bool = False
) -> Any:
    return files.Options(
        {
            "name": "x", "params": {}, "device": "cpu", "weights": str(weights) if weights else None,
            "files": list(names), "source": None, "allow_pickle": pickle,
        }
    )  # fmt: skip


def test_a_file_or_the_folder_that_holds_it(files: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "net.pt").touch()
    assert files.find_file(options(files, tmp_path)) == str(tmp_path / "net.pt")
    assert files.find_file(options(files, tmp_path / "net.pt")) == str(tmp_path / "net.pt")
    with pytest.raises(files.BadWeights, match="the weights of x are not here") as caught:
        files.find_file(options(files, None))
    assert caught.value.hint == "Get net.pt and type --weights FOLDER"
    with pytest.raises(files.BadWeights, match=r"holds no b\.pt") as caught:
        files.find_file(options(files, tmp_path, names=("net.pt", "b.pt")), "b.pt")
    assert caught.value.hint == "Get net.pt and b.pt and type --weights FOLDER"
    with pytest.raises(files.NoLibrary, match="needs a source folder"):
        files.use_source(options(files, None))


def test_a_pickle_needs_the_flag(files: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.pt"
    torch.save({"w": torch.ones(2), "note": Fraction(1, 3)}, path)
    with pytest.raises(files.BadWeights, match="a pickle can run code") as caught:
        files.load_tensors(str(path), options(files, path))
    assert caught.value.hint == "If you trust it, add --allow-pickle"
    assert files.load_tensors(str(path), options(files, path, pickle=True))["note"] == Fraction(1, 3)
    assert f"{path}: loading pickled objects" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["net.pt", "net.safetensors"])
def test_damage(files: ModuleType, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for data in (b"", b"hello" * 50):
        path.write_bytes(data)
        with pytest.raises(files.BadWeights, match="is damaged, or is no checkpoint"):
            files.load_tensors(str(path), options(files, path, pickle=True))


def test_tensors_that_do_not_fit(files: ModuleType) -> None:
    net = torch.nn.Linear(2, 3)
    state = {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}
    for change, message in (
        ({"bias": None}, "lacks bias"),
        ({"more": torch.ones(1)}, "holds more, which the model does not have"),
        ({"bias": torch.zeros(4)}, r"bias is \[4\], the model needs \[3\]"),
    ):
        wrong = {key: value for key, value in (state | change).items() if value is not None}
        with pytest.raises(files.BadWeights, match=message):
            files.fill(net, wrong, "net.pt")
    with pytest.raises(files.BadWeights, match="holds a list and no state dict"):
        files.fill(net, [1], "net.pt")
    files.fill(net, state | {"discriminator.w": torch.ones(1)}, "net.pt", ignore=("discriminator.",))
    assert torch.equal(net.weight, state["weight"])
    assert not net.training
