"""Kernels for the pages that run: forked from the process that reads the page, which has the libraries already."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
import traceback
from importlib.metadata import EntryPoint
from typing import Any, NoReturn

from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

import qunify
import qunify.hf


def use() -> None:
    """From now on kernels are forks of this process, or of its own forks. It loads all of qunify, which takes most of
    a kernel's start, and is needed once."""
    for package in (qunify, qunify.hf):
        for name in dir(package):
            getattr(package, name)
    importlib.import_module("ipykernel.kernelapp")
    factory = KernelProvisionerFactory.instance()
    factory.provisioners["forked"] = EntryPoint("forked", f"{__name__}:Forked", factory.GROUP_NAME)
    factory.default_provisioner_name = "forked"


class Forked(LocalProvisioner):
    """A kernel on this machine that is no new program."""

    async def launch_kernel(self, cmd: list[str], **named: Any) -> Any:
        self.process: Any = Fork(cmd[cmd.index("-f") :], named["cwd"], named["env"])
        self.pid = self.pgid = self.process.pid
        return self.connection_info


class Fork:
    """As much of `subprocess.Popen` as a provisioner asks of a kernel."""

    stdin = stdout = stderr = None

    def __init__(self, arguments: list[str], cwd: str, environment: dict[str, str]) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            _be_kernel(arguments, cwd, environment)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def _be_kernel(arguments: list[str], cwd: str, environment: dict[str, str]) -> NoReturn:
    """What a new program would find: a session and a loop of its own, nothing to read, and the settings that libraries
    choose when they are loaded by a kernel."""
    import matplotlib as mpl
    import pandas as pd
    from ipykernel import kernelapp

    try:
        os.setsid()
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(environment)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        asyncio.events._set_running_loop(None)
        asyncio.set_event_loop(asyncio.new_event_loop())
        sys.stdout, sys.stderr, sys.argv = sys.__stdout__, sys.__stderr__, ["ipykernel_launcher", *arguments]
        pd.set_option("display.max_columns", 20)
        mpl.rcdefaults()
        mpl.rcParams["backend"] = "module://matplotlib_inline.backend_inline"
        sys.modules.pop("matplotlib.pyplot", None)  # which loads the backend once, when it is first asked for
        kernelapp.launch_new_instance(argv=[*arguments, f"--IPKernelApp.parent_handle={os.getppid()}"])
    except Exception:
        traceback.print_exc()
        os._exit(1)
    finally:
        os._exit(0)
