"""The typed errors of the toolkit: each says what was wrong, what was expected and where."""

from __future__ import annotations


class FedclDistillError(Exception):
    """Base of every error the toolkit raises on purpose."""


class DataError(FedclDistillError, ValueError):
    """Real data that cannot be used: NaN, wrong shapes, labels out of range, an empty class."""


class SettingsError(FedclDistillError, ValueError):
    """A setting, or a combination of settings, that cannot work."""


class PayloadError(FedclDistillError, ValueError):
    """A file or message that is truncated, oversized, mislabelled or otherwise not to be trusted."""


class CheckpointError(FedclDistillError, ValueError):
    """A checkpoint that is damaged, or that belongs to another run."""


class DivergenceError(FedclDistillError, ArithmeticError):
    """An optimisation whose loss stopped being finite."""


class DependencyError(FedclDistillError, ImportError):
    """An optional package that the asked-for feature needs and that is not installed."""


class StorageError(FedclDistillError, OSError):
    """A file that could not be written or read: the disk is full, the folder is missing or not allowed."""


class PrivacyError(FedclDistillError, RuntimeError):
    """A release that a privacy budget does not cover, or a ledger that cannot be trusted."""
