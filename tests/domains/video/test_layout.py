from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from rlvr_world.domains.video.actions import ActionBins
from rlvr_world.domains.video.layout import Codec, VideoLayout
from rlvr_world.errors import InputError
from rlvr_world.types import Given, Malformed, Script, Write

SINGLE = ["single_tiny", "single_small", "single_two_targets", "single_real_size"]
MULTI = ["multi_tiny", "multi_small", "multi_real_size"]


def golden_scripts(shared: Path, name: str) -> tuple[VideoLayout, list[Script], dict[str, Tensor], dict[str, Any]]:
    """The layout of a reference case, our scripts of its inputs, its tensors and its settings."""
    folder = shared / "golden" / "given"
    case = json.loads((folder / "sequences.json").read_text())[name]
    whole = load_file(folder / "sequences.safetensors")
    tensors = {key.removeprefix(f"{name}."): t for key, t in whole.items() if key.startswith(f"{name}.")}
    multi = case["kind"] == "multi_step"
    actions_BFA = tensors["actions"][:, 1:] if multi else tensors["actions"]
    low, high = tensors["action_ranges"].T.tolist()
    bins = ActionBins(tuple(low), tuple(high), case["action_bins"])
    frames = case["frames_after_context"] if multi else case["segment_length"]
    context = 1 if multi else case["context_length"]
    layout = VideoLayout(
        case["kind"],
        visual=case["visual_token_num"],
        tokens=tensors["tokens"][0, 0].numel(),
        action_width=case["actions_per_frame"],
        context_visual=case["visual_token_num"] if multi else 0,
        context_tokens=tensors["context_tokens"].shape[-1] if multi else 0,
        context=context,
        horizon=frames - context,
        action_bins=case["action_bins"],
    )
    scripts = [
        layout.script(
            tensors["tokens"][i].flatten(1).long(),
            torch.from_numpy(bins.bins_of(actions_BFA[i].numpy())),
            tensors["context_tokens"][i, 0].long() if multi else None,
        )
        for i in range(len(actions_BFA))
    ]
    return layout, scripts, tensors, case


@pytest.mark.parametrize("name", SINGLE + MULTI)
def test_sequences_are_those_of_the_published_code(shared: Path, name: str) -> None:
    layout, scripts, tensors, case = golden_scripts(shared, name)
    assert (layout.bos, layout.eos) == (case["bos_token_id"], case["eos_token_id"])
    for script, ids, labels in zip(scripts, tensors["input_ids"], tensors["labels"], strict=True):
        response, written = script.target_ids()
        assert (*script.prompt, *response) == tuple(ids.tolist())
        assert layout.max_length == len(ids)
        assert len(script.prompt) == case["prompt_length"]
        # The published code also fits BOS and EOS, which legal-token masks make constants.
        labelled = (labels != -100) & (ids != layout.bos) & (ids != layout.eos)
        assert [False] * len(script.prompt) + list(written) == labelled.tolist()


def test_published_sizes(shared: Path) -> None:
    layout, scripts, _, _ = golden_scripts(shared, "multi_real_size")
    sampled = sum(isinstance(s, Write) and s.max_tokens for s in scripts[0].tail)
    assert (layout.vocabulary, layout.context_offset, layout.action_offset) == (9008, 4375, 8750)
    assert (sampled, scripts[0].max_response - sampled) == (560, 91)
    layout, scripts, _, _ = golden_scripts(shared, "single_real_size")
    assert (layout.vocabulary, layout.max_length, scripts[0].max_response) == (4633, 1654, 321)


sizes = st.integers(1, 3)


@given(st.booleans(), st.booleans(), sizes, sizes, sizes, sizes, st.integers(0, 2), st.booleans())
def test_any_size_reads_back_what_it_wrote(
    multi: bool, far: bool, n: int, A: int, S: int, horizon: int, P: int, first: bool
) -> None:
    far = far and multi
    S = 1 if far else S
    kind: Literal["single_step", "multi_step"] = "multi_step" if multi else "single_step"
    layout = VideoLayout(kind, 5, n, A, 7 * far, 4 * far, S, horizon, 6, P, first)
    tokens, actions = torch.randint(5, (S + horizon, n)), torch.randint(6, (S + horizon, A))
    proprio, context = torch.randint(6, (S + horizon, P)), torch.randint(7, (4 * far,))
    script = layout.script(tokens, actions, context, proprio)
    assert len(script.prompt) + script.max_response == layout.max_length
    writes = [s for s in script.tail if isinstance(s, Write)]
    for write in writes:
        assert write.allowed is not None
        assert write.target is not None
        assert set(write.target) <= set(write.allowed)
        assert len(write.target) == write.max_tokens
    read = layout.read([w.target for w in writes if w.target])
    assert not isinstance(read, Malformed)
    assert list(map(list, read[0])) == tokens[S:].tolist()
    assert [list(p) for p in read[1]] == (proprio[S:].tolist() if P else [])
    unknown = layout.script(tokens[:S], actions, context, proprio[:S])
    assert [replace(w, target=None) for w in writes] == [s for s in unknown.tail if isinstance(s, Write)]
    assert unknown.prompt == script.prompt


def test_proprioception_follows_its_frame_on_both_sides() -> None:
    layout = VideoLayout("single_step", visual=10, tokens=2, action_width=1, context=2, action_bins=4, proprio_width=1)
    tokens, ones = torch.tensor([[1, 2], [3, 4], [5, 6]]), torch.ones(3, 1, dtype=torch.int64)
    script = layout.script(tokens, ones * 0, proprio_FP=ones * 3)
    assert script.segments == (
        Given((1, 2, 13, 10, 3, 4, 13, 10, layout.bos)),
        Write(2, allowed=range(10), target=(5, 6)),
        Write(1, allowed=range(10, 14), target=(13,)),
        Given((layout.eos,)),
    )


def test_proprioception_can_come_before_its_frame() -> None:
    layout = VideoLayout("single_step", 10, 2, 1, context=2, action_bins=4, proprio_width=1, proprio_first=True)
    tokens, ones = torch.tensor([[1, 2], [3, 4], [5, 6]]), torch.ones(3, 1, dtype=torch.int64)
    script = layout.script(tokens, ones * 0, proprio_FP=ones * 3)
    given, felt, frame = Given((13, 1, 2, 10, 13, 3, 4, 10, layout.bos)), Write(1, allowed=range(10, 14)), range(10)
    assert script.segments[:3] == (given, replace(felt, target=(13,)), Write(2, allowed=frame, target=(5, 6)))
    step = layout.next_frame(((1, 2), (3, 4)), ((0,), (0,)), ((3,), (3,)))
    assert step.segments == (given, felt, Write(2, allowed=frame))
    assert layout.read([(13,), (5, 6)]) == (((5, 6),), ((3,),))
    assert isinstance(layout.read([(5, 6), (13,)]), Malformed)


def test_what_stays_at_its_place_is_one_id() -> None:
    layout = VideoLayout("single_step", 10, 3, 1, context=1, action_bins=4, same=True)
    assert (layout.context_offset, layout.action_offset, layout.vocabulary) == (11, 11, 17)
    script = layout.script(torch.tensor([[1, 2, 3], [1, 5, 3]]), torch.zeros(2, 1, dtype=torch.int64))
    assert script.segments[:2] == (Given((1, 2, 3, 11, layout.bos)), Write(3, allowed=range(11), target=(10, 5, 10)))
    assert layout.read([(10, 5, 10)], before=(1, 2, 3)) == (((1, 5, 3),), ())
    assert layout.next_frame(((1, 2, 3),), ((0,),)).segments == (script.segments[0], Write(3, allowed=range(11)))


LAYOUT = VideoLayout("single_step", visual=10, tokens=2, action_width=1, context=1, action_bins=4)


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ([], "expected 1 written segments, got 0"),
        ([[1]], "frame 0: expected 2 tokens"),
        ([[1, 10]], "from 0 to 9"),
    ],
)
def test_what_no_mask_would_let_through_is_malformed(written: list[list[int]], why: str) -> None:
    read = LAYOUT.read(written)
    assert isinstance(read, Malformed)
    assert why in read.reason


@pytest.mark.parametrize(
    ("tokens", "actions", "why"),
    [
        ([[1, 2], [3, 10]], [[0], [0]], "frame tokens: the layout expects ids below 10, got 1 to 10"),
        ([[1], [3]], [[0], [0]], r"frame tokens: the layout expects \[2, 2\], got \[2, 1\]"),
        ([[1, 2], [3, 4]], [[0]], r"bins of actions: the layout expects \[2, 1\], got \[1, 1\]"),
        ([[1, 2], [3, 4]], [[0], [4]], "bins of actions: the layout expects ids below 4, got 0 to 4"),
    ],
)
def test_tokens_of_another_layout_are_refused(tokens: list[list[int]], actions: list[list[int]], why: str) -> None:
    with pytest.raises(InputError, match=why):
        LAYOUT.script(torch.tensor(tokens), torch.tensor(actions))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"kind": "both"}, "kind: expected single_step or multi_step"),
        ({"tokens": 0}, "tokens: expected at least 1, got 0"),
        ({"context_visual": 5}, "context_visual: expected only 0, got 5"),
        (
            {"kind": "multi_step", "context": 2, "context_tokens": 1, "context_visual": 1},
            "context: expected only 1, got 2",
        ),
        ({"kind": "multi_step", "context_tokens": 1}, "context_visual: expected at least 1, got 0"),
    ],
)
def test_sizes_that_make_no_layout_are_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        replace(LAYOUT, **change)


CODEC = Codec(LAYOUT, ActionBins((0.1,), (1.0,), 4), "abc", (64, 64))


def test_codec_survives_json() -> None:
    proprio = replace(LAYOUT, proprio_width=1)
    for codec in (CODEC, replace(CODEC, layout=proprio, proprio=ActionBins((0.0,), (512.0,), 4))):
        assert Codec.from_json(json.loads(json.dumps(asdict(codec))), "config.json") == codec
    old = asdict(CODEC)
    del old["layout"]["proprio_first"], old["layout"]["same"]
    assert Codec.from_json(old, "config.json") == CODEC
    for broken in (None, {}, {**asdict(CODEC), "layout": {}}, {**asdict(CODEC), "size": 64}):
        with pytest.raises(InputError, match=r"config\.json"):
            Codec.from_json(broken, "config.json")


def test_codec_refuses_what_does_not_belong_to_its_model() -> None:
    CODEC.check_visual_tokenizer(10, 0, "abc")
    CODEC.check_model(20)
    with pytest.raises(InputError, match=r"have 12 .* codes, the model's vocabulary has 10"):
        CODEC.check_visual_tokenizer(12, 0, "abc")
    with pytest.raises(InputError, match="fingerprint xyz, the model was trained with abc"):
        CODEC.check_visual_tokenizer(10, 0, "xyz")
    with pytest.raises(InputError, match="vocabulary has 15 ids, codebooks and action bins need 16"):
        CODEC.check_model(15)
    with pytest.raises(InputError, match="actions: the layout expects 1 fields in 4 bins, got ranges of 1 fields in 8"):
        replace(CODEC, actions=ActionBins((0.0,), (1.0,), 8))
    with pytest.raises(InputError, match="proprio: the layout expects 2 fields in 4 bins, got ranges of 0"):
        replace(CODEC, layout=replace(LAYOUT, proprio_width=2))
