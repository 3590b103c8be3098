"""Frames as the frozen tokenizer sees them: read at one size, encoded once and kept on disk, decoded in batches.

Shape legend: T frames, H height, W width, n tokens a frame, c tokens of the context frame (0 for the per-frame
tokenizer), U frames to decode, K records of w tokens each.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from rlvr_world.domains.video.episodes import Clip, Episodes, FramesInMemory
from rlvr_world.errors import InputError
from rlvr_world.system import ranks
from rlvr_world.system.ahead import ahead
from rlvr_world.system.files import digest
from rlvr_world.system.progress import track
from rlvr_world.types import Transition
from rlvr_world.vision.blocks import VisualTokenizer
from rlvr_world.vision.compressive_tokenizer import CompressiveTokenizer
from rlvr_world.vision.frame_tokenizer import FrameTokenizer
from rlvr_world.vision.loading import fingerprint

PIXELS = {"cpu": 2**16, "cuda": 2**22}
"""Pixels of frames that are worked on at once: 16 frames of 64x64 on a CPU, whose caches more would leave (decoding
took twice as long a frame with 64), 51 of 256x320 on a GPU."""
READ_AT_ONCE = 256
"""Frames that are read together when tokens are built: a video file is opened once for many of its frames."""
Key = tuple[int, ...]
"""What a record of tokens belongs to: an episode and the steps whose frames it holds."""


def read_frames(clip: Clip, size: tuple[int, int], fit: str = "squash") -> Tensor:
    """float32 [T, 3, H, W] in [0, 1], brought to ``size`` (height, width) as ``data.fit`` says: the one place where
    frames are resized."""
    frames = torch.from_numpy(clip.read()).permute(0, 3, 1, 2).float() / 255
    (H, W), (height, width) = frames.shape[-2:], size
    if size == (H, W):
        return frames
    if fit != "squash":
        some = max if fit == "letterbox" else min
        high, wide = some(H, max(1, round(W * height / width))), some(W, max(1, round(H * width / height)))
        top, left = (high - H) // 2, (wide - W) // 2  # negative for a crop, which pad takes
        frames = F.pad(frames, (left, wide - W - left, top, high - H - top))
    return F.interpolate(frames, size, mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)


def images_of(frames: Tensor) -> np.ndarray:
    """uint8 [T, H, W, 3] of frames [T, 3, H, W] in [0, 1], as cameras give them."""
    return (frames * 255).round().byte().movedim(1, -1).numpy()


def whole_clip(row: Transition) -> Clip:
    """The frames of a transition in order, state and next state; the state alone where no more is known."""
    state, after = row.state, row.next_state
    return state if after is None else Clip(state.episodes, state.episode, (*state.steps, *after.steps))


class TokenCache:
    """A frozen tokenizer at one frame size, and what it made of every clip, kept on disk.

    ``build`` encodes what ``lookup`` will be asked for; a clip that was not built is encoded when it is looked up, and
    may be kept then, if it is of a stored data set. The per-frame tokenizer's tokens are kept by frame, whatever clips
    it is in; the compressive one's by clip, because they depend on the context frame. A stopped ``build`` goes on where
    it was, and one with more rows adds what is new.
    """

    def __init__(self, tokenizer: VisualTokenizer, size: tuple[int, int], folder: Path, fit: str = "squash") -> None:
        """``size``: height and width of frames. InputError where the tokenizer does not divide it evenly."""
        self.tokenizer, self.size, self.folder = tokenizer.requires_grad_(False).eval(), size, folder
        self.fit, self.keeps, self.encodes, self.decodes = fit, False, torch.float32, torch.float32
        """``keeps``: also what is first looked up; the others: what is computed in (``encodes`` changes tokens)."""
        self.fingerprint = fingerprint(tokenizer)
        self.codebook, self.grid = tokenizer.codebook_size, tokenizer.grid(*size)
        self.context_codebook, self.context_tokens = 0, 0
        if isinstance(tokenizer, CompressiveTokenizer):
            self.grid = tokenizer.frame_grid
            self.context_codebook, self.context_tokens = tokenizer.context_fsq.size, tokenizer.context_tokens
        self.tokens = self.grid[0] * self.grid[1]
        self.device = next(tokenizer.parameters()).device
        self.at_once = max(1, PIXELS[self.device.type] // (size[0] * size[1]))
        """Frames that go through the tokenizer together."""
        self._tables: dict[tuple[int, int], _Table] = {}
        self._digest: Callable[[Any], str] = lru_cache(maxsize=8)(lambda episodes: digest(*episodes.files))

    def build(self, rows: Iterable[Transition], label: str = "tokens") -> None:
        """Encode all clips of ``rows`` that are not on disk yet, episodes shared among processes, until all are; a
        progress bar says ``label``."""
        wanted: dict[tuple[int, int], tuple[Episodes, set[Key]]] = {}
        for row in rows:
            clip = whole_clip(row)
            keys = self._keys(clip)
            wanted.setdefault((id(clip.episodes), len(keys[0])), (clip.episodes, set()))[1].update(keys)
        for name, (episodes, found) in wanted.items():
            table = self._table(episodes, name[1], create=True)
            assert table is not None
            own = {key for key in found if key[0] % ranks.size() == ranks.rank()}
            missing, size = table.missing(own), max(1, READ_AT_ONCE // (name[1] - 1))
            batches = [missing[i : i + size] for i in range(0, len(missing), size)]
            frames = ahead(partial(self._frames, episodes), batches)
            for batch in track(batches, f"{label} of {episodes.name}", "batches"):
                table.append(batch, self.encode(next(frames)))
        ranks.everyone(None)

    def read(self, clip: Clip) -> Tensor:
        """The frames of a clip as the tokenizer sees them, float32 [T, 3, H, W]."""
        return read_frames(clip, self.size, self.fit)

    def lookup(self, clip: Clip) -> tuple[Tensor, Tensor]:
        """int64 tokens of the context frame [c] and of the frames [T, n] (compressive: of those after the first)."""
        if isinstance(clip.episodes, FramesInMemory) and clip.episodes.tokens is not None:
            return torch.empty(0, dtype=torch.int64), clip.episodes.tokens[list(clip.steps)]
        keys = self._keys(clip)
        table = self._table(clip.episodes, len(keys[0]), create=self.keeps and bool(clip.episodes.files))
        if table and (missing := table.missing(keys)):
            table.append(missing, self.encode(self._frames(clip.episodes, missing)))
        records_Kw = table.read(keys) if table else self.encode(self._frames(clip.episodes, keys))
        context, frames = records_Kw[0, : self.context_tokens], records_Kw[:, self.context_tokens :]
        return context, frames.reshape(-1, self.tokens)

    @torch.no_grad()
    def decode(self, contexts: Sequence[Tensor], groups: Sequence[Tensor]) -> list[Tensor]:
        """Frames of each group of tokens [U, n] with its context's tokens [c]: float32 [U, 3, H, W] in [0, 1], CPU.
        Each context is decoded once, and all groups together in batches."""
        tokenizer = self.tokenizer
        frames: list[Tensor] = []
        with self._computing(self.decodes):
            if isinstance(tokenizer, FrameTokenizer):
                grids_Uhw = torch.cat(list(groups)).unflatten(1, self.grid).to(self.device)
                parts = [tokenizer.decode(part).clamp(0, 1).cpu() for part in grids_Uhw.split(self.at_once)]
                return list(torch.cat(parts).split([len(group) for group in groups]))
            assert isinstance(tokenizer, CompressiveTokenizer)
            size = max(1, self.at_once // max(map(len, groups), default=1))
            for start in range(0, len(groups), size):
                some = groups[start : start + size]
                given = torch.stack(list(contexts[start : start + size])).to(self.device)
                _, features = tokenizer.context_features(given)
                padded_GUn = pad_sequence(list(some), batch_first=True).to(self.device)
                split = padded_GUn.split(max(1, self.at_once // len(some)), 1)
                parts = [tokenizer.decode_frames(features, part).clamp(0, 1).cpu() for part in split]
                frames += [made[: len(group)] for made, group in zip(torch.cat(parts, 1), some, strict=True)]
        return frames

    def _keys(self, clip: Clip) -> list[Key]:
        if self.context_tokens:
            return [(clip.episode, *clip.steps)]
        return [(clip.episode, step) for step in clip.steps]

    def _frames(self, episodes: Episodes, keys: Sequence[Key]) -> Tensor:
        """float32 [K, t, 3, H, W] of the steps of each key; a frame of several keys in a row is read once."""
        found: dict[Key, Tensor] = {}
        for episode, some in groupby(keys, key=lambda key: key[0]):
            steps = tuple(sorted({step for key in some for step in key[1:]}))
            read = self.read(Clip(episodes, episode, steps))
            found |= {(episode, step): frame for step, frame in zip(steps, read, strict=True)}
        return torch.stack([torch.stack([found[key[0], step] for step in key[1:]]) for key in keys])

    @torch.no_grad()
    def encode(self, frames_Kt3HW: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """int64 [K, w] on the CPU, in ``encodes`` unless said otherwise."""
        tokenizer, records = self.tokenizer, []
        for part in frames_Kt3HW.split(max(1, self.at_once // frames_Kt3HW.shape[1])):
            with self._computing(dtype or self.encodes):
                part = part.to(self.device)
                compressive = isinstance(tokenizer, CompressiveTokenizer)
                found = tokenizer.encode(part) if compressive else [tokenizer.encode(part[:, 0])]
            records.append(torch.cat([tokens.flatten(1).cpu() for tokens in found], 1))
        return torch.cat(records)

    def _computing(self, dtype: torch.dtype) -> torch.autocast:
        return torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)

    def _table(self, episodes: Episodes, length: int, create: bool) -> _Table | None:
        """The file of a data set and a length of keys; None where there is none and none shall be."""
        name = (id(episodes), length)
        if name not in self._tables:
            path = self._path(episodes, length)
            if not create and not path.exists():
                return None
            width = self.context_tokens + (length - (2 if self.context_tokens else 1)) * self.tokens
            small = max(self.codebook, self.context_codebook) <= 2**16
            record = np.dtype([("key", "<i4", (length,)), ("tokens", "<u2" if small else "<i4", (width,))])
            self._tables[name] = _Table(path, record, episodes)
        return self._tables[name]

    def _path(self, episodes: Episodes, key_length: int) -> Path:
        """Changes with names, lengths and bytes of the episodes, the tokenizer and the size."""
        named = (episodes.name, list(episodes.ids), list(episodes.lengths), self._digest(episodes))
        computed = () if self.encodes == torch.float32 else (str(self.encodes),)
        about = (*named, self.fingerprint, self.size, self.fit, key_length, *computed)
        known = hashlib.sha256(repr(about).encode()).hexdigest()[:16]
        return self.folder / f"{re.sub(r'[^0-9A-Za-z_.+-]+', '-', episodes.name)}-{known}.tokens"


class _Table:
    """Records of tokens in a file that only grows. A record that was cut short at the end does not count."""

    def __init__(self, path: Path, record: np.dtype, episodes: Episodes) -> None:
        self.path, self.record = path, record
        self.episodes = episodes  # held, so that its id, by which the table is found, stays its own
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self._map: np.ndarray | None = None
        self._seen = 0
        self.place: dict[Key, int] = {}
        self._look()

    def _look(self) -> None:
        """Take note of the records that this process or another has added."""
        self._map = None
        keys = self._records()["key"]
        self.place |= ((tuple(keys[i].tolist()), i) for i in range(self._seen, len(keys)))
        self._seen = len(keys)

    def missing(self, keys: Collection[Key]) -> list[Key]:
        """Those that are not there, in order."""
        if not self.place.keys() >= set(keys):
            self._look()
        return sorted(set(keys) - self.place.keys())

    def append(self, keys: Sequence[Key], tokens_Kw: Tensor) -> None:
        records = np.empty(len(keys), self.record)
        records["key"], records["tokens"] = keys, tokens_Kw.numpy()
        with self.path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # processes that build the same tokens take turns
            file.seek(0, os.SEEK_END)
            file.truncate(file.tell() // self.record.itemsize * self.record.itemsize)  # of a writer that was killed
            file.write(records.tobytes())
        self._look()

    def read(self, keys: Sequence[Key]) -> Tensor:
        """int64 [K, w]."""
        records = self._records()[[self.place[key] for key in keys]]
        if [tuple(key) for key in records["key"].tolist()] != list(keys):
            raise InputError(f"{self.path}: its records are out of order; delete the file, it is made anew")
        return torch.from_numpy(records["tokens"].astype(np.int64))

    def _records(self) -> np.ndarray:
        if self._map is None:
            whole = self.path.stat().st_size // self.record.itemsize
            self._map = np.memmap(self.path, self.record, "r", shape=(whole,)) if whole else np.empty(0, self.record)
        return self._map
