"""Validation samples that are trained on as well, whichever files, splits or rows they come from."""

from __future__ import annotations

import json
from collections.abc import Sequence

from gridsweep.errors import SpecError
from gridsweep.train.conversations import Conversation


def trained_on_too(id: str, train: Sequence[Conversation], validation: Sequence[Conversation], *, own: bool) -> str:
    """Return how many validation samples are training samples too, for the report; '' if there are none.

    Samples are equal if their turns are, and which of them are learned. `own` says that validation samples have a
    source of their own. Raise `SpecError` if they are the training samples and nothing else.
    """
    known, held = ({_key(one) for one in side} for side in (train, validation))
    seen = [one for one in validation if _key(one) in known]
    if not seen:
        return ""
    first = f" (first: {seen[0].where})" if seen[0].where else ""
    if known == held:
        remedy = "name other samples as dataset.validation" if own else "remove duplicated rows"
        raise SpecError(f"the dataset {id}: all {len(seen)} validation samples are trained on too{first}; {remedy}")
    return f"{len(seen)} of {len(validation)} validation samples are trained on too{first}"


def _key(one: Conversation) -> str:
    return json.dumps([list(map(dict, one.turns)), one.answers, one.text], sort_keys=True, default=str)
