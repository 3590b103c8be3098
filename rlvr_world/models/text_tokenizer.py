"""A byte-level BPE tokenizer trained on a domain's own texts, for models that are trained from scratch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Literal

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rlvr_world.errors import InputError
from rlvr_world.types import Given, Script, Write

TextTokenizer = PreTrainedTokenizerBase
"""What text models read and write with; transformers' word for it is tokenizer."""
PAD, END, ANSWER = "<|pad|>", "<|end|>", "<|answer|>"
SPECIAL_TOKENS = (PAD, END, ANSWER)
"""Ids 0, 1 and 2: padding, end of sequence, and the mark between a prompt and its answer."""

PIECES = {
    "fields": r"[^,]+,? ?|,",
    "strings": r'"[^"]*": [^",]*,? ?|"[^"]*"|, |[^",]+,? ?|,|"',
    "names": r" \(ID: \d+\)[^,(\s]*,? ?"
    r"|[A-Za-z'-]+(?= \(ID: \d)|[A-Za-z'-]+ (?=(?:[A-Za-z'-]+ )+\(ID: \d)"
    r"|(?:(?![A-Za-z'-]+(?: [A-Za-z'-]+)* \(ID: \d)[^,(])+,? ?|[,( ]",
    "pages": r"""(?: [A-Za-z]+: \w+)+|['"]? #| ?[A-Za-z]+ ['"]|['"]?\n|['"]|\d+| ?[^\s\d'"]+|\s""",
}
"""Where a text is cut before merging; only what lies inside a piece can become one token.

States are JSON: the same ``"key": value, `` runs come back in every row. ``fields`` cuts after each comma, so that
such a run can become a single token: a real text-game prompt has 101 tokens, where the usual cut at spaces and
punctuation makes 645. It suits worlds whose names recur. ``strings`` also sets string values apart (182 tokens),
so that a name is the same tokens wherever it stands: worlds that combine names anew are learnt by copying.
``names`` is ``fields`` with the words and the number of names such as ``loaf of bread (ID: 6)`` cut out, in states and
in actions: the shortest for worlds that are named so and combine names and numbers anew.
``pages`` is for lines such as ``button 'Go' focused: True #4``: role, each word of the name, all properties, number.
"""


def turn_ids(tokenizer: TextTokenizer, prompt: str) -> list[int]:
    """A prompt as a chat turn where the tokenizer has a template, else followed by its answer mark. Names of special
    tokens in it are data, and so letters. Raises InputError for a template that does not take such a turn."""
    if not tokenizer.chat_template:
        return [*tokenizer.encode(prompt, split_special_tokens=True), *_mark(tokenizer)]
    if not _special(tokenizer).search(prompt):
        return list(_turn(tokenizer, prompt, tokenize=True))
    whole, hole = _turn(tokenizer, prompt), "\N{OBJECT REPLACEMENT CHARACTER}"
    before, _, after = _turn(tokenizer, hole).partition(hole)
    said = whole.removeprefix(before).removesuffix(after)
    if before + said + after != whole:
        raise InputError("the model's chat template: expected what it puts around a text not to depend on the text")
    framing = (tokenizer.encode(part, add_special_tokens=False) for part in (before, after))
    return [*next(framing), *_letters(tokenizer, said), *next(framing)]


def _turn(tokenizer: TextTokenizer, text: str, tokenize: bool = False) -> Any:
    """The chat template's text, or its ids, of one turn of the user."""
    turn = [{"role": "user", "content": text}]
    try:
        return tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=tokenize, return_dict=False)
    except Exception as error:
        why, wanted = f"{type(error).__name__}: {' '.join(str(error).split())}", "it to take one turn of the user"
        said = f"the model's chat template: expected {wanted}, got {why:.200}; mend chat_template"
        raise InputError(said) from error


def _letters(tokenizer: TextTokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))


@lru_cache(maxsize=4)
def _mark(tokenizer: TextTokenizer) -> list[Any]:
    """The answer mark, where the tokenizer has one. Kept: each look into a vocabulary copies all of it."""
    return [tokenizer.convert_tokens_to_ids(ANSWER)] if ANSWER in tokenizer.get_vocab() else []


@lru_cache(maxsize=4)
def _special(tokenizer: TextTokenizer) -> re.Pattern[str]:
    """The names of special tokens."""
    names = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return re.compile("|".join(map(re.escape, names)) or r"(?!)")


def answer_script(tokenizer: TextTokenizer, prompt: Sequence[int], answer: str | None, max_response: int) -> Script:
    """A prompt, then the answer until the end mark; ``answer`` None is not known."""
    target = None if answer is None else (*_letters(tokenizer, answer), tokenizer.eos_token_id)
    return Script((Given(tuple(prompt)), Write(max_response, stop=ends(tokenizer), target=target)))


def know_ends(tokenizer: TextTokenizer, generation: GenerationConfig | None) -> None:
    """Have ``ends`` know those that the model's ``generation_config`` names besides the tokenizer's own."""
    named = generation.eos_token_id if generation is not None else None
    vars(tokenizer)["model_ends"] = tuple(named) if isinstance(named, list) else () if named is None else (named,)


def ends(tokenizer: TextTokenizer) -> tuple[int, ...]:
    """Every token that ends an answer, first the tokenizer's own, which answers are trained to end with."""
    return tuple(dict.fromkeys((tokenizer.eos_token_id, *getattr(tokenizer, "model_ends", ()))))


def answer_text(tokenizer: TextTokenizer, written: Sequence[Sequence[int]]) -> str:
    """The text of what was written into an ``answer_script``."""
    return str(tokenizer.decode(list(written[0]), clean_up_tokenization_spaces=False))


def train_text_tokenizer(
    texts: Iterable[str], vocab_size: int, pieces: Literal["fields", "strings", "names", "pages"] = "strings"
) -> PreTrainedTokenizerFast:
    """Train a tokenizer of at most ``vocab_size`` tokens on ``texts``; the same texts give the same tokenizer.

    Any Unicode text comes back exactly, as all 256 bytes are tokens, and ``encode`` adds no token.

    >>> tokenizer = train_text_tokenizer(['{"door": "open", "key": 12}'], vocab_size=400)
    >>> tokenizer.decode(tokenizer.encode('{"door": "shut"}'))
    '{"door": "shut"}'

    Raises InputError where ``vocab_size`` cannot hold the 256 bytes and the special tokens.
    """
    least = 256 + len(SPECIAL_TOKENS)
    if vocab_size < least:
        raise InputError(f"model.vocabulary: expected at least {least} (bytes and marks), got {vocab_size}; raise it")
    tokenizer, whole_pieces = Tokenizer(models.BPE()), pre_tokenizers.Split(Regex(PIECES[pieces]), "isolated")
    in_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([whole_pieces, in_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens=[ANSWER],
        clean_up_tokenization_spaces=False,
    )
