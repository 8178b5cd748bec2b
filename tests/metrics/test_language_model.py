import numpy as np
import pytest

from tokbench.errors import UndefinedMetric
from tokbench.metrics.catalogue import metric
from tokbench.metrics.language_model import auto_bleu, pair_scores


def columns(**values):
    return {name: np.array(v, np.float64) for name, v in values.items()}


def test_perplexity_is_two_to_the_mean_bits_of_a_code():
    made = metric("lm_perplexity").value(columns(lm_code_bits=[30, 10], lm_codes=[10, 10]))
    assert made == pytest.approx(4)
    reduce = metric("lm_perplexity").reduce
    sums = reduce.sums(columns(lm_code_bits=[30, 10], lm_codes=[10, 10]), np.array([0, 1]), 2)
    assert reduce.finish(np.array([[1, 1]]) @ sums) == pytest.approx(4)
    assert metric("lm_bps").value(columns(lm_bits=[300, 100], lm_seconds=[3, 1])) == 100


def test_pairs_count_one_half_or_nothing_and_voices_share_a_pair():
    assert pair_scores("sblimp", -3.0, -4.0, right_length=1, wrong_length=2) == {
        "sblimp_score": 1.0, "sblimp_normalised_score": 0.0, "sblimp_weight": 1.0,
    }  # fmt: skip
    assert pair_scores("sblimp", -4.0, -4.0, right_length=2, wrong_length=2)["sblimp_score"] == 0.5
    # One pair in four voices, all right, and one in a single voice, wrong: 50 %, not 80 %.
    rows = [pair_scores("swuggy", 0, -1, right_length=1, wrong_length=1, voices=4) for _ in range(4)]
    rows.append(pair_scores("swuggy", -1, 0, right_length=1, wrong_length=1, voices=1))
    table = columns(**{name: [row[name] for row in rows] for name in rows[0]})
    assert metric("swuggy").value(table) == 0.5
    with pytest.raises(UndefinedMetric):
        pair_scores("swuggy", float("nan"), 0, right_length=1, wrong_length=1)


def test_auto_bleu_counts_pairs_of_words_that_come_back():
    assert auto_bleu(["a", "b", "a", "b", "c"]) == {"auto_bleu_repeated": 2.0, "auto_bleu_ngrams": 4.0}
    assert auto_bleu(["a", "b", "c"])["auto_bleu_repeated"] == 0
    with pytest.raises(UndefinedMetric, match="fewer than 2 words"):
        auto_bleu(["a"])
