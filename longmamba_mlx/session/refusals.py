"""Tell an answer from a refusal to answer, whatever words a model has for it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from longmamba_mlx.inference.batched import ask_all, write_all
from longmamba_mlx.models.state import ModelState
from longmamba_mlx.session.text_model import TextModel
from longmamba_mlx.tokenization.prompt_format import PromptForm

MOST_TOKENS = 32  # of an answer that are looked at
_INVENTED = ("Qorvathelm Zinduwaith", "Threbblosk Vunquarry")  # names that no document and no model knows
_PLAIN_QUESTION = "What is the middle name of {name}?"

_TEXT = r"(?:documents?|texts?|passages?|contexts?|articles?|excerpts?|stor(?:y|ies)|chapters?|sources?)"
_DOES_NOT = r"(?:(?:do|does|did|is|has|can|could)(?: ?not|n['’]t)|never)"
_SAID = r"(?:mentioned|stated|specified|disclosed|indicated|provided)"
_ALSO_SAID = r"(?:given|described|named|known|found|said|told|available|clear|answered)"
# Each at the beginning of an answer. "It was never found." and "None." may be answers, and are not among them.
_PHRASES = (
    r"(?:i ?a?['’]?m )?(?:sorry|afraid|unable to)\b",
    r"i (?:do not|don['’]t|cannot|can['’]t|could not|couldn['’]t) (?:know|find|tell|answer|determine|say)\b",
    r"(?:error|unknown|unanswerable|unspecified|undisclosed|n/a|no idea)\W*$",
    r"(?:there (?:is|are) |the \w+ (?:has|contains?|gives?|provides?) )?"
    r"no (?:\w+ ){0,2}(?:information|mention|indication)\b",
    rf"(?:(?:it|this|that)(?: is|['’]s) |is )?not (?:\w+ly )?(?:{_SAID}|{_ALSO_SAID})\b(?! to)",
    rf"(?:the |this |that |your )?(?:\w+ )?{_TEXT} (?:above |itself )?(?:\w+ )?{_DOES_NOT} (?:\w+ )?"
    r"(?:say|tell|mention|state|specif|provid|contain|includ|indicat|giv|disclos|reveal|describ|address|answer|name)",
    rf".{{0,80}} (?:is|are|was|were) (?:not|never) (?:\w+ly )?"
    rf"(?:{_SAID}\b|{_ALSO_SAID} (?:in|by|from) .{{0,20}}{_TEXT})",
    r"(?:\w+ ){0,8}?(?:cannot|can['’]t|can not|could not) be (?:determined|inferred|answered)\b",
)
_REFUSAL = re.compile(rf"\W*(?:{'|'.join(_PHRASES)})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Refusals:
    """What a model says when it does not know: the phrases of its prompt form, the usual English ones, and its `own`
    words, normalised: those it gives to questions about invented names when it has read nothing."""

    form: PromptForm
    own: frozenset[str] = frozenset()

    def has(self, answer: str) -> bool:
        """Whether an answer is one of these, or empty."""
        return not self.form.found(answer) or _REFUSAL.match(answer) is not None or _normal(answer) in self.own


def refusals_of(model: TextModel) -> Refusals:
    """Ask a model that has read nothing about two invented names; what it says to both is its refusal."""
    form, encode = model.form, model.tokenizer.encode
    network = model.network
    state: ModelState = network.initial_state()
    if len(model.opening_ids):
        state = ask_all(network, state, 1, model.opening_ids).state
    said = []
    for name in _INVENTED:
        question = (form.known[0] if form.known else _PLAIN_QUESTION).replace("{name}", name)
        asked = ask_all(network, state, 1, encode(form.ask(question)))
        (ids,) = write_all(network, asked, [0], max_tokens=MOST_TOKENS, stop_ids=model.stop_ids)
        said.append(_normal(answer_text(model, ids).replace(name, "")))
    return Refusals(form, frozenset(said[:1]) - {""} if said[0] == said[1] else frozenset())


def answer_text(model: TextModel, ids: list[int]) -> str:
    """The answer that ids spell, up to a stop of the prompt form."""
    return model.form.finish(model.tokenizer.decode(ids).lstrip())[0].strip()


def _normal(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))
