"""The examples run as a user runs them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

pytestmark = pytest.mark.slow

pytest.importorskip("trl")
ROOT = Path(__file__).resolve().parents[1]


def test_fine_tuning_end_to_end(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "finetune.py"), "--quick", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if re.match(r"(sft|dft|target_sft|designed) ", line)]
    assert [row[0] for row in rows] == ["sft", "dft", "target_sft", "designed"]
    for name, loss, trust, scale, inside, right in rows:
        assert (tmp_path / name / "model.safetensors").exists()
        assert float(loss) > 0
        assert float(scale) > 0
        assert inside == "100%"
        assert 0 <= float(right.rstrip("%")) <= 100
        assert (float(trust) == 1) == (name == "sft")


@pytest.mark.parametrize(
    ("data", "row"),
    [
        ("maths", {"problem": "the cat sees", "solution": "a bird today"}),
        ("medicine", {"Question": "the dog", "Complex_CoT": "likes a", "Response": "red house"}),
    ],
)
def test_real_settings_run_on_what_is_at_hand(
    data: str, row: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a model, a teacher and a file in place of those of the hub."""
    from tests import small_llama

    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import ten_settings

    paths = {"model": tmp_path / "model", "teacher": tmp_path / "teacher"}
    for seed, path in enumerate(paths.values()):
        small_llama.model(seed).save_pretrained(path)
        small_llama.tokenizer().save_pretrained(path)
    (tmp_path / "rows.json").write_text(json.dumps([row] * 8))
    plain = {"use_cpu": True, "bf16": False, "max_length": 32, "gradient_accumulation_steps": 1, "disable_tqdm": True}
    ten_settings.main(
        [
            data, "qwen2.5-0.5b", "--method", "target_sft", "--params", '{"eta": 0.25}', "--steps", "2",
            "--model-path", str(paths["model"]), "--teacher-path", str(paths["teacher"]),
            "--data-file", str(tmp_path / "rows.json"), "--config", json.dumps(plain), "--out", str(tmp_path / "out"),
        ]
    )  # fmt: skip
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert len(ten_settings.MODELS) * len(ten_settings.DATA) == 10


def test_audit_train_and_audit_again(tmp_path: Path) -> None:
    from tests import small_llama

    small_llama.model().save_pretrained(tmp_path / "model")
    small_llama.tokenizer().save_pretrained(tmp_path / "model")
    rows = [{"question": "the cat sees", "answer": said} for said in small_llama.sentences()]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    script = [str(ROOT / "examples" / "audit_and_train.py"), "model", "rows.jsonl"]
    done = subprocess.run(
        [sys.executable, *script, "--method", "dft", "--steps", "4", "--rate", "0.05"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "trained" / "adapter_model.safetensors").is_file()
    row = re.search(r"special tokens +8 +(\S+) +(\S+) +(\S+) +(\S+)$", done.stdout, re.MULTILINE)
    assert row is not None
    u_before, u_after, *_ = map(float, row.groups())
    assert u_before != u_after


def test_settings_on_a_model_of_ones_own_go_on_where_they_were(tmp_path: Path) -> None:
    from tests import small_llama

    small_llama.model().save_pretrained(tmp_path / "model")
    small_llama.tokenizer().save_pretrained(tmp_path / "model")
    rows = [{"question": "the cat sees", "answer": said} for said in small_llama.sentences()]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def run(methods: str) -> subprocess.CompletedProcess[str]:
        script = [str(ROOT / "examples" / "real_settings.py"), "model", "rows.jsonl", "--methods", methods]
        done = subprocess.run(
            [sys.executable, *script, "--rates", "0.05", "--steps", "3"], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        assert re.search(r"Rank correlation of the first step with training: −?-?\d\.\d\d", done.stdout)
        return done

    run("sft")
    first = pd.read_csv(tmp_path / "settings.csv")
    assert set(first["method"]) == {"sft"}
    assert (first["after"] != first["before"]).all()
    assert first["influence"].notna().all()
    assert "train_loss" in run("sft,dft").stdout
    both = pd.read_csv(tmp_path / "settings.csv")
    assert set(both["method"]) == {"sft", "dft"}
    pd.testing.assert_frame_equal(both[: len(first)], first)
    assert "train_loss" not in run("dft,sft").stdout
