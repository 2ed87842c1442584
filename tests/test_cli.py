"""The command line, as a user meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

import qunify
from qunify._lib.html import in_ascii
from qunify._lib.simple import UNDEFINED
from qunify.cli import _terminal as terminal
from qunify.cli import main
from qunify.cli._commands import COMMANDS
from tests.battery import one_each

UTF_8 = {**os.environ, "PYTHONIOENCODING": "utf-8"}


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "qunify", *argv], capture_output=True, text=True, env=UTF_8)


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


# ---- list ------------------------------------------------------------------------------------------------
def test_list_has_a_line_for_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "list").splitlines()
    assert [line.split()[0] for line in lines] == ["id", *qunify.names()]


def test_list_family_is_only_that_family(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(printed(capsys, "list", "--family", "anchored", "--json"))
    assert [row["id"] for row in rows] == list(qunify.names("anchored"))
    assert rows[0]["needs"] == ["reference_logits"]
    assert rows[0]["parameters"] == qunify.get(rows[0]["id"]).params


@pytest.mark.parametrize("width", [30, 70, 140])
def test_the_table_fits_the_terminal_and_loses_nothing(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    rows = [[name, "A title of some length", "distillation", "teacher_logits", "a=1"] for name in ("alpha", "beta")]
    table = terminal.table(("id", "title", "family", "needs", "parameters"), rows, pretty=True)
    assert max(map(len, table.splitlines())) <= width
    assert "".join(table.split()).count("teacher_logits") == 2


@pytest.mark.slow
def test_list_latex_is_a_table_in_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    table = printed(capsys, "list", "--family", "smoothing", "--latex")
    rows = [line.split(" & ") for line in table.splitlines() if line.endswith(r"\\")]
    assert table.isascii()
    assert [len(row) for row in rows] == [5] * len(qunify.names("smoothing"))
    assert rows[0][0] == "Label smoothing"
    assert qunify.get("label_smoothing").formula in rows[0][1]
    assert rows[0][2] == r"1 $-$ $\lambda$ $\to$ label, $\lambda$ $\to$ uniform"
    assert rows[0][3].startswith("$p^*=")
    assert [row[4] for row in rows[:3]] == [r"no \\"] * 3


def test_signs_of_every_method_are_known_to_latex() -> None:
    texts = [text for m in map(qunify.get, qunify.names()) for text in (m.title, m.pulls_text)]
    assert [text for text in texts if not in_ascii(text).isascii()] == []
    assert in_ascii("a_b → λ²") == r"a\_b $\to$ $\lambda$$^2$"


# ---- show ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", one_each(qunify.names()))
def test_show_works_for_every_method(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    m = qunify.get(name)
    page = printed(capsys, "show", name)
    words = " ".join(page.split())
    for fact in (m.title, m.loss_text, m.source, *m.needs, *m.params):
        assert " ".join(fact.split()) in words
    assert ("No target" in page) == (not m.shift_invariant)


def test_show_json_is_complete_and_agrees_with_the_worked_example(capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(printed(capsys, "show", "dft", "--json"))
    u = data["example"]["p"][data["example"]["label"]]
    target = data["example"]["gauges"]["unit"]["target"]
    assert u == pytest.approx(0.25)
    assert target[1] == pytest.approx(2 * u - u**2)
    assert target[0] == pytest.approx((1 - u) * data["example"]["p"][0])
    assert data["curve"]["weight"] == pytest.approx(data["curve"]["u"])
    assert {"summary", "formula", "pulls", "source", "release", "link", "simplex", "needs", "parameters"} <= set(data)


def test_an_undefined_gauge_is_null_in_json_and_a_dash_on_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(printed(capsys, "show", "reverse_kl", "--json"))
    assert data["example"]["gauges"]["fixed"]["scale"] is None
    row = next(line for line in printed(capsys, "show", "reverse_kl").splitlines() if "scale s" in line)
    assert row.split()[-2] == UNDEFINED


def test_show_says_what_a_calibrated_model_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    page = printed(capsys, "show", "dft")
    assert "dft is biased (proved): from the truth it drifts, sharpening." in " ".join(page.split())
    assert "p_k² − p_k Σ[j] p_j²" in page
    found = json.loads(printed(capsys, "show", "temperature_ce", "--json"))["properness"]
    assert (found["unbiased"], found["direction"]) == (False, "sharpening")
    assert "through its link softmax(z/T) it is strictly proper" in found["verdict"]


def test_show_explains_the_numbers_at_a_token(capsys: pytest.CaptureFixture[str]) -> None:
    words = " ".join(printed(capsys, "show", "sft").split())
    assert "g = s (p − Q): the three Q are points on one ray from p" in words
    assert "γ is the share of Q that is trust in the label." in words


def test_a_weight_is_shown_for_gates_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(printed(capsys, "show", "margin_softmax", "--json"))["curve"]["weight"] is not None
    assert json.loads(printed(capsys, "show", "kd", "--json"))["curve"]["weight"] is None


def test_set_changes_the_parameter_and_the_target(capsys: pytest.CaptureFixture[str]) -> None:
    full = json.loads(printed(capsys, "show", "kd_hybrid", "--set", "mix=1", "--json"))
    kd = json.loads(printed(capsys, "show", "kd", "--json"))
    assert full["parameters"][0]["value"] == 1.0
    assert full["example"]["gauges"]["unit"]["target"] == pytest.approx(kd["example"]["gauges"]["unit"]["target"])
    assert "mix = 0.25 (default 0.5)" in printed(capsys, "show", "kd_hybrid", "--set", "kd_hybrid.mix=.25")
    assert "base = p (default log)" in printed(capsys, "show", "threshold", "--set", "threshold.base=p")


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["target_sft", "dft", "--set", "eta=0"], "target_sft(eta=0.0) and dft have the same gradient"),
        (["gem", "temperature_ce", "--set", "beta=.5", "--set", "temperature=.5"], "differ by the constant factor 2,"),
        (["gem", "temperature_ce", "--set", "gem.beta=.5", "--set", "temperature=.5"], "the constant factor 2,"),
    ],
)
def test_set_finds_the_method_that_has_the_parameter(
    argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sentence in printed(capsys, "compare", *argv)


def test_a_witness_says_all_that_it_takes_to_check_it(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("compare", "target_sft", "dft", "--set", "target_sft.eta=1")
    told = printed(capsys, *argv)
    (token,) = json.loads(printed(capsys, *argv, "--json"))["witness_tokens"]
    assert list(token["contexts"]) == ["teacher_logits"]
    p, teacher = (
        torch.tensor([float(Fraction(x)) for x in row]) for row in (token["p"], token["contexts"]["teacher_logits"])
    )
    label = torch.tensor([token["label"]])
    for m, side in ((qunify.get("target_sft", eta=1), "gradient_a"), (qunify.get("dft"), "gradient_b")):
        context: dict[str, Any] = {"teacher_logits": teacher.log()[None]} if m.needs else {}
        assert m(p.log()[None], label, **context).gradient[0].tolist() == pytest.approx(token[side], abs=1e-6)
    assert f"teacher ({', '.join(token['contexts']['teacher_logits'])}): gradients (" in told


def test_a_derivation_says_which_numbers_it_puts_in(capsys: pytest.CaptureFixture[str]) -> None:
    letters = "Letters of parameters are numbers below: focusing = "
    assert letters + "2.0 (the default)." in printed(capsys, "show", "focal", "--derive")
    assert letters + "1.0." in printed(capsys, "show", "focal", "--derive", "--set", "focusing=1")
    assert "Letters of parameters" not in printed(capsys, "show", "sft", "--derive")


# ---- plot ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_plot_writes_the_file_and_nothing_else(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / f"two.{suffix}"
    data = json.loads(
        printed(capsys, "plot", "sft", "target_sft", "--set", "target_sft.eta=1", "--out", str(out), "--json")
    )
    assert data["file"] == str(out)
    assert data["methods"][1] == {"id": "target_sft", "parameters": {"eta": 1.0}}
    assert list(tmp_path.iterdir()) == [out]
    assert out.stat().st_size > 1000


def test_a_file_that_was_there_is_said_to_be_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("plot", "dft", "--out", str(tmp_path / "dft.svg"))
    assert "in place of" not in printed(capsys, *argv)
    assert "kB, in place of the one that was there)" in printed(capsys, *argv)
    assert json.loads(printed(capsys, *argv, "--json"))["replaced"] is True


def test_plot_names_its_file_after_the_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plot", "dft"]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["dft.png"]


# ---- errors ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ("", "expected a command"),
        ("shwo dft", "unknown command 'shwo', did you mean show?"),
        ("show", "required: NAME"),
        ("show tagret_sft", "unknown method 'tagret_sft', did you mean target_sft?"),
        ("show target_sft --set etaa=1", "unknown parameter 'etaa', expected eta"),
        ("show target_sft --set eta=2", "parameter eta: expected a number in [0, 1], got 2"),
        ("show target_sft --set eta=high", "parameter eta: expected a number in [0, 1], got 'high'"),
        ("show eaft --set top_k=2.5", "parameter top_k: expected an integer"),
        ("show target_sft --set eta", "--set eta: expected PARAM=VALUE"),
        ("show target_sft --set dft.eta=1", "expected target_sft.eta=…, got dft"),
        ("plot kd kd_hybrid --set mixx=1", "no parameter 'mixx' of kd or kd_hybrid, expected kd_hybrid.mix=…"),
        (
            "plot kd temperature_ce --set temperature=1",
            "expected kd.temperature=… or temperature_ce.temperature=…, got no",
        ),
        ("compare sft dft --set eta=1", "no parameter 'eta' of sft or dft, none of them has parameters"),
        ("compare xxx dft", "unknown method 'xxx'; `qunify list` has them (a method of your own is MODULE:NAME or"),
        ("list --family gate", "unknown family 'gate', expected one of gates"),
        ("list --nope", "unrecognized arguments: --nope"),
        ("plot dft --out missing/dft.png", "the folder missing does not exist"),
        ("plot dft --out dft.gif", "expected a file name that ends in .png, .svg, .pdf"),
        ("plot dfft", "unknown method 'dfft', did you mean dft"),
        ("plot sft dft gem kd brier mae asft", "overview: expected one to six methods, got 7"),
        ("plot dft --out /proc/dft.png", "--out /proc/dft.png: cannot be written"),
    ],
)
def test_a_usage_error_is_one_sentence_and_exits_2(
    argv: str, sentence: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(argv.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err
    assert err.startswith("qunify: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# ---- somebody's code -------------------------------------------------------------------------------------
HOSTILE = """
from __future__ import annotations

import sys
from dataclasses import dataclass
import torch.nn.functional as F
import qunify as qu

print("imported")


@dataclass
class Settings:  # looks its annotations up in its module
    scale: float = 1.0


def loss(logits, labels):
    print("called")
    return F.cross_entropy(logits, labels, reduction="none")


def ends(logits, labels):
    raise SystemExit(0)


def fails(logits, labels):
    raise BaseException("one\\nline")


def broken(logits, labels):
    p = logits.exp()
    losses = p.sum(-1).log() - logits.gather(-1, labels[:, None])[:, 0]
    p.zero_()
    return losses


def wants(logits, labels, more):
    return loss(logits, labels)


class Divides(qu.Gate):
    def loss(self, t):
        return -t.log_p_label

    def weight(self, t):
        return 1 / 0


def steers(logits, labels):
    return loss(logits, labels)


steers.__name__ = "\\x1b[31mred \\x9b32m"
half = qu.design("half", trust=lambda t, a: t.p_label**a, residual=lambda t: t.uniform, a=0.5)
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "losses.py").write_text(HOSTILE)
    (folder / "script.py").write_text(HOSTILE + "\nsys.exit(0)\n")
    return folder


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ("script.py:loss", "script.py cannot be imported: it ends the program"),
        ("losses.py:ends", "check came to no result: SystemExit: 0 ("),
        ("losses.py:fails", "check came to no result: BaseException: one line ("),
        ("losses.py:broken", "RuntimeError"),
        ("losses.py:wants", "needs more, which is no known context"),
        ("losses.py:Divides", "ZeroDivisionError: division by zero"),
    ],
)
@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_a_check_that_did_not_check_exits_2(
    named: str, sentence: str, options: list[str], hostile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", f"{hostile}/{named}", "sft", *options]) == 2
    out, err = capsys.readouterr()
    *said, last = err.splitlines()
    assert out == ""
    assert last.startswith("qunify: ")
    assert sentence in last
    assert set(said) <= {"imported", "called"}


def test_what_a_loss_prints_is_no_part_of_the_output(hostile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", f"{hostile}/losses.py:loss", "sft", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["level"] == "identical"
    assert {"imported", "called"} == set(err.splitlines())


def test_a_name_does_not_steer_the_terminal(hostile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["check", f"{hostile}/losses.py:steers", "sft"], ["show", f"{hostile}/losses.py:steers"]):
        assert main(argv) == 0
        assert "\\x1b[31mred \\x9b32m" in capsys.readouterr().out
    assert main(["show", "a\x1b[31m.py:f"]) == 2
    assert "a\\x1b[31m.py: no such file" in capsys.readouterr().err


@pytest.mark.parametrize("value", [f"{10**22}", f"-{2**63}", "nan", "inf"])
def test_numbers_of_set_are_finite_and_of_64_bits(
    value: str, hostile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for argv in (["eaft", "--set", f"top_k={value}"], [f"{hostile}/losses.py:half", "--set", f"a={value}"]):
        assert main(["show", *argv]) == 2
        assert f"={value}: expected a finite number of at most 64 bits" in capsys.readouterr().err


# ---- as a program ----------------------------------------------------------------------------------------
def test_help_names_every_command_and_loads_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys; from qunify.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as e: print(e.code, *sorted({'torch', 'numpy', 'matplotlib', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    *lines, last = done.stdout.splitlines()
    assert last == "0"
    assert [name for name in COMMANDS if not any(line.split()[:1] == [name] for line in lines)] == []


def test_version() -> None:
    assert run("--version").stdout == f"qunify {qunify.__version__}\n"


def test_a_program_error_has_no_traceback() -> None:
    done = run("shwo", "sft")
    assert done.returncode == 2
    assert done.stderr.startswith("qunify: unknown command 'shwo', did you mean show")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("length", [10, 10**6], ids=["short", "long"])
def test_a_closed_pipe_is_not_an_error(length: int) -> None:
    """Whether it is found to be closed while the text is printed, or afterwards."""
    code = f"""
import sys
from qunify.cli import COMMANDS, main
says = {{"compute": lambda *_: {{}}, "render": lambda *_: {length} * "x"}}
COMMANDS["list"] = type("Printing", (type(COMMANDS["list"]),), says)()
sys.exit(main(["list"]))
"""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        done = subprocess.run([sys.executable, "-c", code], stdout=closed, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 141
    assert done.stderr == ""


@pytest.mark.slow
def test_piped_output_has_no_colours_and_survives_an_old_encoding() -> None:
    code = """
import os, sys
from qunify.cli import main
assert main(["show", "target_sft"]) == 0
sys.stdout.reconfigure(encoding="ascii", errors="strict")
os.environ["COLUMNS"] = "30"
print("In an old encoding")
sys.exit(main(["show", "target_sft"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", env=UTF_8)
    assert done.returncode == 0, done.stderr
    plain, _, old = done.stdout.partition("In an old encoding")
    assert "\x1b" not in plain
    assert "█" in plain
    assert "Target-SFT" in old
    assert old.isascii()


# ---- drawing ---------------------------------------------------------------------------------------------
def test_bars_are_proportional_and_negative_ones_look_different(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    first, second, third, fourth = terminal.paired_bars(["a", "b"], ("p", "Q"), [(1.0, 0.5), (-0.25, None)])
    assert first.count("█") == 2 * second.count("█") == 40
    assert third.count("░") == 10
    assert "−0.250" in third
    assert fourth.split() == ["Q", UNDEFINED]


def test_a_curve_rises_above_zero_and_falls_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "32")
    lines = terminal.curve([-1.0, -0.5, 0.0, 0.5, 1.0], axis=("0", "u", "1"), rows=4)
    zero = next(i for i, line in enumerate(lines) if "┼" in line)
    above, below = lines[:zero], lines[zero + 1 : -1]
    assert len(above) == len(below) == 2
    assert all(line.endswith("█") for line in above)
    assert all(line.split("│")[1].startswith("█") for line in below)
    assert "1 │" in above[0]
    assert "−1 │" in below[-1]
