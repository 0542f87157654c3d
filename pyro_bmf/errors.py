"""The errors that a user can cause: each names the value, the place and the remedy."""

from __future__ import annotations


class PyroBmfError(Exception):
    """Base of every error raised on purpose; its text is fit to be shown to a user as it stands."""


class DataError(PyroBmfError, ValueError):
    """Ratings, files or splits that cannot be used as they are."""


class UnknownIdError(PyroBmfError, KeyError):
    """A raw user or item id that the data does not hold."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument; the message is meant to be read.
        return str(self.args[0]) if self.args else ""


class SettingsError(PyroBmfError, ValueError):
    """A setting outside what it may be, or settings that exclude each other."""


class SavedFileError(PyroBmfError, ValueError):
    """A saved model, checkpoint or run folder that is damaged, foreign or of another format version."""


class FitError(PyroBmfError, RuntimeError):
    """Inference that cannot go on: divergence, or a problem too large for the machine."""


class WriteError(PyroBmfError, OSError):
    """A file that the system does not let be written: a full disk, no permission, a name too long."""

    def __str__(self) -> str:
        # OSError puts its number before the message; the message is meant to be read.
        return str(self.args[1]) if len(self.args) > 1 else super().__str__()
