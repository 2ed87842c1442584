"""The studies of where training ends: committed rows come out again, and say what is said of them."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

import qunify as qu
from analyses.kit import runner, story
from analyses.studies import calibration_bias, simplex, theory_vs_training
from qunify.population import SIMPLEX_STARTS, SIMPLEX_TOKENS, SIMPLEX_TRUTH


def committed(name: str) -> pd.DataFrame:
    return runner.read(name, runner.FIGURES)


def same(again: pd.DataFrame, before: pd.DataFrame) -> None:
    """The columns of both agree to the digits that a CSV keeps."""
    before = before[again.columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(again.reset_index(drop=True), before, rtol=1e-7, atol=1e-7, check_dtype=False)


# ---- simplex ----------------------------------------------------------------------------------------------------
def test_simplex_paths_end_at_their_optima() -> None:
    table = committed("simplex")
    last = simplex.ends(table)
    assert len(last) == len(simplex.METHODS) * len(SIMPLEX_STARTS)
    assert (last["distance"] < simplex.CLOSE).mean() > 0.9
    wrong = table.copy()
    moved = wrong["kind"] == "optimum"
    wrong.loc[moved, list(SIMPLEX_TOKENS)] = wrong.loc[moved, ["B", "C", "A"]].to_numpy()
    assert (simplex.ends(wrong)["distance"] < simplex.CLOSE).mean() < 0.5, "optima of other tokens are not met"


@pytest.mark.slow
def test_simplex_optima_and_drift_come_out_again() -> None:
    table = committed("simplex")
    same(simplex._optima(), table[table["kind"] == "optimum"])
    same(simplex._field(), table[table["kind"] == "drift"])


def test_simplex_drift_moves_along_the_simplex_and_rests_at_the_truth_under_sft() -> None:
    table = committed("simplex")
    field = table[table["kind"] == "drift"]
    assert field[["dA", "dB", "dC"]].sum(axis=1).abs().max() < 1e-12
    sft = field[field["method"] == "sft"]
    toward = (
        (torch.tensor(SIMPLEX_TRUTH) - torch.tensor(sft[["A", "B", "C"]].to_numpy())).numpy() * sft[["dA", "dB", "dC"]]
    ).sum(axis=1)
    assert (toward > 0).all(), "under sft every step comes nearer to the truth"
    assert "only sft ends at the truth alone" in simplex.see(table)


@pytest.mark.slow
# ---- theory against training ------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["label_smoothing", "chord_phi"])
def test_a_committed_cell_comes_out_again(name: str) -> None:
    table = committed("theory_vs_training")
    again = theory_vs_training.trained(name, theory_vs_training.SEEDS[:1])
    same(again, table[(table["method"] == name) & (table["seed"] == theory_vs_training.SEEDS[0])])


def test_theory_and_training_agree_or_the_reason_is_said() -> None:
    table = committed("theory_vs_training")
    found = theory_vs_training.reasons(table).set_index("Method")
    why = found["Above 0.001, because"].fillna("")
    assert len(found) >= 68
    assert set(found.index) <= set(theory_vs_training.methods())
    assert not (why.str.contains("unexplained")).any(), list(found.index[why.str.contains("unexplained")])
    assert (why[why != theory_vs_training.NONE] == "").mean() > 0.75
    assert set(found.index[why == "no optimum predicted"]) <= {"nce", "apl", "logistic_ranking", "hinge_ranking"}
    for name in ("sft", "label_smoothing", "target_sft", "sft_kl", "kd", "gem"):
        assert found.loc[name, ["TV, gradient descent", "TV, Adam"]].min() < 1e-5


def test_a_wrong_prediction_would_be_found_out() -> None:
    table = committed("theory_vs_training")
    wrong = table[table["method"] == "sft"].copy()
    wrong[["distance", "nearest"]] = 0.01
    assert theory_vs_training.reasons(wrong)["Above 0.001, because"].tolist() == ["unexplained"]


@pytest.mark.slow
# ---- calibration ------------------------------------------------------------------------------------------------
def test_a_committed_model_comes_out_again() -> None:
    table = committed("calibration_bias")
    again = calibration_bias.measured("gem", "", None, calibration_bias.SEEDS[:1]).drop(columns=["parameter", "value"])
    chosen = (table["method"] == "gem") & table["parameter"].isna() & (table["seed"] == calibration_bias.SEEDS[0])
    pd.testing.assert_frame_equal(
        again, table.loc[chosen, again.columns].reset_index(drop=True), rtol=1e-6, atol=1e-6, check_dtype=False
    )


def test_models_are_biased_as_predicted() -> None:
    s = calibration_bias.summary(committed("calibration_bias"))
    told = s[s["predicted"].abs() > calibration_bias.SMALL]
    assert (told["predicted"] * told["entropy gap"] > 0).all()
    unbiased = s.loc[["sft", "brier", "spherical"]]
    assert unbiased["predicted"].abs().max() < 1e-6
    assert unbiased["entropy gap"].abs().max() < 0.05
    assert s.loc["dft", "entropy gap"] == s["entropy gap"].min()


def test_bias_grows_along_the_parameter() -> None:
    table = committed("calibration_bias")
    smoothing = table[(table["method"] == "label_smoothing") & table["parameter"].notna()]
    gaps = smoothing.groupby("value")["entropy gap"].mean()
    assert gaps.is_monotonic_increasing
    assert len(gaps) == len(calibration_bias.ALONG["label_smoothing"][1])


@pytest.mark.slow
# ---- in the report ----------------------------------------------------------------------------------------------
def test_committed_rows_are_marked_in_a_quick_report(tmp_path: object) -> None:
    assert runner.run("theory_vs_training", False, tmp_path, "commit").error == ""  # type: ignore[arg-type]
    quick = story._section("theory_vs_training", tmp_path, full=False)  # type: ignore[arg-type]
    full = story._section("theory_vs_training", tmp_path, full=True)  # type: ignore[arg-type]
    assert story.COMMITTED in quick.text
    assert story.COMMITTED not in full.text


@pytest.mark.slow
def test_words_and_digests_come_from_the_tables() -> None:
    for study in (simplex.STUDY, theory_vs_training.STUDY, calibration_bias.STUDY):
        table = committed(study.name)
        assert "nan" not in study.see(table)
        assert 5 <= len(study.digest(table)) <= len(qu.names())
        assert set(study.digest(table).iloc[:, 0]) <= set(qu.names())
