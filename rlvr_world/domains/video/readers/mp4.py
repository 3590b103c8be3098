"""Frames out of mp4 and mov files, by time: seek to the key frame before the one asked for, and decode from there.

Shape legend: T frames of the file in the order shown, K key frames, S steps of an episode, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from rlvr_world.domains.video.episodes import stacked
from rlvr_world.errors import InputError

_AGAIN = "export the episode again, or leave it out with data.skip_faulty=true"


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

    def at(self, seconds_S: np.ndarray, step: float, episode: str, first: int | None = None) -> np.ndarray:
        """The number of the frame that was shown at each time, int64 [S]: of those from ``first`` on, where the file's
        count says that they are the episode's, else the nearest. InputError names the first that is more than half a
        ``step`` (in seconds) away: of another rate, of another episode, or drifted."""
        shown_T = self.shown_T * self.seconds_per_tick
        after_S = np.searchsorted(shown_T, seconds_S).clip(1, max(1, len(self) - 1))
        nearer_S = seconds_S - shown_T[after_S - 1] > shown_T[after_S % len(self)] - seconds_S
        number_S = after_S - 1 + nearer_S if first is None else first + np.arange(len(seconds_S))
        found_S = shown_T[number_S.clip(0, len(self) - 1)]
        missed = np.flatnonzero(~(np.abs(found_S - seconds_S) <= step / 2))
        if len(missed):
            at = missed[0]
            wanted = f"a frame at {seconds_S[at]:.3f} s, give or take {step / 2:.3f}"
            got = f"one at {found_S[at]:.3f} s"
            raise InputError(f"{self.file}, episode {episode}, step {at}: expected {wanted}, found {got}; {_AGAIN}")
        return number_S


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


def read_frames(video: Video, steps: Sequence[int], episode: str, number_S: Sequence[int] | np.ndarray) -> np.ndarray:
    """The frames at these steps, uint8 [len(steps), H, W, 3], RGB; each is decoded once, in the order of the file.
    ``number_S`` says which frame of the file a step's is.

    Raises InputError that names file, episode and step where a frame does not decode, or leans on one that does not: a
    decoder hides what it misses, and passes it on up to the next key frame, so all on the way must be whole.
    """
    place = {int(number_S[step]): step for step in steps}
    pictures: dict[int, np.ndarray] = {}
    try:
        _decode(video, sorted(place), video.key_K, pictures)
    except (av.FFmpegError, _DamagedError):
        # Streams that refresh by stripes call frames keys from which nothing decodes: from the first one all does.
        rest = [number for number in sorted(place) if number not in pictures]
        try:
            _decode(video, rest, video.key_K[:1], pictures)
        except (av.FFmpegError, _DamagedError) as error:
            step = next(step for number, step in sorted(place.items()) if number not in pictures)
            where = f"{video.file}, episode {episode}, step {step}"
            raise InputError(f"{where}: the frame does not decode ({error}); export the mp4 again") from None
    return stacked([pictures[int(number_S[step])] for step in steps], f"{video.file}, episode {episode}")


def _decode(video: Video, numbers: Sequence[int], key_K: np.ndarray, pictures: dict[int, np.ndarray]) -> None:
    """The frames of these numbers, in order, into ``pictures``."""
    last = -1
    frames: Iterator[av.VideoFrame] = iter(())
    with av.open(str(video.file)) as container:
        stream = container.streams.video[0]
        for number in numbers:
            key = int(key_K[np.searchsorted(key_K, number, side="right") - 1])
            if last < 0 or key > last + 1:
                container.seek(int(video.shown_T[key]), stream=stream)
                frames, last = container.decode(stream), key - 1
            while last < number:
                last += 1
                frame = _shown_at(frames, int(video.shown_T[last]))
            pictures[number] = _upright(frame, video.file)


def _upright(frame: av.VideoFrame, file: Path) -> np.ndarray:
    """uint8 [H, W, 3] as players show it: phones store what the sensor saw, and a matrix that turns or mirrors it."""
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    picture = frame.to_ndarray(format="rgb24")
    if matrix is None:
        return picture
    a, b, c, d = np.frombuffer(matrix, np.int32)[[0, 1, 3, 4]].tolist()  # x' = a x + c y, y' = b x + d y
    if (a or d) and (b or c):
        raise InputError(f"{file}: expected frames turned by quarters, got another angle; export it as it is shown")
    (down, across), lying = ((b, c), True) if b else ((d, a), False)
    return (picture.swapaxes(0, 1) if lying else picture)[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]


class _DamagedError(Exception):
    """A frame that the decoder left out, or says it made up."""


def _shown_at(frames: Iterator[av.VideoFrame], tick: int) -> av.VideoFrame:
    """The frame shown at this tick; those before it, which a key frame may bring along, are passed over."""
    frame = next((frame for frame in frames if frame.pts is not None and frame.pts >= tick), None)
    if frame is None or frame.pts != tick or frame.is_corrupt:
        raise _DamagedError("it, or a frame that it builds on, is damaged")
    return frame
