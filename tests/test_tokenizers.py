import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from rlvr_world.errors import InputError
from rlvr_world.tokenizers import ANSWER, END, PAD, train_tokenizer

ROWS = [
    f'{{"name": "stove", "uuid": {i}, "properties": {{"isContainer": true, "temperature": {i * 7}}}}}, '
    for i in range(40)
]
TOKENIZER = train_tokenizer(ROWS, vocab_size=600)


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_comes_back_exactly(text: str) -> None:
    marked = {END, PAD, ANSWER}
    if not any(mark in text for mark in marked):
        assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@pytest.mark.parametrize(
    "text", ["a , b .c 's n't", " \t\n\r  ", "é日本語🙂\u200d", "\x00\ufeff", "1,234.5", "½²٣", "<|END|>"]
)
def test_texts_that_other_tokenizers_change(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_digits_stand_alone_and_json_runs_merge() -> None:
    pieces = TOKENIZER.tokenize('"uuid": 123, "properties": {"isContainer": true, "temperature": 45}')
    digits = [p for p in pieces if any(c.isdigit() for c in p)]
    assert digits == list("12345")
    assert len(pieces) <= 12, pieces


def test_special_tokens_are_one_id_each_and_encode_adds_none() -> None:
    assert [TOKENIZER.convert_tokens_to_ids(t) for t in (PAD, END, ANSWER)] == [0, 1, 2]
    assert TOKENIZER.eos_token == END
    assert TOKENIZER.pad_token == PAD
    assert TOKENIZER.encode(ANSWER) == [2]
    assert TOKENIZER.decode([*TOKENIZER.encode("x"), 2, 1, 0], skip_special_tokens=True) == "x"
    assert TOKENIZER.encode("") == []


def test_training_is_deterministic_and_saving_changes_nothing(tmp_path) -> None:
    again = train_tokenizer(iter(ROWS), vocab_size=600)
    assert again.get_vocab() == TOKENIZER.get_vocab()
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in [ROWS[3], "x , y 's ½ 日本 12", f"a{ANSWER}b{END}"]:
        assert loaded.encode(text) == TOKENIZER.encode(text)
        assert loaded.decode(loaded.encode(text)) == text
    assert (loaded.eos_token, loaded.pad_token, len(loaded)) == (END, PAD, len(TOKENIZER))


def test_a_vocabulary_too_small_for_the_bytes_is_refused() -> None:
    with pytest.raises(InputError, match=r"at least 259.*got 258"):
        train_tokenizer(ROWS, vocab_size=258)
