"""NeMo in its own environment, beside our port of NanoCodec on the same archives with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from codecs_support import by_recipe, nanocodec_recipe, shapes, write_nemo

from tokbench.config import StreamDecl, TokenizerCard
from tokbench.isolated.environments import Environment
from tokbench.registry import find_card
from tokbench.tokenizers.conformance import conformance, speech_like
from tokbench.tokenizers.isolated import IsolatedTokenizer
from tokbench.tokenizers.load import load_tokenizer

FULL = {"nanocodec-0.6k": "full_0k6", "nanocodec-1.78k": "full_0k6", "nanocodec-1.89k": "full_1k89"}
"""The fixtures' geometry of each; 1.78k's nets are 0.6k's around another quantiser."""


@dataclass(frozen=True)
class Pair:
    nemo: TokenizerCard
    port: TokenizerCard
    archive: Path


@pytest.fixture(scope="module", params=["tiny", *FULL])
def pair(
    request: pytest.FixtureRequest,
    ready: Callable[[str], tuple[TokenizerCard, Environment]],
    shared: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Pair:
    """Cards of NeMo and of the port, and one archive for both: NeMo's own small one, or the released geometry."""
    folder = shared / "parity" / "nanocodec"
    if request.param == "tiny":
        rate, levels = Fraction(22050, 42), (9, 8, 8, 7)
        streams = tuple(StreamDecl(name=f"q{i}", rate_hz=rate, vocab=4032, levels=levels) for i in range(2))
        cards = (ready("nemo-nanocodec-0.6k")[0], find_card(TokenizerCard, "nanocodec-0.6k"))
        nemo, port = (card.model_copy(update={"streams": streams}) for card in cards)
        return Pair(nemo, port, folder / "tiny_nemo" / "tiny.nemo")
    nemo, port = ready(f"nemo-{request.param}")[0], find_card(TokenizerCard, request.param)
    source = folder / FULL[request.param]
    config = yaml.safe_load((source / "model_config.yaml").read_text())
    keys = {key: shape for key, shape in shapes(source / "keys.json").items() if "fsqs" not in key}
    quantizer = config["vector_quantizer"]
    was = config["audio_encoder"]["encoded_dim"]
    quantizer["num_groups"] = len(port.streams)
    quantizer["num_levels_per_group"] = list(port.streams[0].levels or ())
    width = quantizer["num_groups"] * len(quantizer["num_levels_per_group"])
    config["audio_encoder"]["encoded_dim"] = config["audio_decoder"]["input_dim"] = width
    for key, shape in keys.items():
        if key.startswith(("audio_encoder.post_conv", "audio_decoder.pre_conv")):
            keys[key] = tuple(width if size == was else size for size in shape)
    state = by_recipe(keys, nanocodec_recipe)
    levels = np.array(quantizer["num_levels_per_group"])
    for group in range(quantizer["num_groups"]):
        tables = {"num_levels": levels, "dim_base_index": np.cumprod([1, *levels[:-1]])}
        for name, table in tables.items():
            state[f"vector_quantizer.fsqs.{group}.{name}"] = torch.from_numpy(table.astype(np.int32))[None, :, None]
    archive = tmp_path_factory.mktemp("nemo") / "full.nemo"
    return Pair(nemo, port, write_nemo(archive, yaml.safe_dump(config), state))


def test_the_ports_tokens_and_samples_are_nemos(pair: Pair) -> None:
    nemo, port = IsolatedTokenizer(pair.nemo, weights=pair.archive), load_tokenizer(pair.port, weights=pair.archive)
    waves = [speech_like(Fraction(2), 22050, seed=seed)[: n or None] for seed, n in enumerate((0, 17543, 24701))]
    for wave in waves:
        theirs, mine = (one.encode([wave])[0] for one in (nemo, port))
        assert [*theirs.streams] == [*mine.streams]
        assert all(np.array_equal(theirs.streams[name], mine.streams[name]) for name in mine.streams)
        assert len(np.unique(np.stack([*mine.streams.values()]))) > 10
        assert theirs.n_samples_coded == mine.n_samples_coded
        assert port.decode([theirs])[0] == pytest.approx(nemo.decode([theirs])[0], abs=1e-4)
    nemo.close()


def test_the_contract(pair: Pair) -> None:
    tokenizer = IsolatedTokenizer(pair.nemo, weights=pair.archive)
    checks = conformance(tokenizer, long_seconds=(Fraction(35),))
    assert [f"{check.name}: {check.detail}" for check in checks if not check.passed] == []
    tokenizer.close()
