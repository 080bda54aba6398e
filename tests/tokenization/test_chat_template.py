"""Chat templates: cut at the document, rendered in a sandbox, ignored where they are of no use."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from longmamba_mlx.documents import Document
from longmamba_mlx.registry.resolve import resolve
from longmamba_mlx.session.api import load
from longmamba_mlx.tokenization.chat_template import template_form
from longmamba_mlx.tokenization.prompt_format import PromptForm

CHATML = (
    "{% for message in messages %}{% if loop.first and message.role != 'system' %}<|im_start|>system\nBe brief."
    "<|im_end|>\n{% endif %}<|im_start|>{{ message.role }}\n{{ message.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INSTRUCT = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)


def form(folder: Path, template: object, **settings: object) -> PromptForm | None:
    table = {"chat_template": template, "bos_token": "<s>", "eos_token": {"content": "</s>"}, **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(table), encoding="utf-8")
    return template_form(folder)


def test_the_parts_around_the_document(tmp_path: Path) -> None:
    found = form(tmp_path, CHATML)
    assert found is not None
    assert found.opening == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"
    assert found.ask("Who?").endswith("Who?<|im_end|>\n<|im_start|>assistant\n")
    assert "The document does not say" in found.ask("Who?")
    assert found.ask("Who?", again=True) == "<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
    assert found.finish("one\ntwo") == ("one\ntwo", False), "a chat model ends its turn itself"


def test_passages_are_read_again_inside_the_turn(tmp_path: Path) -> None:
    found = form(tmp_path, CHATML)
    assert found is not None
    before, after = found.ask_after("Who?")
    assert (before, after) == ("", found.ask("Who?")), "they follow the document"
    before, after = found.ask_after("Who?", again=True)
    assert before == "<|im_end|>\n<|im_start|>user\n" and after.startswith("Who?")
    assert found.reread(["One.", "Two."]) == "\n\nOne.\n\nTwo.\n\n"
    assert PromptForm().ask_after("Who?", again=True) == ("", PromptForm().ask("Who?"))


def test_other_places_and_shapes_of_templates(tmp_path: Path) -> None:
    found = form(tmp_path, [{"name": "tool_use", "template": "x"}, {"name": "default", "template": INSTRUCT}])
    assert found is not None and found.opening == "<s>[INST] "
    assert found.ask("Who?", again=True) == "</s>[INST] Who? [/INST]"
    (tmp_path / "chat_template.jinja").write_text(CHATML, encoding="utf-8")
    assert template_form(tmp_path) != found, "the file of its own comes first"


@pytest.mark.parametrize(
    "template",
    [
        None, 3, [], [{"name": "other", "template": "x"}], "{% for %}", "{{ raise_exception('no') }}", "nothing of it",
        "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}",
        "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
        "{{ messages[0].content.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{% for i in range(10 ** 9) %}{% for j in range(10 ** 9) %}{% endfor %}{% endfor %}",
        "{{ 'x' * 10 ** 10 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
    ids=range(14),
)  # fmt: skip
def test_templates_of_no_use_or_ill_will(tmp_path: Path, template: object) -> None:
    started = time.monotonic()
    assert form(tmp_path, template) is None
    assert time.monotonic() - started < 5


def test_broken_settings(tmp_path: Path) -> None:
    assert template_form(tmp_path) is None
    for text in ("", "[]", "{", "[" * 100_000, '"x"'):
        (tmp_path / "tokenizer_config.json").write_text(text, encoding="utf-8")
        assert template_form(tmp_path) is None


def test_the_document_state_is_a_true_beginning_of_the_prompt(tmp_path: Path, story: str) -> None:
    """What is read before the document and what follows it are together the rendered template."""
    folder = tmp_path / "chat"
    shutil.copytree(resolve("demo"), folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config["longmamba"]["question"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    plain = load(str(folder)).read(Document("story", story))
    (folder / "chat_template.jinja").write_text(CHATML.replace("im_end", "end"), encoding="utf-8")
    model = load(str(folder))
    book = model.read(Document("story", story))
    assert model.form.opening and book.key.opening and not plain.key.opening and book.key != plain.key
    assert book.tokens == plain.tokens + len(model.tokenizer.encode(model.form.opening))
    end = int(model.tokenizer.encode("<|end|>")[0])
    assert end in model.stop_ids
    answer = book.ask("What is the access code of Zorvath?")
    assert answer.finish_reason in ("stop", "length") and "<|end|>" not in answer.text
    assert book.regions(4)[0].start == 0
