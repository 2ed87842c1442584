"""A method's parameters as functions of the optimizer step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from transformers import TrainerCallback

from qunify.maps import QMap, check_params


class Holder(Protocol):
    """Whatever trains with a method that may be exchanged: the trainer, or a loss."""

    method: QMap


class Schedule(TrainerCallback):
    """A callback that sets a method's parameters before every optimizer step.

    Given to `callbacks` of `qunify.hf.SFTTrainer`, or of any Trainer whose `compute_loss_func` is a `qunify.hf.loss`
    that has been attached to it. The values used are logged under the parameters' names. They depend on the step
    alone, so that a resumed run goes on where it stopped.

    Parameters
    ----------
    **params : function of (step, total)
        By the names of the method's parameters. `step` counts from 0 to `total` − 1.

    Raises
    ------
    ValueError
        A name that is no parameter of the method, or no function; in training, the method's own for a value out of
        its range.

    Examples
    --------
    >>> from qunify import hf
    >>> warm_up = hf.Schedule(kl_weight=lambda step, total: 0.1 * min(1, step / 100))
    """

    def __init__(self, **params: Callable[[int, int], Any]) -> None:
        for name, f in params.items():
            if not callable(f):
                raise ValueError(f"Schedule: {name}: expected a function of step and total, got {f!r}")
        self.params = params
        self.values: dict[str, Any] = {}
        self.holder: Holder | None = None

    def bind(self, holder: Holder) -> None:
        """Set the parameters of this holder's method from now on; ValueError if it sets those of another."""
        if self.holder not in (None, holder):
            raise ValueError("Schedule: expected one for each trainer, got one that sets another's method")
        check_params(holder.method, self.params, "Schedule")
        self.holder = holder

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        if self.holder is None:
            raise ValueError("Schedule: expected a loss to set, got none: call attach(trainer) on the qunify.hf.loss")

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        assert self.holder is not None
        values = {name: f(state.global_step, state.max_steps) for name, f in self.params.items()}
        self.holder.method = self.holder.method.replace(**values)
        # As the method holds them: a number of numpy's would not go into a checkpoint.
        self.values = {name: self.holder.method.params[name] for name in values}

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if "loss" in kwargs["logs"]:  # not in an evaluation, nor in the summary of a run
            kwargs["logs"].update(self.values)
            state.log_history[-1].update(self.values)


def bind(trainer: Any, holder: Holder) -> None:
    """Let every Schedule among a trainer's callbacks set this holder's method."""
    callbacks = trainer.callback_handler.callbacks
    for schedule in [c for c in callbacks if isinstance(c, Schedule)]:
        schedule.bind(holder)
        callbacks.remove(schedule)
        callbacks.insert(0, schedule)  # before those that report what is logged
