"""What can go wrong while memory is estimated."""

from __future__ import annotations

from ostler.core.errors import Invalid, InvalidField


class IncompleteHeader(Invalid):
    """The model's header lacks a fact without which no memory can be counted; `key` names it."""

    hint = "The file was converted wrongly or is damaged: fetch it again, or another conversion of it."


class ImpossibleHeader(Invalid):
    """The model's header contradicts itself: no heads, a head of no width, an absurd number of layers."""

    hint = "The file was converted wrongly or is damaged: fetch it again, or another conversion of it."


class NotEstimable(Invalid):
    """The files are no language model: an adapter, a projector or a vocabulary alone."""

    hint = "Give the model's own file; adapters and projectors are counted beside it."


class ImpossibleOption(InvalidField):
    """An engine option has a value with which no memory can be counted."""
