import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from rlvr_world.errors import InputError
from rlvr_world.models.text_tokenizer import ANSWER, END, PAD, train_text_tokenizer

ROWS = [
    f'{{"name": "stove", "uuid": {i}, "properties": {{"isContainer": true, "temperature": {i * 7}}}}}, '
    for i in range(40)
]
TOKENIZER = train_text_tokenizer(ROWS, vocab_size=600)
FIELDS = train_text_tokenizer(ROWS, vocab_size=600, pieces="fields")


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_comes_back_exactly(text: str) -> None:
    marked = {END, PAD, ANSWER}
    if not any(mark in text for mark in marked):
        for tokenizer in (TOKENIZER, FIELDS):
            assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    "text", ["a , b .c 's n't", " \t\n\r  ", "é日本語🙂\u200d", "\x00\ufeff", "1,234.5", "½²٣", "<|END|>"]
)
def test_texts_that_other_tokenizers_change(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_a_run_that_comes_back_becomes_one_token() -> None:
    tokens = TOKENIZER.encode('"uuid": 123, "properties": {"isContainer": true, "temperature": 45')
    assert '"isContainer": true, ' in [TOKENIZER.decode([token]) for token in tokens]
    assert len(tokens) <= 9
    assert len(FIELDS.encode('{"name": "stove", ')) == 1


def test_strings_apart_are_the_same_tokens_wherever_they_stand() -> None:
    [name] = TOKENIZER.encode('"stove"')
    for text in ('{"name": "stove", "uuid": 3}', '["stove", "stove"]', '{"in": ["stove"], "to": "stove"}'):
        assert TOKENIZER.encode(text).count(name) == text.count("stove")


def test_special_tokens_are_one_id_each_and_encode_adds_none() -> None:
    assert [TOKENIZER.convert_tokens_to_ids(t) for t in (PAD, END, ANSWER)] == [0, 1, 2]
    assert TOKENIZER.eos_token == END
    assert TOKENIZER.pad_token == PAD
    assert TOKENIZER.encode(ANSWER) == [2]
    assert TOKENIZER.decode([*TOKENIZER.encode("x"), 2, 1, 0], skip_special_tokens=True) == "x"
    assert TOKENIZER.encode("") == []


def test_training_is_deterministic_and_saving_changes_nothing(tmp_path) -> None:
    again = train_text_tokenizer(iter(ROWS), vocab_size=600)
    assert again.get_vocab() == TOKENIZER.get_vocab()
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in [ROWS[3], "x , y 's ½ 日本 12", f"a{ANSWER}b{END}"]:
        assert loaded.encode(text) == TOKENIZER.encode(text)
        assert loaded.decode(loaded.encode(text)) == text
    assert (loaded.eos_token, loaded.pad_token, len(loaded)) == (END, PAD, len(TOKENIZER))


def test_a_vocabulary_too_small_for_the_bytes_is_refused() -> None:
    with pytest.raises(InputError, match=r"at least 259.*got 258"):
        train_text_tokenizer(ROWS, vocab_size=258)
