"""`python -m gridsweep.serving.base MODEL`: where a base model lies, and the chat template it lacks, as JSON.

A program of its own because a bundled model may have to be converted first, which takes torch.
"""

from __future__ import annotations

import json
import sys

from gridsweep.errors import GridsweepError
from gridsweep.sweep.experiments import Dataset, Model

_JOINED = r"(messages | map(attribute='content') | join('\n\n'))"


def main(id: str, revision: str | None = None) -> None:
    from gridsweep.train.model import offline_if_local, resolve

    model = Model(id, revision)
    offline_if_local(model, Dataset("stdlib"))
    where = resolve(model)
    from transformers import AutoTokenizer

    from gridsweep.train.samples import TEMPLATE

    options = {} if where != id or not revision else {"revision": revision}
    tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False, **options)
    template = None
    if not tokenizer.chat_template:
        # As it was trained: the special tokens the tokenizer puts first, then the prompt in the training's words.
        first = str(tokenizer.decode(tokenizer("")["input_ids"]))
        head, tail = TEMPLATE.split("{prompt}")
        # One expression, for Jinja drops a newline at the end of a template's text.
        template = f"{{{{ {first + head!r} ~ {_JOINED} ~ {tail!r} }}}}"
    print(json.dumps({"where": where, "chat_template": template}))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (GridsweepError, OSError, ValueError, ImportError) as error:
        sys.exit(f"error: {error}")
