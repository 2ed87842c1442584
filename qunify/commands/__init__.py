"""The commands of `qunify`. A new one is a file here with one `Command`, and a line below."""

from qunify.commands.base import Command
from qunify.commands.check import Check
from qunify.commands.compare import Compare
from qunify.commands.explore import Explore
from qunify.commands.identify import Identify
from qunify.commands.list import List
from qunify.commands.plot import Plot
from qunify.commands.show import Show

COMMANDS: dict[str, Command] = {
    "list": List(),
    "show": Show(),
    "compare": Compare(),
    "check": Check(),
    "identify": Identify(),
    "plot": Plot(),
    "explore": Explore(),
}
