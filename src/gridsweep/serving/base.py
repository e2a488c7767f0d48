"""`python -m gridsweep.serving.base [--prompts]`: print where a base is, and how a server writes its prompts, as JSON.

This is a separate program because converting a bundled model needs torch.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any  # a model's configuration

from gridsweep.errors import GridsweepError
from gridsweep.records import codec
from gridsweep.serving.ollama import Prompts, Turns, around
from gridsweep.serving.taught import Taught
from gridsweep.sweep.experiments import Dataset, Model

if TYPE_CHECKING:
    from gridsweep.train.wording import Wording


def main(model: Model, taught: Taught, *, prompts: bool = False) -> None:
    """Print `where` the base is, the `chat_template` that its tokenizer lacks, and the `generation_config` it lacks.

    Both are None where the base's own do: where its template writes the prompts of training, and its generation stops
    at the tokens that end an answer. With `prompts`, print what a Modelfile needs instead: the fields of `Prompts`.
    """
    from gridsweep.train.model import offline_if_local, resolve

    offline_if_local(model, Dataset("stdlib"))
    where = resolve(model)
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    from gridsweep.train.serving_template import serving_template
    from gridsweep.train.wording import Wording

    options = {} if where != model.id or not model.revision else {"revision": model.revision}
    tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False, **options)
    wording = Wording(tokenizer, taught.encoding, taught.date, model.chat_template)
    if prompts:
        config = AutoConfig.from_pretrained(where, trust_remote_code=False, **options)
        print(json.dumps(asdict(_prompts(wording, config))))
        return
    try:
        own = GenerationConfig.from_pretrained(where, **options).to_diff_dict()
    except OSError:  # the base has none
        own = {}
    given = own.get("eos_token_id")
    ends = {*(given if isinstance(given, list) else [] if given is None else [given])}
    added = wording.ends - ends - {tokenizer.eos_token_id}  # every server stops at the tokenizer's own end
    more = {**own, "eos_token_id": sorted(ends | wording.ends)} if added else None
    print(json.dumps({"where": where, "chat_template": serving_template(wording), "generation_config": more}))


def _prompts(wording: Wording, config: Any) -> Prompts:
    """Return how a base's prompts are written, by the template that a server of it gets."""
    from gridsweep.train.serving_template import serving_template

    tokenizer, template = wording.tokenizer, serving_template(wording)

    def write(turns: Turns) -> str:
        given = {"chat_template": template} if template is not None else {}
        return str(tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=True, **given))

    stops = tuple(str(tokenizer.decode([token])) for token in sorted(wording.ends))
    context = getattr(config, "max_position_embeddings", None)
    architecture = (getattr(config, "architectures", None) or ["an unknown model"])[0]
    return Prompts(around(write, getattr(tokenizer, "bos_token", None)), stops, context, architecture)


if __name__ == "__main__":
    try:
        main(*codec.loads(tuple[Model, Taught], sys.stdin.read()), prompts="--prompts" in sys.argv[1:])
    except (GridsweepError, OSError, ValueError, ImportError) as error:
        sys.exit(f"error: {error}")
