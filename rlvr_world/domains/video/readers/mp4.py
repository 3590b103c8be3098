"""Frames out of mp4 files, by number: seek to the key frame before the one asked for, and decode from there.

Shape legend: T frames of the file in the order shown, K key frames, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from rlvr_world.errors import InputError


@dataclass(frozen=True)
class Video:
    """When the frames of an mp4 are shown, in ticks of ``seconds_per_tick``, and where decoding can start."""

    file: Path
    shown_T: np.ndarray
    key_K: np.ndarray
    """The numbers of the key frames."""
    seconds_per_tick: float

    def __len__(self) -> int:
        return len(self.shown_T)

    def frame_at(self, seconds: float) -> int:
        """The number of the frame shown nearest to this time."""
        return int(np.abs(self.shown_T * self.seconds_per_tick - seconds).argmin())


def open_video(file: Path, episode: str) -> Video:
    """Lists the frames of an mp4 without decoding any. Raises InputError for a file that is missing or broken."""
    where, packets, tick = f"{file}, episode {episode}", [], 0.0
    try:
        with av.open(str(file)) as container:
            for stream in container.streams.video[:1]:
                tick = float(stream.time_base or 0)
                for packet in container.demux(stream):
                    if packet.pts is not None and not packet.is_discard:
                        packets.append((packet.pts, packet.is_keyframe))
    except av.FFmpegError as error:
        raise InputError(f"{where}: not a readable mp4 ({error.strerror}); export it again") from None
    packets.sort()
    if not packets or not packets[0][1]:
        raise InputError(f"{where}: expected a video track that begins with a key frame, found none; export it again")
    shown, key = (np.array(values) for values in zip(*packets, strict=True))
    return Video(file, shown, np.flatnonzero(key), tick)


def read_frames(video: Video, steps: Sequence[int], episode: str, first: int = 0) -> np.ndarray:
    """The frames ``first + step``, uint8 [len(steps), H, W, 3], RGB; each is decoded once, in the order of the file.

    Raises InputError that names file, episode and step where a frame does not decode, or leans on one that does not: a
    decoder hides what it misses, and passes it on up to the next key frame, so all on the way must be whole.
    """
    pictures: dict[int, np.ndarray] = {}
    step, last = 0, -1
    frames: Iterator[av.VideoFrame] = iter(())
    try:
        with av.open(str(video.file)) as container:
            stream = container.streams.video[0]
            for step in sorted(set(steps)):
                key = int(video.key_K[np.searchsorted(video.key_K, first + step, side="right") - 1])
                if last < 0 or key > last + 1:
                    container.seek(int(video.shown_T[key]), stream=stream)
                    frames, last = container.decode(stream), key - 1
                while last < first + step:
                    last += 1
                    frame = _shown_at(frames, int(video.shown_T[last]))
                pictures[step] = frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, _DamagedError) as error:
        where = f"{video.file}, episode {episode}, step {step}"
        raise InputError(f"{where}: the frame does not decode ({error}); export the mp4 again") from None
    return np.stack([pictures[step] for step in steps])


class _DamagedError(Exception):
    """A frame that the decoder left out, or says it made up."""


def _shown_at(frames: Iterator[av.VideoFrame], tick: int) -> av.VideoFrame:
    """The frame shown at this tick; those before it, which a key frame may bring along, are passed over."""
    frame = next((frame for frame in frames if frame.pts is not None and frame.pts >= tick), None)
    if frame is None or frame.pts != tick or frame.is_corrupt:
        raise _DamagedError("it, or a frame that it builds on, is damaged")
    return frame
