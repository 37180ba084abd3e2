"""What a lake raises; every message says what, where, and what to do next."""

from __future__ import annotations


class LakeAbsent(Exception):
    """There is no lake where one was looked for: `lake.enabled = true` starts the writer, `--lake DIR` names another place."""


class LakeDamaged(Exception):
    """A manifest, or a file that a manifest names, is not what was written: restore it from a copy. Nothing is removed by this."""


class LakeRewritten(Exception):
    """The lake was rewritten while it was read: read it again. No row is lost."""


class LakeHeld(Exception):
    """Another writer has this lake: stop that one. A lake has one writer."""


class LakeOvertaken(Exception):
    """What was to be created is there, made by another (a second writer, a rewriting, an erasure): nothing is lost; begin again behind
    it."""


class LakeAway(Exception):
    """The object store of a lake does not answer, refuses, or cannot hold a lake; the message says what to do. Nothing is lost: a writer
    goes on from its last commit."""


class LakeAhead(Exception):
    """The topic ends before the offsets that the lake has taken: the broker has lost records. Begin a new lake, keep the old one."""


class NoSuchSample(Exception):
    """The lake holds no sample of this event or cause: `headrace trace` says where it is, if it is younger than the last commit."""


class BadRange(Exception):
    """A time, a place or a name of a lake cannot be read as one; the message says what to write."""
