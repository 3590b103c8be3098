"""A client of OpenAI-compatible servers: one that is busy is asked again, and what each request cost is kept."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rlvr_world.errors import Halted, InputError

TRIES, WAIT = 6, 1.0
"""How often a busy server is asked, and the seconds before it is asked again, which double each time."""


Reply = tuple[str, list[dict[str, float]]]
"""What a model said, its thinking to the end mark, where the server gives it apart, before its answer; and, where
``logprobs`` are asked for and given, of each token its log probability, by its text, then those of others there."""


@dataclass
class Chat:
    """A model behind a server; errors tell ``who`` it is."""

    who: str
    url: str
    model: str
    key: str = "OPENAI_API_KEY"
    """The environment variable that holds the server's key; one that is not set sends none."""
    spent: list[int] = field(default_factory=list)
    """The tokens of each request that was answered, prompt included; several may share the list."""
    answered: bool = False

    def __post_init__(self) -> None:
        import httpx  # an extra: only asking a server needs it

        key = os.environ.get(self.key)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(base_url=self.url, headers=headers, timeout=600)

    def ask(self, prompt: str | list[Any], **fields: Any) -> list[Reply]:
        """The replies to one request, of text or of the protocol's parts, pictures among them, with these ``fields`` of
        it, such as ``n``. A server that is busy or gone is asked again. Raises Halted where one that has answered
        before stays so, InputError for other faults."""
        import httpx

        request = {"model": self.model, "messages": [{"role": "user", "content": prompt}], **fields}
        fault, lost = None, False
        for wait in (0.0, *(WAIT * 2**n for n in range(TRIES - 1))):
            time.sleep(wait)
            try:
                reply = self._client.post("chat/completions", json=request).raise_for_status().json()
                first, *others = reply["choices"]  # ValueError where there is none
                replies = [_read(choice) for choice in (first, *others)]
                self.spent.append(int((reply.get("usage") or {}).get("total_tokens") or 0))
                self.answered = True
                return replies
            except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError) as error:
                fault, code = error, getattr(getattr(error, "response", None), "status_code", 0)
                lost = isinstance(error, httpx.TransportError) or code == 429 or code >= 500
                if not lost:
                    break
        said = " ".join(getattr(getattr(fault, "response", None), "text", "").split())[:200]
        raise (Halted if lost and self.answered else InputError)(
            f"{self.who} {self.model} at {self.url}: expected a chat completion, got {type(fault).__name__}: "
            f"{str(fault).partition(chr(10))[0]} {said}; check the url, the model's name and {self.key}"
        ) from fault


def _read(choice: Mapping[str, Any]) -> Reply:
    thought, answer = choice["message"].get("reasoning_content"), str(choice["message"]["content"] or "")
    said = (choice.get("logprobs") or {}).get("content") or ()
    tokens = [{one["token"]: float(one["logprob"]) for one in (at, *(at.get("top_logprobs") or ()))} for at in said]
    text = f"{thought}\n</think>\n\n{answer}" if thought else answer
    return text.encode(errors="replace").decode(), tokens  # half a character could not be written down
