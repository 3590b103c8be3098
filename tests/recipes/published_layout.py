"""The published folders in small: configs, names, shapes, columns and prompt texts as on the Hugging Face hub."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from rlvr_world.training.visual_tokenizer import create_visual_tokenizer
from rlvr_world.vision.config import VisualTokenizerConfig

VOCABULARY = {"single": 4633, "multi": 9008}
DUMMY_TOKENS = 128_256
"""Entries of the Llama-3 text tokenizer that lies beside the video models and that nothing uses."""
EXTREMES = [
    *[(-0.396, 0.396), (-0.0097, 0.0037), (-0.4, 0.3999), (-1.0, 1.0), (-1.57, 1.5707), (-1.5699, 1.5321)],
    *[(-1.5705, 1.5692), (0.0, 1.0), (0.0, 1.0), (0.0, 1.0), (-2.02, 2.998), (-5.498, 22.09), (-2.03, 2.75)],
]


def rt1_world_model(folder: Path, kind: str, seed: int = 0) -> Path:
    """``rt1-world-model-<kind>-step-*``: a Llama over codes, no codec in its config, and a dummy text tokenizer."""
    size = VOCABULARY[kind]
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=8192,
        bos_token_id=size - 2,
        eos_token_id=size - 1,
        tie_word_embeddings=False,
        rms_norm_eps=1e-6,
        initializer_range=0.3,  # so that tokens are told apart
    )
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(folder)
    words = {f"<w{i}>": i for i in range(DUMMY_TOKENS)}
    text = Tokenizer(models.WordLevel(words, unk_token="<w0>"))
    PreTrainedTokenizerFast(tokenizer_object=text, eos_token="<w1>", unk_token="<w0>").save_pretrained(folder)
    return folder


def visual_tokenizer(folder: Path, kind: str) -> Path:
    """``rt1-frame-tokenizer`` or ``rt1-compressive-tokenizer`` with narrow halves: 320 or 1280 + 80 tokens of 4375."""
    single = kind == "single"
    widths = (8, 8, 8, 8, 8) if single else (8, 8, 32, 32)
    settings = VisualTokenizerConfig(
        kind="frame" if single else "compressive", widths=widths, layers=1, latent=8, groups=4
    )
    create_visual_tokenizer(settings, 256, 320, 0).save_pretrained(str(folder))
    return folder


def action_ranges(file: Path) -> Path:
    """``frac_action_ranges.pth``: a float32 tensor [13, 2] that torch has pickled."""
    torch.save(torch.tensor(EXTREMES), file)
    return file


def rt1_episodes(folder: Path, count: int = 3, frames: int = 10) -> Path:
    """``<split>_eps_<8 digits>.npz`` with frames of 256 x 320 and actions of 13 fields."""
    folder.mkdir(parents=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        blocks = rng.integers(0, 255, (frames, 8, 10, 3), np.uint8)
        low, high = np.array(EXTREMES).T
        np.savez_compressed(
            folder / f"train_eps_{number:08d}.npz",
            image=np.kron(blocks, np.ones((1, 32, 32, 1), np.uint8)),
            action=rng.uniform(low, high, (frames, 13)),
        )
    return folder


def rlds(folder: Path, name: str, version: str, splits: Mapping[str, Sequence[Sequence[dict[str, Any]]]]) -> Path:
    """A data set as tensorflow_datasets writes it: of each split some files of episodes, which are byte strings,
    floats and integers by the paths of their fields."""
    folder = folder / name / version
    folder.mkdir(parents=True)
    for split, files in splits.items():
        for number, episodes in enumerate(files):
            file = folder / f"{name}-{split}.tfrecord-{number:05d}-of-{len(files):05d}"
            records = [_message((1, b"".join(_message((1, _feature(*each))) for each in e.items()))) for e in episodes]
            file.write_bytes(b"".join(struct.pack("<QI", len(r), 0) + r + bytes(4) for r in records))
    told = [{"name": split, "shardLengths": [str(len(f)) for f in files]} for split, files in splits.items()]
    (folder / "dataset_info.json").write_text(json.dumps({"name": name, "version": version, "splits": told}))
    return folder


def _feature(key: str, values: Any) -> bytes:
    """A field of a ``tf.train.Example``: its name, and a list of one of three kinds."""
    if isinstance(values, list):
        kind, data = 1, b"".join(_message((1, value)) for value in values)
    elif values.dtype == np.float32:
        kind, data = 2, _message((1, values.astype("<f4").tobytes()))
    else:
        kind, data = 3, _message((1, b"".join(_varint(int(value) % 2**64) for value in values)))
    return _message((1, key.encode()), (2, _message((kind, data))))


def _message(*fields: tuple[int, bytes]) -> bytes:
    return b"".join(_varint(number << 3 | 2) + _varint(len(data)) + data for number, data in fields)


def _varint(value: int) -> bytes:
    head = bytes([value & 127 | (128 if value > 127 else 0)])
    return head + _varint(value >> 7) if value > 127 else head


CHAT = (
    "{{ bos_token }}{% for m in messages %}<|User|>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
)


def language_model(folder: Path, positions: int = 32_768) -> Path:
    """A language model such as R1-Distill-Qwen and what was trained from it: safetensors, a byte-level BPE, a template
    that opens the turn's reasoning."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|end|>", "<|begin|>", "<|User|>", "<|Assistant|>"]
    bpe = Tokenizer(models.BPE({token: i for i, token in enumerate([*special, *letters])}, []))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    bpe.add_special_tokens([AddedToken(token, special=True) for token in special])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=special[0], bos_token=special[1])
    tokenizer.chat_template = CHAT
    config = Qwen2Config(
        vocab_size=len(tokenizer) + 12,  # as there: more rows than tokens
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=positions,
        tie_word_embeddings=False,
        eos_token_id=0,
        bos_token_id=1,
    )
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def game_prompt(state: str, base: int, action: str, task: str) -> str:
    """The parts of a published text-game prompt, in short: an example with its own lines, then the game."""
    example = f"Example game task description:\nWash it.\nThe current game UUID base is {base + 90}\n"
    game = f"Task Description:\n{task}\nHere is the game state:\n{state}\n\nThe current game UUID base is {base}\n"
    return f"You simulate.\n{example}{game}The action to take is:\n{action}\n\nBegin with 'The final answer is:'.\n"


def game_record(row: dict[str, Any], index: int) -> dict[str, Any]:
    """A ByteSized32 row as ``bytesized32-world-model-cot`` has it."""
    before, after = (
        {"game_state": [*row[state]["objects"], row[score]]}
        for state, score in (("current_state", "current_score_state"), ("tick_state", "next_score_state"))
    )
    action, first = row["tick_state"]["lastAction"], row["current_state"]
    prompt = game_prompt(str(before), first["max_UUID"], action, first["taskDesc"])
    return {
        "data_source": "llm_simulator",
        "prompt": [{"content": prompt, "role": "user"}],
        "ability": "next state prediction",
        "reward_model": {"ground_truth": json.dumps(after), "style": "rule"},
        "extra_info": {
            "data_action": action,
            "data_state": json.dumps(before),
            "index": index,
            "split": "train",
        },
    }


def taught(record: dict[str, Any]) -> dict[str, Any]:
    """The same as ``generated_cot.parquet`` has it: a teacher's text in the place of the next state."""
    answer = 'It stays.\n</think>\n\nThe final answer is:\n```json\n{"modified": [], "removed": [], "score": {}}\n```'
    return {**record, "reward_model": {"ground_truth": answer, "style": "rule"}}


def page_record(number: int, action: str = "click [3]", indent: str = "\t") -> dict[str, Any]:
    """A row of ``webarena-world-model-cot``."""
    tabs = "Tab 0 (current): Shop | Tab 1: Help"
    nodes = [
        f"[1] RootWebArea 'Shop {number}'",
        f"{indent}[2] textbox 'Find' required: False",
        f"{indent}[3] link 'Cart'",
    ]
    before = "\n".join([tabs, "", *nodes])
    after = before.replace("link 'Cart'", "link 'Cart' focused: True")
    said = 'Attempt to perform "click" on element "[7]" but no matching element found'
    prompt = (
        "You predict pages.\nAn example:\nNew items:\nNone\n\nHere's the task for you:\nURL: http://shop/\n "
        f"OBJECTIVE: Buy shoes\n PREVIOUS ACTION: {said}\n CURRENT OBSERVATION: {before}\n CURRENT ACTION: {action}\n"
        " \n Please give the result directly in the format of the next state prediction."
    )
    truth = "New items:\nNone\n\nDeleted items:\nNone\n\nUpdated items:\n[3] link 'Cart' focused: True"
    return {
        "task_id": number,
        "step_idx": number % 5,
        "previous_actions": [said],
        "next_state_acctree": after,
        "refined_tao": "1. focus",
        "raw_prediction": "[Rationale] It is clicked. [Next State] It gets the focus.",
        "next_state_description_with_tao": "It gets the focus.",
        "new_items": "None",
        "updated_items": "[3] link 'Cart' focused: True",
        "deleted_items": "None",
        "question": prompt,
        "answer": f"[Rationale] It is clicked.\n{truth}",
        "data_source": "web_agent",
        "prompt": [{"content": prompt, "role": "user"}],
        "ability": "web_agent",
        "reward_model": {"ground_truth": truth, "style": "rule"},
        "extra_info": {"index": number, "split": "train"},
    }


def parquet(file: Path, records: Sequence[dict[str, Any]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(records)), file)
    return file


TOY_GAME = """
import random

UUID, randomSeed = 0, 3


class Thing:
    def __init__(self, name):
        global UUID
        self.uuid, self.contains, self.properties = UUID, [], {"heat": 0}
        self.name = f"{name} (ID: {UUID})"
        UUID += 1

    def getAllContainedObjectsRecursive(self):
        return [one for thing in self.contains for one in (thing, *thing.getAllContainedObjectsRecursive())]


class Oven(Thing):
    pass


class TextGame:
    def __init__(self, randomSeed):
        global UUID
        UUID = 0
        self.random = random.Random(randomSeed)
        self.rootObject, self.observationStr = Thing("kitchen"), "A kitchen."
        self.rootObject.contains = [Thing("agent"), Oven("oven")]
        self.score, self.gameOver, self.gameWon = 0, False, False

    def generatePossibleActions(self):
        print("what can be done")  # games print
        oven = self.rootObject.contains[1]
        bake = {f"bake {oven.name}": (self.bake, oven)}
        return {"look around": 0, "look": 0, **bake, "take yourself": 0, "look at oven": 0}

    def bake(self, oven):
        oven.contains.append(Thing("bread"))
        oven.properties["heat"] = self.random.randint(1, 9)

    def actionLook(self):
        return "You look."

    def actionInventory(self):
        return "Nothing."

    def getTaskDescription(self):
        return "Bake two breads."

    def step_action(self, action):
        if action.startswith("bake"):
            self.bake(self.rootObject.contains[1])

    def step_tick(self):
        for thing in self.rootObject.contains[1].contains:
            thing.properties["heat"] += 1

    def step_calculate_score(self):
        self.score = len(self.rootObject.contains[1].contains)
        self.gameOver = self.gameWon = self.score == 2

    def step(self, action):
        self.step_action(action)
        self.step_tick()
        self.step_calculate_score()
"""


def gpt_simulator(folder: Path, game: str = TOY_GAME) -> Path:
    """A checkout of GPT-simulator with one game of the same API, its playthrough, split and rules."""
    files = {
        "data/games/toy.py": game,
        "data/playthroughs/toy-playthrough.txt": "> help\n> look\nYou look.\n" + "> bake oven (ID: 2)\n>\n" * 2,
        "experiments/sampled_states.json": json.dumps({"toy": [1, 5]}),
        **{
            f"rules/human_written_rules/{kind}_rules.json": json.dumps({"toy": f"{kind}s", "dishwasher": ""})
            for kind in ("object", "action", "score")
        },
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder
