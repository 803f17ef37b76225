"""Checks of settings, which may come from anyone: a file names a parameterization with its settings."""

from __future__ import annotations

from typing import Any

from fedcl_distill.errors import SettingsError


def check_integer(what: str, value: Any, low: int, high: int) -> None:
    """Return if ``value`` is an integer (True is none) from ``low`` to ``high``.

    Raises:
        SettingsError: it is not.
    """
    if type(value) is not int or not low <= value <= high:
        raise SettingsError(f"{what} must be an integer from {low} to {high}, got {value!r}")
