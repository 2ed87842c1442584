"""The explorer's formulas, run in V8, against Python; and the page as a file."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
import torch

import qunify as qu
from qunify import catalogue, explorer
from qunify.cli import main
from qunify.explorer._writer import catalogue_script, loss_script, pulls_script
from qunify.token import CONTEXTS
from tests.battery import one_each

mini_racer = pytest.importorskip("py_mini_racer")

SHORT = CONTEXTS
VOCAB, TOKENS = 5, 24


@pytest.fixture(scope="module")
def script() -> Any:
    context = mini_racer.MiniRacer()
    runtime = files("qunify.explorer").joinpath("runtime.js").read_text(encoding="utf-8")
    context.eval(f"{runtime}\nconst FORMULAS = {catalogue_script(explorer.shown())};")
    return context


def ask(script: Any, expression: str, **given: Any) -> Any:
    """The value of an expression in which the given names stand for values; NaN and infinities survive."""
    names = "".join(f"const {k} = {json.dumps(v)};\n" for k, v in given.items())  # with NaN, as JavaScript has it
    text = script.eval(
        f"(() => {{{names}return JSON.stringify({expression}, (_, x) => "
        "typeof x === 'number' && !Number.isFinite(x) ? String(x) : x)})()"
    )
    return _numbers(json.loads(text))


def _numbers(x: Any) -> Any:
    if isinstance(x, dict):
        return {k: _numbers(v) for k, v in x.items()}
    if isinstance(x, list):
        return [_numbers(v) for v in x]
    return float(x) if x in ("NaN", "Infinity", "-Infinity") else x


def tokens(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """Tokens of many kinds: undecided and nearly certain ones, right and wrong."""
    r = torch.Generator().manual_seed(seed)
    scale = torch.tensor([0.5, 2.0, 8.0, 15.0], dtype=torch.float64).repeat_interleave(TOKENS // 4)[:, None]
    logits = scale * torch.randn(TOKENS, VOCAB, generator=r, dtype=torch.float64)
    context = {
        name: 2 * torch.randn(TOKENS, VOCAB, generator=r, dtype=torch.float64)
        for name in SHORT
        if name.endswith("_logits")
    }
    context["token_weight"] = 2 * torch.rand(TOKENS, generator=r, dtype=torch.float64)
    context["token_mask"] = torch.rand(TOKENS, generator=r, dtype=torch.float64).round()
    context["negative_mask"] = torch.rand(TOKENS, VOCAB, generator=r, dtype=torch.float64).round()
    labels = torch.randint(VOCAB, (TOKENS,), generator=r)
    values = torch.randint(10, (TOKENS, VOCAB), generator=r).double()
    context["token_values"] = values.masked_fill(torch.rand(TOKENS, VOCAB, generator=r) < 0.3, torch.nan)
    return logits, labels, context


SETTINGS = [(name, dict(example)) for name, cls in explorer.shown().items() for example in ({}, *cls.examples)]


@pytest.mark.parametrize(("name", "params"), one_each(pytest.param(n, p, id=f"{n}{p or ''}") for n, p in SETTINGS))
def test_javascript_agrees_with_python(script: Any, name: str, params: dict[str, Any]) -> None:
    m = qu.get(name, **params)
    logits, labels, context = tokens()
    q = m(logits, labels, **{n: context[n] for n in m.needs})
    gauges = {g: q.in_gauge(g) for g in ("unit", "fixed", "boundary")}
    for i in range(TOKENS):
        given = {SHORT[n]: v[i].tolist() for n, v in context.items()}
        found = ask(
            script,
            "(() => { const t = token(z, y, c), f = FORMULAS[name], x = pulled(f, t, P); return {loss: f.loss(t, P), "
            "gradient: x.gradient, unit: gaugeOf(x, 'unit', invariant), fixed: gaugeOf(x, 'fixed', invariant), "
            "boundary: gaugeOf(x, 'boundary', invariant)}; })()",
            z=logits[i].tolist(), y=int(labels[i]), c=given, name=name, P=m.params, invariant=m.shift_invariant,
        )  # fmt: skip
        close(found["loss"], q.loss[i])
        close(found["gradient"], q.gradient[i])
        for gauge, its in gauges.items():
            size = float(its.scale[i].abs().nan_to_num(1)) + 1
            for part in ("scale", "target", "trust"):
                expected = getattr(its, part)[i]
                # Where a step is next to nothing, what divides by its size keeps only the digits the step has.
                if gauge == "boundary" and not (float(its.scale[i]) > 1e-6):
                    continue
                close(found[gauge][part], expected, size)


def close(got: Any, expected: torch.Tensor, scale: float = 1.0) -> None:
    np.testing.assert_allclose(np.array(got, dtype=float), expected.numpy(), rtol=1e-9, atol=1e-9 * scale)


TRUTH = [0.5, 0.3, 0.2]
START = [0.2, 0.5, 0.3]


@pytest.mark.parametrize("name", explorer.shown())
def test_the_drift_is_that_of_python(script: Any, name: str) -> None:
    m = qu.get(name)
    _, _, context = tokens()
    context = {n: v[0, :3] if v.dim() == 2 else v[0] for n, v in context.items()}
    given = {SHORT[n]: v.tolist() for n, v in context.items()}
    args = {"z": (np.log(START) + 1).tolist(), "truth": TRUTH, "c": given, "P": m.params}
    found = ask(script, f"drift(FORMULAS.{name}, P, z, truth, c)", **args)
    if not m.shift_invariant:
        assert abs(sum(found)) > 1e-6
        return
    expected = qu.drift(
        m, torch.tensor(START, dtype=torch.float64), torch.tensor(TRUTH, dtype=torch.float64),
        **{n: context[n] for n in m.needs},
    )  # fmt: skip
    close(found, expected)


@pytest.mark.slow
def test_training_ends_where_python_says(script: Any) -> None:
    """Every method that python finds to have one stable point, at three tokens."""
    checked = 0
    _, _, context = tokens()
    context = {n: v[0, :3] if v.dim() == 2 else v[0] for n, v in context.items()}
    given = {SHORT[n]: v.tolist() for n, v in context.items()}
    truth = torch.tensor(TRUTH, dtype=torch.float64)
    for name in explorer.shown():
        m = qu.get(name)
        if not m.shift_invariant or m.link != "softmax" or name == "tvd":  # tvd: signs, which steps only flip
            continue
        found = qu.optimum(m, truth, **{n: context[n] for n in m.needs})
        if not (found.stable and found.converged and len(found.all) == 1 and float(found.probs.min()) > 1e-3):
            continue
        if float(qu.drift(m, found.probs, truth, **{n: context[n] for n in m.needs}).abs().max()) > 1e-6:
            continue  # it rests where its drift jumps, and steps go to and fro across
        ended = ask(
            script,
            f"train(FORMULAS.{name}, P, z, truth, c)",
            z=np.log(START).tolist(),
            truth=TRUTH,
            c=given,
            P=m.params,
        )
        assert ended["rested"], name
        np.testing.assert_allclose(ended["path"][-1], found.probs.numpy(), atol=1e-4, err_msg=name)
        checked += 1
    assert checked > 45


def test_a_wrong_formula_is_noticed(script: Any) -> None:
    """The comparison can fail."""
    logits, labels, _ = tokens()
    dft = qu.get("dft")(logits, labels)
    found = ask(script, "pulled(FORMULAS.sft, token(z, y, {}), {}).gradient", z=logits[0].tolist(), y=int(labels[0]))
    with pytest.raises(AssertionError):
        close(found, dft.gradient[0])


def test_branches_on_parameters_are_traced_both_ways() -> None:
    code = loss_script(catalogue.ENTRIES["jsd"])
    assert "(P.beta === 0)" in code
    assert "(P.beta === 1)" in code
    assert "P.alpha" in pulls_script(catalogue.ENTRIES["abkd"])


def test_squares_beside_names_are_hatched_as_bars_are() -> None:
    style = (files(explorer) / "style.css").read_text(encoding="utf-8")
    for slot in (1, 2):
        assert re.search(rf'\[data-slot="{slot}"\]::before[^{{]*\{{ background-image: \S+', style)


def test_the_page_is_one_small_file_that_loads_nothing() -> None:
    page = explorer.page()
    assert page == explorer.page()
    assert len(page.encode()) < 300_000
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?!data:)\S*//|url\((?!#)|@import|fetch\(|XMLHttp""", page)
    for name, cls in explorer.shown().items():
        assert f'"{name}"' in page
        assert cls.title in page


def test_explore_writes_the_page(tmp_path: Any, capsys: Any) -> None:
    out = tmp_path / "explorer.html"
    assert main(["explore", "--out", str(out)]) == 0
    assert out.read_text(encoding="utf-8") == explorer.page()
    assert str(out) in capsys.readouterr().out
    assert main(["explore", "--out", str(tmp_path / "no" / "such" / "folder.html")]) == 2
    assert "--out" in capsys.readouterr().err
