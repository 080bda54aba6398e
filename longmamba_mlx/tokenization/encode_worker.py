"""The child process in which a tokenizer with patterns that could run away encodes: JSON in, JSON out.

Started as `python -m longmamba_mlx.tokenization.encode_worker`.
"""

from __future__ import annotations

from typing import Any, cast

from longmamba_mlx.tokenization.bounded_child import serve

_SECONDS = 4  # a tokenizer of 256,000 tokens loads and encodes in 1.6
_MEMORY = 500 << 20  # and takes 350 MB


def answer(task: dict[str, Any]) -> dict[str, object]:
    """Encode {tokenizer, text, special}: the ids, and the (start, end) characters of each token."""
    from tokenizers import Tokenizer

    from longmamba_mlx.tokenization.risks import switch_off_changes

    backend = Tokenizer.from_str(task["tokenizer"])
    switch_off_changes(backend)
    backend.encode_special_tokens = not task["special"]
    encoding = backend.encode(task["text"], add_special_tokens=False)
    return {"ids": encoding.ids, "spans": encoding.offsets}


if __name__ == "__main__":
    serve(cast("Any", answer), seconds=_SECONDS, memory=_MEMORY)
