"""The commands of `qunify`. A new one is a file here with one `Command`, and a line below."""

from qunify.cli._audit import Audit
from qunify.cli._base import Command
from qunify.cli._check import Check
from qunify.cli._compare import Compare
from qunify.cli._explore import Explore
from qunify.cli._identify import Identify
from qunify.cli._list import List
from qunify.cli._plot import Plot
from qunify.cli._record import Record
from qunify.cli._show import Show

COMMANDS: dict[str, Command] = {
    "list": List(),
    "show": Show(),
    "compare": Compare(),
    "check": Check(),
    "identify": Identify(),
    "plot": Plot(),
    "explore": Explore(),
    "audit": Audit(),
    "record": Record(),
}
