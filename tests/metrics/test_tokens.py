"""Rows and estimates of whole tokenizers: known rates, Parquet round trip, ragged and continuous streams."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tokbench.config import TokenizerCard
from tokbench.errors import NotApplicable, TokensError, UserError
from tokbench.metrics.token_components import token_components
from tokbench.metrics.token_metrics import METRICS
from tokbench.metrics.tokens import token_estimates, token_rows
from tokbench.results import Estimate
from tokbench.stats import compare
from tokbench.types import Encoded

RATE = 16000


def card(streams: list[dict[str, Any]], globals_: list[dict[str, Any]] | None = None) -> TokenizerCard:
    kinds = {"continuous" if s.get("kind") == "latent" else "discrete" for s in streams}
    return TokenizerCard.model_validate(
        {
            "name": "made",
            "summary": "made for a test",
            "adapter": "none:None",
            "family": "test",
            "capabilities": sorted(kinds),
            "streams": streams,
            "globals": globals_ or [],
            "input_rate": RATE,
            "licence": "MIT",
        }
    )


def corpus(encoded: list[Encoded], **more: Any) -> pd.DataFrame:
    ids = [f"u{i:03d}" for i in range(len(encoded))]
    return pd.DataFrame(token_rows(ids, [f"s{i % 5}" for i in range(len(encoded))], encoded, RATE, **more))


def codes(count: int = 20, *, vocab: int = 64, length: int = 200, seed: int = 0, **more: Any) -> list[Encoded]:
    rng = np.random.default_rng(seed)
    return [Encoded({"q0": rng.integers(0, vocab, length)}, n_samples=4 * RATE, **more) for _ in range(count)]


def figures(rows: pd.DataFrame, made: TokenizerCard, **more: Any) -> dict[str, Estimate]:
    return {e.metric: e for e in token_estimates(rows, made, **{"draws": 1000, "seed": 0} | more)}


SINGLE = card([{"name": "q0", "rate_hz": 50, "vocab": 64}])


def test_uniform_codes_cost_their_nominal_rate() -> None:
    found = figures(corpus(codes()), SINGLE)
    assert found["bps_nominal"].value == 300.0
    assert found["bps_nominal"].ci95 is None
    assert found["bps_measured"].value == pytest.approx(300.0)
    assert found["tokens_per_second"].value == found["frames_per_second"].value == 50.0
    for name in ("bps_h0", "bps_h1", "bps_joint", "bps_coded", "bps_effective"):
        # Each half of H1 has 2000 tokens for 4096 pairs: a bound from above, some 5 % loose.
        assert found[name].value == pytest.approx(300.0, rel=0.07 if name == "bps_h1" else 0.03), name
        low, high = found[name].ci95
        assert low <= found[name].value <= high
        assert found[name].clusters == 5
    assert found["codes_used"].value == 1.0
    assert found["dead_codes"].value == 0.0
    assert found["code_perplexity"].value == pytest.approx(64.0, rel=0.01)
    assert found["bps_global"].value == 0.0
    assert "bps_global_10s" not in found
    assert [name for name, e in found.items() if e.headline] == ["bps_effective"]
    assert {e.table for e in found.values()} == {"tokens"}


def test_rates_are_over_the_corpus_and_show_padding() -> None:
    items = [
        Encoded({"q0": np.arange(100) % 64}, n_samples=RATE, n_samples_coded=2 * RATE, side_info_bits=40),
        Encoded({"q0": np.arange(50) % 64}, n_samples=3 * RATE, n_samples_coded=4 * RATE, side_info_bits=20),
    ]
    found = figures(corpus(items), SINGLE)
    assert found["tokens_per_second"].value == 150 / 4
    assert found["bps_measured"].value == pytest.approx((150 * 6 + 60) / 4)
    assert found["bps_measured"].note == f"{(150 * 6 + 60) / 6:.1f} bit/s over the samples that the tokens describe"
    effective, coded = found["bps_effective"].value, found["bps_coded"].value
    assert effective == pytest.approx(coded + 60 / 4)


def test_constant_tokens_cost_almost_nothing() -> None:
    items = [Encoded({"q0": np.full(200, 9)}, n_samples=4 * RATE) for _ in range(10)]
    found = figures(corpus(items), SINGLE)
    assert found["bps_h0"].value == 0.0
    assert found["bps_dedup"].value == 0.0
    assert found["bps_h1"].value < 0.5
    assert found["bps_coded"].value < 1.0
    assert found["code_perplexity"].value == 1.0
    assert found["dead_codes"].value == 63.0
    assert found["codes_used"].value == 1 / 64
    assert found["codes_used"].note == "N = 2000 tokens; 1 of 64 codes occur (1.6%)"


def test_dedup_of_a_run_length_source() -> None:
    rng = np.random.default_rng(1)
    items = []
    for _ in range(20):
        unit = np.cumsum(rng.integers(1, 64, 300)) % 64
        items.append(Encoded({"q0": np.repeat(unit, rng.choice([2, 4], 300))}, n_samples=6 * RATE))
    found = figures(corpus(items), SINGLE)
    assert found["bps_dedup"].value == pytest.approx(300 / 6 * (6 + 1), rel=0.01)
    assert found["bps_h0"].value > 2.5 * found["bps_dedup"].value


def test_global_vectors_are_charged() -> None:
    vector = np.zeros(128, np.float32)
    items = codes(globals={"speaker": vector})
    made = card([{"name": "q0", "rate_hz": 50, "vocab": 64}], [{"name": "speaker", "dim": 128}])
    found = figures(corpus(items), made)
    assert found["bps_global"].value == pytest.approx(128 * 16 / 4)
    assert found["bps_global_3s"].value == pytest.approx(2048 / 3)
    assert found["bps_global_10s"].value == pytest.approx(204.8)
    assert found["bps_global_30s"].value == pytest.approx(2048 / 30)
    assert "204.8 at 10 s" in found["bps_global"].note
    assert found["bps_effective"].value == pytest.approx(found["bps_coded"].value + 512)

    eight = card([{"name": "q0", "rate_hz": 50, "vocab": 64}], [{"name": "speaker", "dim": 128, "bits_per_dim": 8}])
    with pytest.raises(TokensError, match="charge 2048 bits an utterance for globals, the card declares 1024"):
        figures(corpus(items), eight)
    assert figures(corpus(items, bits_per_dim={"speaker": 8}), eight)["bps_global"].value == pytest.approx(256)


def test_duplicated_stream_costs_once() -> None:
    items = [Encoded({"q0": e.streams["q0"], "q1": e.streams["q0"]}, n_samples=e.n_samples) for e in codes(length=400)]
    both = card([{"name": "q0", "rate_hz": 100, "vocab": 64}, {"name": "q1", "rate_hz": 100, "vocab": 64}])
    found = figures(corpus(items), both)
    one = figures(corpus(codes(length=400)), card([{"name": "q0", "rate_hz": 100, "vocab": 64}]))
    assert found["bps_h0"].value == pytest.approx(2 * one["bps_h0"].value)
    assert found["bps_joint"].value == pytest.approx(one["bps_joint"].value, rel=0.01)
    assert found["bps_coded"].value == pytest.approx(one["bps_coded"].value, rel=0.05)
    assert found["bps_coded[q0]"].value == pytest.approx(one["bps_coded"].value)
    assert found["code_perplexity[q1]"].value == pytest.approx(one["code_perplexity"].value)
    assert found["code_perplexity"].value == pytest.approx(one["code_perplexity"].value)
    assert found["tokens_per_second"].value == 2 * found["frames_per_second"].value == 200.0
    assert found["codes_used[q1]"].title == "Codes used, q1"


def test_ragged_rates_have_no_joint_rate_and_say_why() -> None:
    rng = np.random.default_rng(2)
    items = [Encoded({f"c{i}": rng.integers(0, 16, 50 << i) for i in range(3)}, n_samples=4 * RATE) for _ in range(6)]
    rates = ["25/2", 25, 50]
    found = figures(corpus(items), card([{"name": f"c{i}", "rate_hz": r, "vocab": 16} for i, r in enumerate(rates)]))
    assert found["bps_joint"].value is None
    assert found["bps_joint"].ci95 is None
    assert found["bps_joint"].undefined == 6
    assert list(found["bps_joint"].reasons) == ["the streams have different rates, so there is no common frame"]
    assert found["frames_per_second"].value == 50.0
    assert found["bps_coded"].value == pytest.approx(4 * 87.5, rel=0.05)


def test_a_coarse_stream_helps_to_code_a_fine_one() -> None:
    rng = np.random.default_rng(3)
    items = []
    for _ in range(10):
        coarse = rng.integers(0, 16, 100)
        items.append(Encoded({"c0": coarse, "c1": np.repeat(coarse, 2) * 2 % 16}, n_samples=4 * RATE))
    found = figures(
        corpus(items), card([{"name": "c0", "rate_hz": 25, "vocab": 16}, {"name": "c1", "rate_hz": 50, "vocab": 16}])
    )
    assert found["bps_coded[c1]"].value < 0.1 * found["bps_h0[c1]"].value


def test_fsq_levels_have_marginal_entropies() -> None:
    rng = np.random.default_rng(4)
    first, second = rng.integers(0, 4, (20, 200)), np.zeros((20, 200), np.int64)
    items = [Encoded({"q0": a + 4 * b}, n_samples=4 * RATE) for a, b in zip(first, second, strict=True)]
    found = figures(corpus(items), card([{"name": "q0", "rate_hz": 50, "vocab": 20, "levels": [4, 5]}]))
    assert found["level_entropy[q0.0]"].value == pytest.approx(2.0, abs=0.01)
    assert found["level_entropy[q0.1]"].value == 0.0
    assert found["level_entropy[q0.1]"].title == "Entropy of an FSQ level, q0 level 1"


def latents(count: int = 12, dim: int = 3, frames: int = 250, seed: int = 5) -> list[Encoded]:
    rng = np.random.default_rng(seed)
    scale = np.geomspace(0.01, 100, dim)
    return [
        Encoded({"z": (rng.standard_normal((frames, dim)) * scale + 7).astype(np.float32)}, n_samples=10 * RATE)
        for _ in range(count)
    ]


LATENT = card([{"name": "z", "kind": "latent", "rate_hz": 25, "dim": 3}])


def test_latents_have_their_own_columns() -> None:
    found = figures(corpus(latents()), LATENT)
    of_codes = {"bps_nominal", "bps_measured", "bps_h0", "bps_h1", "bps_joint", "bps_dedup", "bps_coded"}
    assert not (of_codes | {"bps_effective", "codes_used", "code_perplexity", "dead_codes"}) & set(found)
    assert found["bps_raw"].value == 25 * 3 * 16
    assert found["bps_kl"].value is None
    assert list(found["bps_kl"].reasons) == ["no posterior was given for the latent 'z'"]
    # Gaussians of any scale: differential entropy minus log2 of the step, and 1 bit less when the step doubles.
    gauss = 0.5 * np.log2(2 * np.pi * np.e)
    fine, half, full = (found[f"bps_quantised{s}"].value for s in ("", "_half", "_full"))
    assert fine == pytest.approx(75 * (gauss + 2), rel=0.05)
    assert fine - half == pytest.approx(75, rel=0.08)
    assert half - full == pytest.approx(75, rel=0.08)
    assert found["tokens_per_second"].value == 25.0


def test_published_raw_rates() -> None:
    losatok = card([{"name": "z", "kind": "latent", "rate_hz": 25, "dim": 128}])
    items = [Encoded({"z": np.zeros((25, 128), np.float32)}, n_samples=RATE)] * 2
    found = figures(corpus(items), losatok)
    assert found["bps_raw"].value == 51_200
    assert found["bps_quantised"].value < 50  # constant: only the model's start is charged


def test_kl_rate_of_a_posterior() -> None:
    items = latents()
    posteriors = [{"z": (np.full((250, 3), 2.0), np.zeros((250, 3)))} for _ in items]
    found = figures(corpus(items, posteriors=posteriors), LATENT)
    assert found["bps_kl"].value == pytest.approx(25 * 3 * 2 / np.log(2))


def test_quantised_rate_does_not_depend_on_shards() -> None:
    items = latents()
    ids, speakers = [f"u{i:03d}" for i in range(12)], [f"s{i % 5}" for i in range(12)]
    shards = [
        r for i in range(0, 12, 5) for r in token_rows(ids[i : i + 5], speakers[i : i + 5], items[i : i + 5], RATE)
    ]
    whole, parts = figures(corpus(items), LATENT), figures(pd.DataFrame(shards), LATENT)
    assert whole == parts


def test_codes_beside_a_latent_have_no_effective_rate() -> None:
    items = [
        Encoded(a.streams | b.streams, n_samples=4 * RATE) for a, b in zip(codes(12), latents(frames=100), strict=True)
    ]
    mixed = card([{"name": "q0", "rate_hz": 50, "vocab": 64}, {"name": "z", "kind": "latent", "rate_hz": 25, "dim": 3}])
    found = figures(corpus(items), mixed)
    assert found["bps_effective"].value is None
    assert "no finite rate" in str(found["bps_effective"].note)
    assert found["code_perplexity"].value == pytest.approx(64.0, rel=0.02)
    assert found["tokens_per_second"].value == 75.0
    assert found["bps_raw"].value == 1200.0


@pytest.mark.parametrize("kind", ["codes", "latent"])
def test_parquet_and_row_order_change_nothing(kind: str) -> None:
    rows, made = (corpus(codes()), SINGLE) if kind == "codes" else (corpus(latents()), LATENT)
    buffer = io.BytesIO()
    rows.sample(frac=1, random_state=0).to_parquet(buffer, index=False)
    buffer.seek(0)
    assert token_estimates(pd.read_parquet(buffer), made, draws=500, seed=3) == token_estimates(
        rows, made, draws=500, seed=3
    )


def test_few_tokens_are_warned_about() -> None:
    found = figures(corpus(codes(vocab=4096)), card([{"name": "q0", "rate_hz": 50, "vocab": 4096}]))
    assert "N = 4000 tokens" in found["bps_h0"].note
    assert "fewer than 10 tokens a code" in found["bps_h0"].note
    assert "fewer than 10 tokens a code" in found["bps_h1"].note
    assert found["bps_coded"].value <= found["bps_nominal"].value + 1
    # The interval of an entropy surrounds it, though resampled corpora hold fewer distinct codes.
    low, high = found["bps_h0"].ci95
    assert low <= found["bps_h0"].value <= high
    enough = figures(corpus(codes()), SINGLE)
    assert "fewer than" not in str(enough["bps_h0"].note)
    assert "above the unigram entropy" in str(enough["bps_h1"].note)


def test_one_utterance_has_values_without_intervals() -> None:
    found = figures(corpus(codes(1)), SINGLE)
    assert found["bps_coded"].value is not None
    assert found["bps_coded"].ci95 is None
    assert found["bps_h1"].value is None
    assert "two utterances" in str(found["bps_h1"].note)


def test_no_tokens_at_all_is_undefined_where_it_divides_by_them() -> None:
    found = figures(corpus([Encoded({"q0": np.zeros(0, np.int64)}, n_samples=10)] * 2), SINGLE)
    assert found["code_perplexity"].value is None
    assert found["code_perplexity"].reasons == {"there are no tokens": 2}
    assert found["bps_coded"].value == 0.0


def test_rows_that_do_not_fit_the_card_are_refused() -> None:
    rows = corpus(codes())
    with pytest.raises(TokensError, match=r"no column 'n\[q1\]'"):
        figures(rows, card([{"name": "q1", "rate_hz": 50, "vocab": 64}]))
    with pytest.raises(TokensError, match=r"ids outside 0\.\.9"):
        figures(rows, card([{"name": "q0", "rate_hz": 50, "vocab": 10}]))
    with pytest.raises(UserError, match="no rows"):
        figures(rows[:0], SINGLE)
    with pytest.raises(TokensError, match="does not count the codes"):
        figures(rows.assign(**{"n[q0]": 3}), SINGLE)
    with pytest.raises(TokensError, match="not codes or a latent"):
        corpus([Encoded({"q0": np.zeros((2, 2), np.int64)}, n_samples=10)])


def test_components_serve_a_paired_comparison() -> None:
    fine, coarse = (token_components(corpus(codes(vocab=v)), SINGLE).frame for v in (64, 16))
    headline = next(m for m in METRICS if m.name == "bps_effective")
    result = compare(headline, coarse, fine, draws=500)
    assert result.better == "a"
    assert result.difference == pytest.approx(50 * -2, rel=0.1)


def test_every_metric_explains_itself() -> None:
    assert len({m.name for m in METRICS}) == len(METRICS)
    for one in METRICS:
        assert one.title, one.name
        assert one.unit, one.name
        assert one.description.count(".") >= 2, one.name
        if not one.components:
            with pytest.raises(NotApplicable):
                one.reduce({}, np.ones((1, 1)))
    # What the estimates print is what the registry declares.
    rows = corpus(codes(globals={"g": np.zeros(4, np.float32)}))
    made = card([{"name": "q0", "rate_hz": 50, "vocab": 64}], [{"name": "g", "dim": 4}])
    declared = {m.name: m for m in METRICS}
    for name, found in figures(rows, made).items():
        assert (found.unit, found.direction, found.scale) == (
            declared[name].unit,
            declared[name].direction,
            declared[name].scale,
        )


def test_pcm_is_a_stream_like_any_other() -> None:
    rng = np.random.default_rng(6)
    items = [
        Encoded({"pcm": np.clip(rng.laplace(32768, 1500, 40_000), 0, 65535).astype(np.int64)}, n_samples=40_000)
        for _ in range(5)
    ]
    found = figures(corpus(items), card([{"name": "pcm", "rate_hz": RATE, "vocab": 65536}]))
    assert found["bps_nominal"].value == 256_000
    # Laplace samples: log2(2 e b) bits each.
    entropy = np.log2(2 * np.e * 1500)
    assert RATE * entropy < found["bps_coded"].value < RATE * (entropy + 0.5)
