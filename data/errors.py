"""Every error that a user can cause, in one tree.

::

    SvaeError
    ├── UsageError            the call is wrong (exit status 2)
    │   └── ExtraError        a package that an extra brings is missing; an ImportError too
    ├── DataError             the data is at fault (exit status 1)
    │   ├── SourceError       a source that cannot be read
    │   ├── SchemaError       columns that are not what they should be
    │   ├── BoundError        an error bound that cannot be meant
    │   └── GateError         data that failed its validation gate
    ├── ArchiveError          an archive that cannot be read or written
    │   └── DamagedError      bytes that are not what was written
    ├── ModelError            a model that cannot be loaded or does not fit the data
    └── TrackingError         the tracking server or the registry did not do its part

The message says what, where, and the way out, on one line.
"""


class SvaeError(Exception):
    """Base of all errors that name something the user can mend."""


class UsageError(SvaeError):
    """The call itself is wrong."""


class ExtraError(UsageError, ImportError):
    """A package that only an extra brings is not installed."""


class DataError(SvaeError):
    """The data handed in is at fault."""


class SourceError(DataError):
    """A source that is missing, empty or malformed."""


class SchemaError(DataError):
    """Columns that are not what the schema or the model asks for."""


class BoundError(DataError):
    """An error bound that is negative, not a number, or names an unknown column."""


class GateError(DataError):
    """Data that failed the validation gate."""


class ArchiveError(SvaeError):
    """An archive that cannot be read or written."""


class DamagedError(ArchiveError):
    """Bytes whose checksum or structure is not what was written."""


class ModelError(SvaeError):
    """A model that is damaged, foreign, or made for another schema."""


class TrackingError(SvaeError):
    """The tracking server or the model registry is out of reach or refused."""
