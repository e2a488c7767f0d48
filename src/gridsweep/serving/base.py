"""`python -m gridsweep.serving.base MODEL`: print a base model's folder and its missing chat template as JSON.

This is a separate program because converting a bundled model needs torch.
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
        # The template repeats the training format: the tokenizer's leading special tokens, then the training prompt.
        first = str(tokenizer.decode(tokenizer("")["input_ids"]))
        head, tail = TEMPLATE.split("{prompt}")
        # One expression, because Jinja drops a newline at the end of a template's text.
        template = f"{{{{ {first + head!r} ~ {_JOINED} ~ {tail!r} }}}}"
    print(json.dumps({"where": where, "chat_template": template}))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (GridsweepError, OSError, ValueError, ImportError) as error:
        sys.exit(f"error: {error}")
