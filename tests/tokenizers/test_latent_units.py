"""K-means over a continuous tokenizer's latents: nearest centroids in, that tokenizer's audio of centroids out."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import yaml
from one_task import pnmi, reconstruction, value

from tokbench.config import TokenizerCard
from tokbench.errors import CardError, MissingWeights
from tokbench.registry import find_card, set_extra_paths
from tokbench.tokenizers.codebook import Units
from tokbench.tokenizers.conformance import conformance, speech_like
from tokbench.tokenizers.latent_units import LatentUnits
from tokbench.tokenizers.load import load_tokenizer
from tokbench.types import Encoded

BASE = """\
name: losatok-tiny
summary: The small geometry of the parity fixtures.
adapter: tokbench.tokenizers.losatok:LosatokTokenizer
family: LoSATok
capabilities: [continuous, decode, posterior]
streams: [{name: z, kind: latent, rate_hz: 25, dim: 8}]
input_rate: 16000
output_rate: 16000
min_samples: 513
licence: MIT
weights: {source: hub, location: nobody/nothing, files: {losatok_tiny.pth: ""}, licence: MIT}
params: {heads: 4}
"""


@pytest.fixture(autouse=True)
def tiny(tmp_path: Path) -> Iterator[None]:
    """The base tokenizer as a card of a folder of its own."""
    (tmp_path / "content" / "tokenizers").mkdir(parents=True)
    (tmp_path / "content" / "tokenizers" / "losatok-tiny.yaml").write_text(BASE)
    set_extra_paths((tmp_path / "content",))
    yield
    set_extra_paths(())


@pytest.fixture
def folder(shared: Path, tmp_path: Path) -> Path:
    """A weights folder; its `.pth` is the fixtures' state as torch saves it."""
    import torch
    from safetensors.torch import load_file

    made = tmp_path / "weights"
    made.mkdir()
    torch.save(load_file(shared / "parity" / "losatok" / "tiny" / "state.safetensors"), made / "losatok_tiny.pth")
    return made


def card(**params: object) -> TokenizerCard:
    found = find_card(TokenizerCard, "losatok-kmeans-12")
    return found.model_copy(update={"params": {**found.params, "features": "latents:losatok-tiny"} | params})


def test_fit_save_and_the_contract(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(card(), weights=folder)
    assert isinstance(tokenizer, LatentUnits)
    waves = [speech_like(Fraction(2), 16000, seed=seed) for seed in range(3)]
    report = tokenizer.fit(iter(waves), seed=0)
    assert report["frames"] == 150
    tokenizer.save(folder / "centroids.safetensors")
    assert Units.load(folder / "centroids.safetensors").to_mel is None
    again = load_tokenizer(card(), weights=folder)
    # The child process of one check would not know this test's card.
    monkeypatch.setattr(
        "tokbench.tokenizers.conformance.decode_elsewhere",
        lambda own, item: load_tokenizer(own.card, weights=folder).decode([item])[0],
    )
    checks = conformance(again, long_seconds=(Fraction(35),))
    assert [f"{check.name}: {check.detail}" for check in checks if not check.passed] == []
    base = load_tokenizer("losatok-tiny", weights=folder)
    item = again.encode([waves[0]])[0]
    latent = base.encode([waves[0]])[0].streams["z"]
    book = again.codebook("units")  # type: ignore[attr-defined]
    assert np.array_equal(item.streams["units"], ((latent[:, None] - book[None]) ** 2).sum(axis=2).argmin(axis=1))
    want = base.decode([Encoded({"z": book[item.streams["units"]]}, n_samples=len(waves[0]))])[0]
    assert np.array_equal(again.decode([item])[0], want)
    identity = LatentUnits.weights_identity(card(), folder)
    assert {"latents", "code", "params", "weights", "centroids/centroids.safetensors"} == set(identity)


def test_tasks_for_discrete_tokenizers(folder: Path, tmp_path: Path) -> None:
    small = card().model_copy(update={"name": "tiny-units"})
    content = tmp_path / "content"
    (content / "tokenizers" / "tiny-units.yaml").write_text(
        yaml.safe_dump(small.model_dump(mode="json", exclude_defaults=True))
    )
    set_extra_paths((content,))
    tokenizer = load_tokenizer(small, weights=folder)
    assert isinstance(tokenizer, LatentUnits)
    tokenizer.fit((speech_like(Fraction(2), 16000, seed=seed) for seed in range(2)), seed=0)
    tokenizer.save(folder / "centroids.safetensors")
    audio = reconstruction("tiny-units", folder, tmp_path, paths=(content,))
    units = pnmi("tiny-units", folder, tmp_path, paths=(content,))
    assert (audio.status, units.status) == ("complete", "complete")
    assert value(audio, "bps_nominal") == pytest.approx(25 * np.log2(12))
    assert value(audio, "mel_distance") > 0
    assert 0 < value(units, "pnmi[units]") <= 1


def test_cards_that_do_not_fit(folder: Path) -> None:
    wrong: list[tuple[TokenizerCard, str]] = [
        (card(features="latents:codec2-1200"), "'codec2-1200' has not just one latent stream"),
        (card(features="mfcc"), "must be latents:NAME"),
        (card().model_copy(update={"min_samples": 1}), "must be those of losatok-tiny"),
    ]
    for one, message in wrong:
        with pytest.raises(CardError, match=message):
            load_tokenizer(one, weights=folder)


def test_missing_weights_are_the_base_tokenizers() -> None:
    with pytest.raises(MissingWeights, match=r"losatok_kl1e-2\.pth"):
        load_tokenizer("losatok-kmeans-100")
