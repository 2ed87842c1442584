"""The runner: complete files, nothing done twice, failures named. The studies: what they claim, checked."""

from __future__ import annotations

import dataclasses
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

import qunify as qu
from analyses.__main__ import main
from analyses.kit import runner, story, tokens
from analyses.kit._closure import closure
from analyses.kit.study import Study
from analyses.studies import gates, gradients, paper_table, targets, worked_example
from qunify.catalogue import PAPER
from qunify.maps import Gate

FAST = {"worked_example": worked_example, "paper_table": paper_table, "targets": targets, "gradients": gradients}
FAST["gates"] = gates


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return {name: module.STUDY.rows(False) for name, module in FAST.items()}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where every fast study has been run, once."""
    out = tmp_path_factory.mktemp("ran")
    assert [runner.run(name, False, out, "commit").error for name in FAST] == [""] * len(FAST)
    return out


def install(monkeypatch: pytest.MonkeyPatch, name: str, study: Study) -> None:
    """Put this study in the place of the one called `name`."""
    module = ModuleType(f"analyses.studies.{name}")
    module.__dict__["STUDY"] = study
    monkeypatch.setitem(sys.modules, f"analyses.studies.{name}", module)


def small(rows: object = None) -> Study:
    def default(full: bool) -> pd.DataFrame:
        return pd.DataFrame({"x": [1.0, 2.0 + full], "word": ["NA", "b"]})

    return Study("targets", "A title", "A question?", rows or default, lambda table: Figure(), lambda table: "Sees.")  # type: ignore[arg-type]


# ---- the runner -----------------------------------------------------------------------------------------
def test_a_run_writes_three_files_and_a_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, "targets", small())
    assert main(["targets", "--out", str(tmp_path), "--jobs", "1"]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "targets.csv", "targets.png", "targets.svg"]
    assert "A question?" in (tmp_path / "report.html").read_text()


def test_further_pictures_of_a_study_lie_beside_it_and_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    study = dataclasses.replace(small(), more={"other": lambda table: Figure()})
    install(monkeypatch, "targets", study)
    assert runner.run("targets", False, tmp_path, "commit").state == "done"
    assert (tmp_path / "targets.other.png").read_bytes().startswith(b"\x89PNG")
    assert runner.run("targets", False, tmp_path, "commit").state == "unchanged"
    (tmp_path / "targets.other.png").write_bytes(b"another")
    assert not runner.finished("targets", False, tmp_path)


def test_rows_carry_their_provenance(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, "targets", small())
    main(["--full", "--only", "targets", "--out", str(tmp_path), "--jobs", "1"])
    table = runner.read("targets", tmp_path)
    assert list(table["x"]) == [1.0, 3.0]
    assert list(table["word"]) == ["NA", "b"]
    assert set(table["mode"]) == {"full"}
    assert set(table["seed"]) == {0}
    assert set(table["version"]) == {qu.__version__}
    assert set(table["commit"]) == {runner.current_commit()}


def test_a_finished_study_is_not_run_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []

    def counted(full: bool) -> pd.DataFrame:
        calls.append(full)
        return pd.DataFrame({"x": [1.0]})

    install(monkeypatch, "targets", small(counted))
    states = [runner.run("targets", full, tmp_path, "c").state for full in (False, False, True, True)]
    assert states == ["done", "unchanged", "done", "unchanged"]
    assert calls == [False, True]


def test_what_is_stale_is_told_with_the_reason_and_not_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told() -> str:
        assert main(["targets", "--stale", "--out", str(tmp_path)]) == 0
        return " ".join(capsys.readouterr().out.split())

    study = small(lambda full: pd.DataFrame({"a": ["sft"], "b": ["dft"]}))
    install(monkeypatch, "targets", study)
    assert told() == "targets: never run"
    assert list(tmp_path.iterdir()) == []
    runner.run("targets", True, tmp_path, "c")
    assert told() == ""
    install(monkeypatch, "targets", dataclasses.replace(study, methods=lambda: ("sft", "dft", "gem", "kd")))
    assert told() == "targets: no rows of gem, kd"
    install(monkeypatch, "targets", study)
    monkeypatch.setattr(runner, "key", lambda name, full: "of other code")
    assert told() == "targets: its code, or a library, has changed since"


def test_rows_are_drawn_again_and_stay_as_stale_as_they_were(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, "targets", small())
    runner.run("targets", True, tmp_path, "commit")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    install(monkeypatch, "targets", dataclasses.replace(small(), draw=lambda table: Figure(figsize=(1, 1))))
    assert main(["targets", "--redraw", "--out", str(tmp_path)]) == 0
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {name for name in before if after[name] != before[name]} == {"targets.png", "targets.svg"} < set(before)
    assert runner.finished("targets", True, tmp_path)
    monkeypatch.setattr(runner, "key", lambda name, full: "full " + "0" * 20)
    main(["targets", "--redraw", "--out", str(tmp_path)])
    assert runner.stale("targets", tmp_path) == "its code, or a library, has changed since"


def test_rows_that_are_not_there_are_not_drawn_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "--redraw", "--out", str(tmp_path)]) == 2
    assert f"targets: expected rows and a picture of them in {tmp_path}, got none" in capsys.readouterr().err


def test_studies_of_the_catalogue_say_what_they_lack() -> None:
    for name in ("equivalence", "theory_vs_training", "dynamics"):
        study, table = runner.load(name), runner.read(name, runner.FIGURES)
        assert {"sft", "kd", "gem"} <= set(study.methods())
        columns = [c for c in ("method", "a", "b") if c in table]
        without = table[~(table[columns] == "kd").any(axis=1)]
        assert "kd" not in study.missing(table)
        assert "kd" in study.missing(without)


@pytest.mark.parametrize("kind", ["csv", "png", "svg"])
@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_damaged_study_is_run_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, damage: str) -> None:
    install(monkeypatch, "targets", small())
    runner.run("targets", False, tmp_path, "c")
    path = tmp_path / f"targets.{kind}"
    whole = path.read_bytes()
    path.unlink() if damage == "missing" else path.write_bytes(whole[:40])
    assert runner.run("targets", False, tmp_path, "c").state == "done"
    assert path.read_bytes() == whole


def checkout(root: Path, files: dict[str, str]) -> None:
    """A small one in this folder: these files, and an empty `__init__.py` in each of their packages."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for package in list(path.relative_to(root).parents)[:-1]:
            (root / package / "__init__.py").touch()


#: Packages that load their names when they are asked for, one of them without saying from where, and some studies.
SMALL = {
    "analyses/kit/runner.py": "from analyses.kit.study import Study",
    "analyses/kit/study.py": "",
    "analyses/kit/tokens.py": "import benchmarks.timing",
    "analyses/studies/noise/__init__.py": "from analyses.kit import tokens\nfrom . import runs",
    "analyses/studies/noise/runs.py": "import qunify as qu\n\ndef run():\n    return qu.optimum, qu.training.Stack",
    "analyses/studies/noise/findings.py": "from analyses.studies import noise",
    "analyses/studies/noise_more.py": "from qunify import plots",
    "analyses/studies/everything.py": "import qunify\n\nALL = vars(qunify.population)",
    "benchmarks/timing.py": "",
    "qunify/__init__.py": (
        "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from qunify.population import optimum\n"
        "    from qunify.comparison import compare\n\n\ndef __getattr__(name): ...\n"
    ),
    "qunify/population/__init__.py": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ._optima import optimum as optimum\n"
        "if not TYPE_CHECKING:\n    __all__ = []\n"
    ),
    "qunify/population/_optima.py": "def optimum():\n    from ..flow import descend",
    "qunify/population/_properness.py": "",
    "qunify/flow.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from qunify.hints import Hint",
    "qunify/hints.py": "",
    "qunify/equivalence.py": "",
    "qunify/plots.py": "from qunify.catalogue import names",
    "qunify/catalogue/__init__.py": "import pkgutil\n\nnames = [f.name for f in pkgutil.iter_modules(__path__)]",
    "qunify/catalogue/gates.py": "",
    "qunify/training/__init__.py": "_HOME = {'Stack': 'many'}\n\n\ndef __getattr__(name): ...\n",
    "qunify/training/many.py": "",
    "qunify/training/sweeps.py": "",
}


@pytest.mark.parametrize(
    ("study", "files", "others"),
    [
        pytest.param(
            "noise",
            ["analyses/studies/noise/__init__.py", "analyses/studies/noise/runs.py", "analyses/kit/tokens.py"],
            ["analyses/studies/noise/findings.py", "analyses/studies/noise_more.py"],
            id="its files and shared ones, not what was found, nor a study whose name begins with its own",
        ),
        pytest.param(
            "noise_more", ["analyses/studies/noise_more.py"], ["analyses/studies/noise/runs.py"], id="a longer name"
        ),
        pytest.param("noise", ["analyses/kit/runner.py", "analyses/kit/study.py"], [], id="what runs it"),
        pytest.param("noise", ["benchmarks/timing.py"], [], id="benchmarks"),
        pytest.param("noise", ["qunify/population/_optima.py"], ["qunify/equivalence.py"], id="a lazy name"),
        pytest.param(
            "noise", ["qunify/population/__init__.py"], ["qunify/population/_properness.py"], id="a private file"
        ),
        pytest.param("noise", ["qunify/flow.py"], ["qunify/hints.py"], id="in a function, not for types alone"),
        pytest.param("noise", ["qunify/training/many.py", "qunify/training/sweeps.py"], [], id="a name without home"),
        pytest.param("noise_more", ["qunify/catalogue/gates.py"], ["qunify/flow.py"], id="files that are gone through"),
        pytest.param("everything", ["qunify/population/_properness.py"], ["qunify/plots.py"], id="a whole package"),
    ],
)
def test_a_study_depends_on_what_it_imports(
    study: str, files: list[str], others: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changes_the_key(name: str) -> bool:
        before, path = runner.key(study, False), tmp_path / name
        path.write_text(path.read_text() + "\n# a comment\n")
        return runner.key(study, False) != before

    checkout(tmp_path, SMALL)
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    assert [name for name in files if changes_the_key(name)] == files
    assert [name for name in others if changes_the_key(name)] == []


def test_ten_settings_depends_on_the_catalogue_and_not_on_the_trainers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a copy of this checkout."""
    for folder in ("analyses", "benchmarks", "qunify"):
        shutil.copytree(runner.ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    present = {name: runner.key(name, True) for name in ("ten_settings", "cost")}

    def unchanged_by_a_comment_in(folder: str) -> set[str]:
        paths = sorted((tmp_path / folder).rglob("*.py"))
        sources = [path.read_text() for path in paths]
        for path, source in zip(paths, sources, strict=True):
            path.write_text(source + "\n# a comment\n")
        found = {name for name, key in present.items() if runner.key(name, True) == key}
        for path, source in zip(paths, sources, strict=True):
            path.write_text(source)
        return found

    assert unchanged_by_a_comment_in("qunify/hf") == {"ten_settings", "cost"}
    assert unchanged_by_a_comment_in("qunify/catalogue") == set()
    assert unchanged_by_a_comment_in("benchmarks") == {"ten_settings"}


@pytest.mark.slow
def test_a_study_depends_on_every_module_that_it_loads() -> None:
    """As Python sees it: the files of this checkout that a process has loaded once it has loaded every study."""
    code = """
import sys
from analyses.kit import runner, story
for name in story.STUDIES:
    runner.load(name)
print(*sorted(str(module.__file__) for module in list(sys.modules.values()) if getattr(module, "__file__", None)))
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=runner.ROOT, check=True, capture_output=True, text=True)
    ours = [runner.ROOT / folder for folder in ("analyses", "benchmarks", "qunify")]
    loaded = {path for path in map(Path, ran.stdout.split()) if any(path.is_relative_to(folder) for folder in ours)}
    known = closure(["analyses.kit.story", *(f"analyses.studies.{name}" for name in story.STUDIES)], runner.ROOT)
    assert len(loaded) > 60
    assert loaded <= set(known)


def test_a_key_does_not_see_what_is_imported_by_a_name_made_at_run_time() -> None:
    """So that the places that import so are known, and why they may."""
    known = {
        "analyses/kit/runner.py",  # loads the study whose key it is
        "analyses/kit/findings.py",  # loads what is said of the rows, which depend on none of it
        "analyses/kit/_closure.py",  # names what it does not see
        "analyses/studies/atlas/environments.py",  # loads the file beside it that asks a library, by its one name
        "analyses/studies/atlas/stubs.py",  # loads files of other people's libraries, which are pinned
        "qunify/cli/_functions.py",  # loads a function of the user's
        "qunify/_lib/exports.py",  # loads a lazy name, of which the package says where it lives
        "qunify/catalogue/__init__.py",  # loads the files beside it, all of which count
    }
    importing = re.compile(r"\b(import_module|__import__|run_module|run_path|exec_module)\b")
    found = {
        path.relative_to(runner.ROOT).as_posix()
        for folder in ("analyses", "benchmarks", "qunify")
        for path in (runner.ROOT / folder).rglob("*.py")
        if importing.search(path.read_text())
    }
    assert found == known


def test_a_failing_study_is_named_and_the_others_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(full: bool) -> pd.DataFrame:
        raise ValueError("the sky fell")

    install(monkeypatch, "targets", small(broken))
    install(monkeypatch, "gates", small())
    assert main(["targets", "gates", "--out", str(tmp_path), "--jobs", "1"]) == 1
    said = capsys.readouterr().out
    assert "targets: ValueError: the sky fell" in said
    assert not list(tmp_path.glob("targets*"))
    assert (tmp_path / "gates.svg").exists()
    assert 'id="gates"' in (tmp_path / "report.html").read_text()


def test_an_interrupted_run_keeps_what_is_finished(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(full: bool) -> pd.DataFrame:
        raise KeyboardInterrupt

    install(monkeypatch, "targets", small(stopped))
    install(monkeypatch, "gates", small())
    assert main(["targets", "gates", "--out", str(tmp_path), "--jobs", "1"]) == 130
    assert "goes on from here" in capsys.readouterr().out
    assert runner.finished("gates", False, tmp_path)


@pytest.mark.parametrize(
    ("name", "hint"), [("gatse", "did you mean gates?"), ("zzz", "expected one of worked_example, ")]
)
def test_an_unknown_study_is_refused_with_a_hint(name: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"unknown study {name!r}, {hint}")
    assert error.count("\n") == 1


def test_no_processes_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gates", "--jobs", "0"]) == 2
    assert "--jobs: expected at least 1, got 0" in capsys.readouterr().err


# ---- the studies ----------------------------------------------------------------------------------------
def test_every_study_bears_its_own_name() -> None:
    for name in story.STUDIES:
        study = runner.load(name)
        assert study.name == name
        assert study.question.endswith("?")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["worked_example", "paper_table"])
def test_two_runs_give_the_same_pixels(name: str, ran: Path, tmp_path: Path) -> None:
    assert runner.run(name, False, tmp_path, "commit").error == ""
    for kind in ("csv", "png", "svg"):
        first, second = ((out / f"{name}.{kind}").read_bytes() for out in (ran, tmp_path))
        assert first == second


@pytest.mark.slow
@pytest.mark.parametrize("name", FAST)
def test_a_run_gives_its_rows(name: str, tables: dict[str, pd.DataFrame], ran: Path, tmp_path: Path) -> None:
    tables[name].to_csv(tmp_path / f"{name}.csv", index=False)
    again, table = runner.read(name, tmp_path), runner.read(name, ran)
    pd.testing.assert_frame_equal(table[again.columns], again, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAST)
def test_words_and_digest_come_from_the_table(name: str, tables: dict[str, pd.DataFrame]) -> None:
    study, table = runner.load(name), tables[name]
    see = study.see(table)
    assert 1 <= len(re.findall(r"[.!?](?:\s|$)", see)) <= 6
    assert "nan" not in see
    assert 5 <= len(study.digest(table)) <= 100  # gates, the most, one row each


def test_worked_example_matches_the_closed_forms(tables: dict[str, pd.DataFrame]) -> None:
    table = tables["worked_example"]
    assert table["deviation"].max() < 1e-15
    dft = table[table["method"] == "dft"].pivot_table(index="u", columns="quantity", values="value")
    u = dft.index.to_numpy()
    assert abs(dft["Q_y"] - (2 * u - u**2)).max() < 1e-15
    assert abs(dft["g_y"] + u * (1 - u)).max() < 1e-15


def test_the_printed_table_is_reproduced(tables: dict[str, pd.DataFrame]) -> None:
    table = tables["paper_table"]
    found = {name: set(lines["gauge"]) for name, lines in table[table["reproduces"]].groupby("method")}
    unit, both = {"unit"}, {"unit", "fixed"}
    expected = dict.fromkeys(PAPER, unit) | {"sft": {"unit", "fixed", "boundary"}}
    expected |= dict.fromkeys(("label_smoothing", "kd", "kd_hybrid", "target_sft"), both)
    expected |= {"sft_kl": {"fixed"}, "asft": {"fixed"}}
    assert found == expected


def test_a_wrong_printed_trust_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = paper_table.Claim("u²", "p", lambda v, m: v.u**2, lambda v, m: v.p)
    monkeypatch.setitem(paper_table.CLAIMS, "dft", wrong)
    table = paper_table.rows(False)
    assert not table[table["method"] == "dft"]["reproduces"].any()


def test_a_wrong_printed_residual_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = paper_table.Claim("u", "reference", lambda v, m: v.u, lambda v, m: v.reference)
    monkeypatch.setitem(paper_table.CLAIMS, "dft", wrong)
    table = paper_table.rows(False)
    assert not table[table["method"] == "dft"]["reproduces"].any()


def test_declared_simplices_hold_on_the_random_tokens(tables: dict[str, pd.DataFrame]) -> None:
    table = tables["paper_table"]
    always = table[table["simplex_declared"] == "always"]
    assert (always["in_simplex"] == 1).all()
    assert set(table.loc[table["in_simplex"] < 1, "method"]) == {"iw_sft", "sft_kl", "asft", "psft", "gem"}


def test_targets_sum_to_one(tables: dict[str, pd.DataFrame]) -> None:
    sums = tables["targets"].groupby(["method", "token"])[["p", "target"]].sum()
    assert (abs(sums - 1) < 1e-12).all(axis=None)
    assert len(sums) == len(PAPER) * len(tokens.TELLING)


def test_gates_pull_exactly_one_way(tables: dict[str, pd.DataFrame]) -> None:
    per_token, over_all = gradients._matrices(tables["gradients"])
    of_gates = [name for name in PAPER if isinstance(qu.get(name), Gate)]
    assert ((per_token.loc[of_gates, of_gates] - 1).abs() < 1e-9).all(axis=None)
    assert over_all["dft"].loc["sft"] < 0.9
    assert per_token["kd"].loc["sft"] < 0.9


def test_every_declared_gate_is_measured_as_one(tables: dict[str, pd.DataFrame]) -> None:
    found = set(tables["gates"]["method"])
    alone = [m for m in map(qu.get, qu.names()) if not m.pools]  # the others' weights are no function of one token
    assert {m.name for m in alone if isinstance(m, Gate)} <= found
    assert found.isdisjoint({"kd", "gem", "label_smoothing", "unlikelihood", "z_loss"})


def test_the_forgotten_stop_gradient_changes_sign_at_one_over_e(tables: dict[str, pd.DataFrame]) -> None:
    table = tables["gates"]
    curve = table[table["method"] == "dft_undetached"]
    assert curve["shape"].iloc[0] == "negative"
    assert gates.sign_changes(curve) == [pytest.approx(math.exp(-1), rel=1e-3)]
    assert "below u = 0.37." in gates.STUDY.see(table)


@pytest.mark.parametrize(
    ("shape", "weight"),
    [
        ("flat", lambda u: 0 * u + 0.3),
        ("rising", lambda u: u),
        ("falling", lambda u: 1 - u),
        ("humped", lambda u: u * (1 - u)),
        ("dipping", lambda u: 1 - u * (1 - u)),
        ("above", lambda u: 1 + u),
        ("jump", lambda u: (u > 0.1).double()),
        ("negative", lambda u: u - 0.5),
    ],
)
def test_shapes_are_told_apart(shape: str, weight: object) -> None:
    u = gates._probabilities()
    assert gates.shape(weight(u)) == shape  # type: ignore[operator]


def test_realistic_tokens_range_from_rare_to_sure() -> None:
    batch = tokens.realistic(2000, 100, seed=0)
    u = batch.logits.softmax(-1).gather(-1, batch.labels[:, None])
    assert (u < 0.01).double().mean() > 0.05
    assert (u > 0.9).double().mean() > 0.05
    assert not batch.context["negative_mask"].gather(-1, batch.labels[:, None]).any()
    assert torch.equal(batch.logits, tokens.realistic(2000, 100, seed=0).logits)
