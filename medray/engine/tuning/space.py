"""The space of a search: fields of a Task and their ranges, as a command line names them.

learning-rate=1e-5..1e-2:log    weight-decay=0..0.1    size-px=224|300|480    optimizer=adam|sgd
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from medray.tasks.task import Task

_FORM = "name=low..high, name=low..high:log or name=a|b|c"
VARIANT = "backbone"
"""The dimension that chooses among several base tasks."""
# a rung's meaning hangs on the epochs, and initial weights are fetched once for each base before the search
_FIXED = ("task", "epochs", "pretrained", "weights", VARIANT)


@dataclass(frozen=True)
class Dimension:
    """One field: a range of numbers, both ends included, or a choice."""

    field: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    integer: bool = False
    choices: tuple[Any, ...] = ()

    def distribution(self) -> BaseDistribution:
        if self.choices:
            # Optuna's storage knows plain values only: a tuple travels as its text
            return CategoricalDistribution([_plain(choice) for choice in self.choices])
        if self.integer:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def value(self, sampled: Any) -> Any:
        """A sample of the distribution as the field's value."""
        return next((choice for choice in self.choices if _plain(choice) == sampled), sampled)

    def ends(self) -> tuple[Any, ...]:
        return self.choices or ((int(self.low), int(self.high)) if self.integer else (self.low, self.high))

    def __str__(self) -> str:
        name = self.field.replace("_", "-")
        if self.choices:
            return f"{name}={'|'.join(_text(choice) for choice in self.choices)}"
        low, high = self.ends()
        return f"{name}={low:g}..{high:g}{':log' if self.log else ''}"


def parse_space(texts: Sequence[str], bases: Mapping[str, Task]) -> tuple[Dimension, ...]:
    """Dimensions from texts such as ``learning-rate=1e-5..1e-2:log``.

    Args:
        bases: name of a variant → its task; with more than one, the choice of the variant is a dimension too.
    Raises:
        ValueError: a field that the task does not have, text that is no range, or a value that the task refuses.
    """
    found = [Dimension(VARIANT, choices=tuple(bases))] if len(bases) > 1 else []
    for text in texts:
        name, _, range_text = text.partition("=")
        field = name.strip().replace("-", "_")
        if field in [dimension.field for dimension in found]:
            raise ValueError(f"--search {text}: {name} is named twice, or varies with --backbones already")
        dimension = _parse(text, field, range_text.strip(), next(iter(bases.values())))
        for task in bases.values():
            for value in dimension.ends():
                try:
                    replace(task, **{field: value})
                except ValueError as error:
                    raise ValueError(f"--search {text}: {error}") from None
        found.append(dimension)
    if not found:
        raise ValueError(f"--search: nothing to search; name fields as {_FORM}")
    return tuple(found)


def _parse(text: str, field: str, range_text: str, task: Task) -> Dimension:
    hints = get_type_hints(type(task))
    names = [name for name in task.identity() if name not in _FIXED]
    if field not in names:
        numeric = [n.replace("_", "-") for n in names if isinstance(getattr(task, n), (int, float))]
        raise ValueError(f"--search {text}: no such field; of the numeric ones there are {', '.join(sorted(numeric))}")
    current, hint = getattr(task, field), hints[field]
    if "|" in range_text or ".." not in range_text:
        choices = tuple(_convert(text, part.strip(), current, hint) for part in range_text.split("|") if part.strip())
        if len(set(choices)) < 2:
            raise ValueError(f"--search {text}: needs two values to choose from; {_FORM}")
        return Dimension(field, choices=choices)
    if isinstance(current, (bool, str, tuple)):
        raise ValueError(f"--search {text}: not a range of numbers; {_FORM}")
    log = range_text.endswith(":log")
    low, high = (_convert(text, end, current, hint) for end in range_text.removesuffix(":log").split("..", 1))
    if not low < high or (log and low <= 0):
        raise ValueError(f"--search {text}: the lower end must lie below the upper one{', above 0 with :log' * log}")
    return Dimension(field, float(low), float(high), log, isinstance(current, int))


def _convert(text: str, value: str, current: Any, hint: Any) -> Any:
    try:
        if isinstance(current, bool):
            return {"true": True, "false": False}[value.lower()]
        if isinstance(current, int):
            return int(value)
        if isinstance(current, float) or (current is None and float in get_args(hint)):
            return None if value.lower() == "none" else float(value)
    except (ValueError, KeyError):
        kind = (
            "true or false" if isinstance(current, bool) else "a whole number" * isinstance(current, int) or "a number"
        )
        raise ValueError(f"--search {text}: {value!r} is not {kind}") from None
    if isinstance(current, tuple):
        return tuple(value.split(","))
    if get_origin(hint) is Literal and value not in get_args(hint):
        raise ValueError(f"--search {text}: {value!r} is none of {', '.join(map(str, get_args(hint)))}")
    return value


def flags(values: Mapping[str, Any]) -> list[str]:
    """Values of fields as the flags of a job."""
    out: list[str] = []
    for field, value in values.items():
        name = field.replace("_", "-")
        if field == VARIANT:
            out += ["--backbones", str(value)]
        elif isinstance(value, bool):
            out.append(f"--{name}" if value else f"--no-{name}")
        elif isinstance(value, tuple):
            out += [f"--{name}", *map(str, value)]
        else:
            out += [f"--{name}", _text(value)]
    return out


def differences(task: Task, base: Task) -> dict[str, Any]:
    """Fields in which a task differs from another one of its kind."""
    of_base = base.identity()
    return {name: getattr(task, name) for name, value in task.identity().items() if value != of_base.get(name)}


def _plain(choice: Any) -> Any:
    return ",".join(choice) if isinstance(choice, tuple) else choice


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(_plain(value))
