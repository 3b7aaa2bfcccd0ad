"""Errors meant for the user. Each message says what was expected, what was found, and what fixes it."""


class AlcoveError(Exception):
    """Bad input or a missing piece: the command line prints the message and exits with code 2."""


class InputError(AlcoveError, ValueError):
    """A value the user gave cannot be used."""


class UnknownNameError(InputError, LookupError):
    """A name that no component is registered under."""


class UnreadableImageError(AlcoveError, OSError):
    """An image file that cannot be decoded."""


class WeightsUnavailableError(AlcoveError, OSError):
    """Pretrained weights that can be had neither from disk nor from the network."""


class DataUnavailableError(AlcoveError, OSError):
    """A data set that can be had neither from disk nor from the network."""


class StoreUnavailableError(AlcoveError, OSError):
    """An object store that does not answer, or refuses."""


class CacheError(AlcoveError):
    """Anything wrong with data that alcove itself wrote."""


class CacheMissError(CacheError, LookupError):
    """No cache of that description exists."""


class CacheIncompleteError(CacheError):
    """A cache that was begun and not finished."""


class CacheMismatchError(CacheError, ValueError):
    """A cache whose content contradicts its own record."""
