"""The losses of libraries: committed rows come out again where a library is installed, changed ones are refused, and
the loaders guard what they stand in for."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import qunify as qu
from analyses.kit import findings
from analyses.studies import atlas
from analyses.studies.atlas import __main__ as checking
from analyses.studies.atlas import asking, environments, stubs, worker
from analyses.studies.atlas.shipped import LIBRARIES, Library, Shipped
from analyses.studies.atlas.treatment import treatment
from docs import atlas as page
from qunify.pictures._markdown import code, plain


@pytest.fixture(scope="module")
def committed() -> pd.DataFrame:
    return findings.committed("atlas").astype(object).fillna("")


# ---- the committed rows ------------------------------------------------------------------------------------------


def test_there_are_a_hundred_losses_of_twenty_five_libraries(committed: pd.DataFrame) -> None:
    assert len(committed) >= 100
    assert committed["library"].nunique() >= 25
    assert len(committed) == len(committed.drop_duplicates(["library", "where", "setting"]))


def test_every_library_has_rows_of_the_version_that_is_pinned(committed: pd.DataFrame) -> None:
    assert list(dict.fromkeys(committed["library"])) == sorted(LIBRARIES)
    for library in LIBRARIES.values():
        versions = set(committed[committed["library"] == library.name]["library_version"])
        assert len(versions) == 1
        assert library.here or versions == {library.version}


def test_methods_that_rows_name_are_in_the_catalogue(committed: pd.DataFrame) -> None:
    claims = set(committed["claim"].str.partition("(")[0])
    assert (claims | set(committed["method"])) - {""} <= set(qu.names())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "only"),
    [
        ("torch", "label_smoothing=0.1"), ("transformers", "ForCausalLMLoss"), ("trl", "loss_type=dft"),
        ("trl", "temperature=2"), ("entmax", "entmax15"), ("kornia", "alpha=None"), ("optax", "smooth_labels"),
        ("pytorch-optimizer", "LDAMLoss"),
    ],
)  # fmt: skip
def test_rows_of_installed_libraries_come_out_again(library: str, only: str, committed: pd.DataFrame) -> None:
    one = LIBRARIES[library]
    before = committed[committed["library"] == library]
    environments.check(one, before["library_version"].iloc[0])
    chosen = before[[only in f"{row['where']} {row['setting']}" for row in before.to_dict("records")]]
    losses = [loss for loss in one.losses() if only in f"{loss.where} {loss.setting}"]
    assert len(losses) == len(chosen) > 0
    after = pd.DataFrame([asking.row(one, loss) for loss in losses])
    assert list(checking.changes(chosen, after)) == []


# ---- changed rows are refused ---------------------------------------------------------------------------------------


def smoothing(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z, y, label_smoothing=0.1)


def shipped(loss: object = smoothing, **more: object) -> Shipped:
    given = {"claim": "label_smoothing", "params": {"smoothing": 0.1}} | more
    return Shipped(loss, loss, **given)  # type: ignore[arg-type]


def here(*losses: Shipped) -> Library:
    return Library("torch", "", lambda: iter(losses))


def test_a_planted_verdict_is_an_error_that_names_library_version_before_and_after(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], committed: pd.DataFrame
) -> None:
    rows = committed[committed["library"] == "torch"]
    planted = rows.assign(
        found=rows["found"].replace("label_smoothing(smoothing=0.1)", "label_smoothing(smoothing=0.2)")
    )
    monkeypatch.setattr(findings, "committed", lambda study: planted)
    monkeypatch.setattr(environments, "ask", lambda library: rows)
    assert checking.main(["torch"]) == 1
    said = capsys.readouterr().out
    assert f"torch {metadata.version('torch')}: torch.nn.functional.cross_entropy label_smoothing=0.1: found: " in said
    assert "before 'label_smoothing(smoothing=0.2)', after 'label_smoothing(smoothing=0.1)'" in said
    monkeypatch.setattr(findings, "committed", lambda study: rows)
    assert checking.main(["torch"]) == 0


def test_a_loss_that_is_gone_or_new_is_said(committed: pd.DataFrame) -> None:
    rows = committed[committed["library"] == "torch"]
    (gone,) = checking.changes(rows, rows.iloc[1:])
    (new,) = checking.changes(rows.iloc[1:], rows)
    assert "not among its losses" in gone
    assert "not in the committed rows" in new


def test_a_missing_library_or_one_of_another_version_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "FOLDER", tmp_path)
    elsewhere = Library("nowhere-at-all", "1.0", lambda: iter(()))
    with pytest.raises(RuntimeError, match=r"^nowhere-at-all is missing: expected version 1\.0; `make atlas`"):
        environments.check(elsewhere, "1.0")
    there = tmp_path / "nowhere-at-all-1.0" / "nowhere_at_all-1.1.dist-info"
    there.mkdir(parents=True)
    (there / "METADATA").write_text("Metadata-Version: 2.1\nName: nowhere-at-all\nVersion: 1.1\n")
    cure = r"remove build/atlas/nowhere-at-all-1\.0, and `make atlas` installs it under build/atlas/$"
    with pytest.raises(RuntimeError, match=r"^nowhere-at-all: expected version 1\.0, found 1\.1; " + cure):
        environments.check(elsewhere, "1.0")
    with pytest.raises(RuntimeError, match=r"^torch: expected version 0\.1, found .*`make setup` installs it$"):
        environments.check(here(), "0.1")


def test_an_unknown_library_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert checking.main(["tourch"]) == 2
    assert "unknown library 'tourch', expected one of ai2-olmo-core, " in capsys.readouterr().err


# ---- what is said of one loss ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("claim", "params", "says"),
    [
        ("label_smoothing", {"smoothing": 0.1}, asking.NAMED),
        ("label_smoothing", {"smoothing": 0.2}, asking.OTHERWISE),
        ("focal", {"focusing": 2.0}, asking.ANOTHER),
        ("", {}, asking.RENAMED),
    ],
)
def test_a_wrong_name_is_noticed(claim: str, params: dict[str, float], says: str) -> None:
    one = shipped(claim=claim, params=params)
    found = qu.identify(one.on_rows, one.contexts)
    assert asking.agreement(one, found, asking.closest(found, claim)) == says


def test_a_random_loss_is_told_as_random() -> None:
    def dropped(z: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(F.dropout(z, 0.5), y)

    row = asking.row(here(), shipped(dropped))
    assert (row["level"], row["agreement"], row["found"]) == ("random", "random", "")


@pytest.mark.slow
def test_a_loss_in_float32_gets_its_verdict() -> None:
    row = asking.row(here(), shipped(lambda z, y: F.cross_entropy(z.float(), y, label_smoothing=0.1)))
    assert (row["found"], row["level"], row["precision"]) == ("label_smoothing(smoothing=0.1)", "identical", "float32")


def per_sequence(z: Tensor, y: Tensor) -> Tensor:
    """The mean over kept tokens in every sequence, and then over sequences."""
    losses = F.cross_entropy(z.flatten(0, 1), y.flatten(), reduction="none").reshape(y.shape)
    return (losses.sum(-1) / (y >= 0).sum(-1)).mean()


@pytest.mark.parametrize(
    ("loss", "more", "said"),
    [
        (F.cross_entropy, {}, ("kept tokens", "left out", "NaN")),
        (lambda z, y: F.cross_entropy(z, y, reduction="sum"), {}, ("nothing: a sum", "left out", "0")),
        (lambda z, y: F.cross_entropy(z, y, reduction="none"), {}, ("nothing: one loss per token", "left out", "0")),
        (lambda z, y: F.cross_entropy(z, y, reduction="none").mean(), {}, ("all tokens", "left out", "0")),
        (lambda z, y: F.cross_entropy(z, y.clamp(min=0)), {}, ("tokens", "trained all the same", "")),
        (lambda z, y: -z.log_softmax(-1).gather(1, y[:, None]).mean(), {}, ("tokens", "refused (RuntimeError)", "")),
        (lambda z, y: z.logsumexp(-1).mean(), {}, ("tokens", "it is given no labels", "")),
        (per_sequence, {"sequences": True}, ("kept tokens of each sequence, and sequences", "left out", "NaN")),
        (
            lambda z, y: F.cross_entropy(z, y, ignore_index=-1),
            {"padding": 3, "padded": lambda z, y: F.cross_entropy(z, y, ignore_index=3)},
            ("kept tokens", "left out", "NaN"),
        ),
    ],
)  # fmt: skip
def test_what_a_batch_is_divided_by_and_what_becomes_of_left_out_tokens(
    loss: object, more: dict[str, object], said: tuple[str, str, str]
) -> None:
    assert tuple(treatment(shipped(loss, **more))) == said


# ---- the loaders' guards --------------------------------------------------------------------------------------------


@pytest.fixture
def loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package whose own __init__ fails, with one file that decorates, inherits and calls what is stood in for."""
    package = tmp_path / "shippy"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('everything')\n")
    (package / "losses.py").write_text(
        "from heavy.registry import register, Base\nfrom heavy import used\n\n"
        "@register('it')\nclass Loss(Base):\n    def forward(self, z, y):\n        return used(z)\n\n"
        "@register\ndef plain(z, y):\n    return -z.log_softmax(-1).gather(1, y[:, None])[:, 0]\n"
    )
    monkeypatch.setattr(stubs, "_loading", True)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    stubs.install(("heavy",), ("shippy",), tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] in ("heavy", "shippy")]:
        del sys.modules[name]


def test_a_stand_in_leaves_what_it_decorates_and_is_an_error_where_a_loss_uses_it(loading: Path) -> None:
    from shippy.losses import Loss, plain  # type: ignore[import-not-found]

    stubs.close()
    z, y = torch.zeros(2, 3), torch.tensor([0, 1])
    assert torch.allclose(plain(z, y), torch.log(torch.tensor(3.0)))
    with pytest.raises(RuntimeError, match=r"heavy\.used is a stand-in that the loss was not to use"):
        Loss().forward(z, y)


def test_a_library_that_cannot_be_asked_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = dataclasses.replace(here(), name="no-such-library")
    with pytest.raises(RuntimeError, match=r"^no-such-library : its losses could not be asked: KeyError: 'no-such-lib"):
        environments.ask(broken)


def test_no_committed_file_is_of_a_library() -> None:
    tracked = {path.relative_to(atlas.runner.ROOT).parts[:2] for path in environments.FOLDER.glob("*")}
    assert {("build", "atlas")} >= tracked
    assert "build/" in (atlas.runner.ROOT / ".gitignore").read_text().split()


# ---- the page -------------------------------------------------------------------------------------------------------


def test_the_page_has_every_loss_and_its_verdict(committed: pd.DataFrame) -> None:
    text = page.trainers() + page.others()
    for row in page.rows().to_dict("records"):
        assert f"{row['library']} {row['library_version']}" in text or row["library"] in page.TRAINERS
        assert plain(row["is"]) in text or code(row["is"]) in text
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(lines) == len(committed)


def test_trainers_on_the_page_are_in_the_table(committed: pd.DataFrame) -> None:
    assert set(page.TRAINERS) <= set(committed["library"])


def test_the_page_of_a_method_says_who_ships_it() -> None:
    lines = page.shippers("label_smoothing")
    assert any(line.startswith("timm 1.0") and line.endswith(": `label_smoothing(smoothing=0.1)`") for line in lines)
    assert page.shippers("posterior") == []


def test_a_worker_answers_with_the_rows_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.setattr(stubs, "_loading", True)
    monkeypatch.setitem(LIBRARIES, "torch", here(shipped()))
    (row,) = worker.answer("torch", "smoothing")
    assert (row["library"], row["agreement"]) == ("torch", asking.NAMED)
    assert worker.answer("torch", "nothing of the kind") == []
