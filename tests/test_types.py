import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_world.types import Given, Script, Write

ids = st.lists(st.integers(0, 90), max_size=4).map(tuple)
segments = st.lists(st.one_of(ids.map(Given), st.builds(Write, st.integers(1, 9), target=ids)), max_size=6)


@given(segments)
def test_prompt_and_tail_make_up_the_script(rest: list[Given | Write]) -> None:
    script = Script((Given((7,)), *rest))
    flat = [(token, False) for token in script.prompt]
    flat += zip(*script.target_ids(), strict=True)
    assert flat == [
        (token, isinstance(segment, Write))
        for segment in script.segments
        for token in (segment.ids if isinstance(segment, Given) else segment.target or ())
    ]
    assert not script.tail or isinstance(script.tail[0], Write)
    limits = sum(s.max_tokens if isinstance(s, Write) else len(s.ids) for s in script.segments)
    assert len(script.prompt) + script.max_response == limits


@pytest.mark.parametrize("segments", [(), (Write(3),), (Given(()), Write(3))])
def test_a_script_starts_with_something_to_read(segments: tuple[Given | Write, ...]) -> None:
    with pytest.raises(ValueError, match="starts with a Given segment"):
        Script(segments)


def test_a_target_is_needed_to_fit() -> None:
    with pytest.raises(ValueError, match="without a target"):
        Script((Given((1,)), Write(3, target=(4, 2)), Write(3))).target_ids()
