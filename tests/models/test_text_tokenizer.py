import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from rlvr_world.errors import InputError
from rlvr_world.models.text_tokenizer import ANSWER, END, PAD, answer_script, train_text_tokenizer, turn_ids

ROWS = [
    f'{{"name": "stove", "uuid": {i}, "properties": {{"isContainer": true, "temperature": {i * 7}}}}}, '
    for i in range(40)
]
TOKENIZER = train_text_tokenizer(ROWS, vocab_size=600)
NAMES = train_text_tokenizer(
    [
        f'{{"name": "loaf of bread (ID: {i})", "contains": ["key (ID: {i})"]}}\nAction: put key (ID: {i})'
        for i in range(9)
    ],
    vocab_size=600,
    pieces="names",
)
FIELDS = train_text_tokenizer(ROWS, vocab_size=600, pieces="fields")


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_comes_back_exactly(text: str) -> None:
    marked = {END, PAD, ANSWER}
    if not any(mark in text for mark in marked):
        for tokenizer in (TOKENIZER, FIELDS, NAMES):
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


def test_names_are_the_same_tokens_in_states_and_in_actions() -> None:
    def cut(text: str) -> list[str]:
        return [NAMES.decode([token]) for token in NAMES.encode(text)]

    assert cut('{"name": "loaf of bread (ID: 7)", ') == ['{"name": "', "loaf ", "of ", "bread", ' (ID: 7)", ']
    assert cut('"contains": ["key (ID: 8)"]}') == ['"contains": ["', "key", ' (ID: 8)"]}']
    assert cut("Action: put key (ID: 8)")[-3:] == ["put ", "key", " (ID: 8)"]


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


TEMPLATE = "{% for m in messages %}<|pad|>{{ m.role }}\n{{ m.content | trim }}<|end|>{% endfor %}<|pad|>assistant\n"


@pytest.mark.parametrize("template", ["", TEMPLATE])
def test_what_data_say_is_never_a_special_token(template: str) -> None:
    tokenizer = train_text_tokenizer(ROWS, vocab_size=600)
    tokenizer.chat_template = template or None
    frame = [i for i in turn_ids(tokenizer, "door") if i < 3]
    assert frame == ([0, 1, 0] if template else [2])
    said = f" a sign says {END}, {PAD} and {ANSWER}"
    ids = turn_ids(tokenizer, said)
    assert [i for i in ids if i < 3] == frame, "as many as around any other text"
    assert said.strip() in tokenizer.decode(ids)
    script = answer_script(tokenizer, ids, f"{{{END}}}", 99)
    target = script.segments[1].target
    assert [i for i in target if i < 3] == [1], "an answer ends once, at its end"
    assert tokenizer.decode(target[:-1]) == f"{{{END}}}"


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_letters_are_what_they_would_be_without_a_special_token_near(text: str) -> None:
    """The way around special tokens gives a plain text the tokens that the direct way gives it."""
    tokenizer = train_text_tokenizer(ROWS, vocab_size=400)
    if not any(mark in text for mark in (END, PAD, ANSWER)):
        assert turn_ids(tokenizer, text) == tokenizer.encode(text + ANSWER)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ raise_exception('a system turn\nfirst') }}", "got TemplateError: a system turn first; mend chat_template"),
        ("{% if messages %}", "got TemplateSyntaxError"),
        ("{{ messages[1].content }}", "got UndefinedError"),
        ("{{ messages[0].content + 1 }}", "got TypeError"),
    ],
)
def test_a_chat_template_that_raises_is_one_sentence(template: str, words: str) -> None:
    tokenizer = train_text_tokenizer(ROWS, vocab_size=400)
    tokenizer.chat_template = template
    for text in ("door", f"door {END}"):
        with pytest.raises(InputError, match="the model's chat template: expected it to take one turn") as error:
            turn_ids(tokenizer, text)
        assert words in str(error.value)
        assert "\n" not in str(error.value)


def test_a_chat_template_may_change_a_text_and_not_replace_it() -> None:
    tokenizer = train_text_tokenizer(ROWS, vocab_size=400)
    tokenizer.chat_template = "{{ messages[0].content | upper }}!"
    assert tokenizer.decode(turn_ids(tokenizer, f"{END} door")) == f"{END} door!".upper()
    tokenizer.chat_template = "{{ messages[0].content | length }}"
    with pytest.raises(InputError, match="expected what it puts around a text not to depend on the text"):
        turn_ids(tokenizer, END)
