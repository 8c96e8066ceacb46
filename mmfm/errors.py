"""The exceptions that a caller may catch. Each message is one line: where, expected, found, what to do.

::

    MmfmError
    ├── ReadError            a file or folder could not be read as images
    ├── ManifestError        a manifest or a source of studies breaks its schema
    ├── ConfigError          an experiment, an override, an option or an environment variable is wrong
    ├── CheckpointError      a checkpoint is unknown, incomplete or altered
    ├── ServerError          a PACS cannot be reached, refuses, or answers other than the protocol says
    └── ScopeError           the study lies outside what the checkpoint was made for: no draft is given

The command line prints the message and exits with code 2. ``assert`` is for our own mistakes.
"""

from __future__ import annotations


class MmfmError(Exception):
    """Base of every error that mmfm raises on purpose.

    Args:
        where: the file, field or option that is at fault; never a patient's name or identifier.
        expected: what was expected there.
        found: what was found instead.
        fix: what the user can do, in the imperative.
    """

    def __init__(self, where: str, *, expected: str, found: str, fix: str) -> None:
        self.where, self.expected, self.found, self.fix = where, expected, found, fix
        line = f"{where}: expected {expected}; found {found}; {fix}"
        super().__init__(" ".join(line.split()))


class ReadError(MmfmError):
    """A file, archive or folder could not be read as images."""


class ManifestError(MmfmError):
    """A manifest, or the source that it is made from, breaks its schema or its counts."""


class ConfigError(MmfmError):
    """An experiment, an override, an option or an environment variable is wrong."""


class CheckpointError(MmfmError):
    """A checkpoint is unknown, incomplete, altered or does not fit the model."""


class ServerError(MmfmError):
    """A PACS cannot be reached, refuses, or answers other than the protocol says; ``where`` is its host."""

    def after(self, stored: int) -> ServerError:
        """Returns this error, saying how much was stored before it, if anything was."""
        found = f"{self.found}, after {stored} instances were stored" if stored else self.found
        return ServerError(self.where, expected=self.expected, found=found, fix=self.fix)


class ScopeError(MmfmError):
    """The study lies outside the scope that the checkpoint declares, so that no draft is given."""
