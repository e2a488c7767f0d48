"""`python -m gridsweep.serving.base`: print where a base model is, and how a server writes its prompts, as JSON.

This is a separate program because converting a bundled model needs torch.
"""

from __future__ import annotations

import json
import sys

from gridsweep.errors import GridsweepError
from gridsweep.records import codec
from gridsweep.serving.taught import Taught
from gridsweep.sweep.experiments import Dataset, Model


def main(model: Model, taught: Taught) -> None:
    """Print `where` the base is, the `chat_template` that its tokenizer lacks, and the `generation_config` it lacks.

    Both are None where the base's own do: where its template writes the prompts of training, and its generation stops
    at the tokens that end an answer.
    """
    from gridsweep.train.model import offline_if_local, resolve

    offline_if_local(model, Dataset("stdlib"))
    where = resolve(model)
    from transformers import AutoTokenizer, GenerationConfig

    from gridsweep.train.serving_template import serving_template
    from gridsweep.train.wording import Wording

    options = {} if where != model.id or not model.revision else {"revision": model.revision}
    tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False, **options)
    wording = Wording(tokenizer, taught.encoding, taught.date, model.chat_template)
    try:
        own = GenerationConfig.from_pretrained(where, **options).to_diff_dict()
    except OSError:  # the base has none
        own = {}
    given = own.get("eos_token_id")
    ends = {*(given if isinstance(given, list) else [] if given is None else [given])}
    added = wording.ends - ends - {tokenizer.eos_token_id}  # every server stops at the tokenizer's own end
    config = {**own, "eos_token_id": sorted(ends | wording.ends)} if added else None
    print(json.dumps({"where": where, "chat_template": serving_template(wording), "generation_config": config}))


if __name__ == "__main__":
    try:
        main(*codec.loads(tuple[Model, Taught], sys.stdin.read()))
    except (GridsweepError, OSError, ValueError, ImportError) as error:
        sys.exit(f"error: {error}")
