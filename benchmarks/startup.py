"""What importing qunify and asking for help cost, in fresh interpreters."""

from __future__ import annotations

from benchmarks.timing import Result, alternate, python, sandwiched


def run() -> list[Result]:
    torch_times, import_times = alternate(python("-c", "import torch"), python("-c", "import qunify"))
    bare_times, help_times = alternate(python("-c", "pass"), python("-m", "qunify", "--help"))
    return [
        Result.of("import qunify / import torch", sandwiched(torch_times, import_times), "×", at_most=1.05),
        Result.of("qunify --help", help_times, "s", at_most=0.3),
        Result.of("qunify --help / python -c pass", sandwiched(bare_times, help_times), "×"),
    ]
