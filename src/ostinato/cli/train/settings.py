"""Options that follow from a configuration: its fields made by `option` and `argument`.

Knows no training.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from ostinato.cli.options import Option, flag_of

Config = TypeVar("Config")


class Setting(NamedTuple):
    """How a field of a configuration becomes an option. `flag` is its name if not the field's."""

    type: Any
    help: str
    flag: str = ""
    metavar: str | None = None
    multiple: bool = False

    def option(self, name: str) -> Option:
        """Return the option; its value is None where it is not typed, flags included."""
        value: dict[str, Any] = {"type": self.type, "multiple": self.multiple}
        if self.type is bool:
            value = {} if "/" in self.flag else {"is_flag": True}
        flag = self.flag or flag_of(name)
        return click.option(flag, name, help=self.help, default=None, metavar=self.metavar, **value)


Overrides = Mapping[str, Setting | None]
"""By field of a configuration: another option than the field itself says; None: no option."""


class Inner(NamedTuple):
    """A configuration in another one: its field, its class, and its default, None without one."""

    name: str
    config: type
    default: object


def inner(config: type) -> list[Inner]:
    """Return the configurations in one; that of the training is the last."""
    hints = typing.get_type_hints(config)
    found = [
        Inner(
            spec.name,
            hints[spec.name],
            None if spec.default is dataclasses.MISSING else spec.default,
        )
        for spec in dataclasses.fields(config)
        if dataclasses.is_dataclass(hints[spec.name])
    ]
    return sorted(found, key=lambda each: each.name == "training")


def settings_of(config: type, overrides: Overrides, default: object = None) -> dict[str, Setting]:
    """Return a setting for each `option` of a configuration; the help shows those of `default`."""
    hints = typing.get_type_hints(config)
    settings = {}
    for spec in dataclasses.fields(config):
        if "help" in spec.metadata:
            usual = spec.default if default is None else getattr(default, spec.name)
            setting = overrides.get(spec.name, _setting(hints[spec.name], **spec.metadata))
            if setting is not None:
                settings[spec.name] = setting._replace(help=_with_default(setting.help, usual))
    return settings


def arguments_of(config: type) -> Iterator[Option]:
    """Yield each `argument` of a configuration and of those in it."""
    hints = typing.get_type_hints(config)
    for spec in dataclasses.fields(config):
        if "argument" in spec.metadata:
            kind, several = _click_type(hints[spec.name])
            metavar, count = spec.metadata["argument"], -1 if several else 1
            yield click.argument(spec.name, required=True, nargs=count, type=kind, metavar=metavar)
    for each in inner(config):
        yield from arguments_of(each.config)


def built(
    config: type[Config], values: Mapping[str, Any], default: Any = None, **more: Any
) -> Config:
    """Return a configuration with values of its options and arguments, and of those in it.

    What is not typed is as in `default`; `more` are values of other fields.
    """
    typed = {
        spec.name: values[spec.name]
        for spec in dataclasses.fields(config)  # type: ignore[arg-type]
        if spec.metadata and spec.name in values
    }
    typed |= {each.name: built(each.config, values, each.default) for each in inner(config)} | more
    return config(**typed) if default is None else dataclasses.replace(default, **typed)


def _setting(hint: Any, *, help: str, flag: str, metavar: str | None) -> Setting:
    kind, several = _click_type(hint)
    return Setting(kind, help, flag, metavar, several)


def _click_type(hint: Any) -> tuple[Any, bool]:
    """Return the type of what is typed for a field, and whether there may be several."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return _click_type(parts[0])[0], True
    if origin is typing.Literal:
        return click.Choice(list(parts)), False
    if parts:  # a union with None
        return _click_type(next(part for part in parts if part is not type(None)))
    return click.Path(path_type=Path) if hint is Path else hint, False


def _with_default(text: str, value: object) -> str:
    """Return a help text with the default, unless it says one or there is none to show."""
    without = value is None or value is False or value == ()
    return text if without or "[default:" in text else f"{text}  [default: {value}]"
