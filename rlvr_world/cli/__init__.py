"""The command ``rlvr-world``: one verb a function. Nothing heavy is imported before a verb runs.

Exit codes: 0 done, 1 what was checked is not as it should be, 2 the input is wrong, 3 a guard or a full disk stopped
the run, 130 and 143 stopped by Ctrl-C or SIGTERM. From 2 on, one line on stderr says why.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rlvr_world import __version__
from rlvr_world.cli import data, diagnose, runs, use
from rlvr_world.cli.parser import Verbs, fail
from rlvr_world.errors import Halted, InputError, NonFinite, RankLost
from rlvr_world.system.memory import keep_memory

OWN = ("tensorboard", "trackio", "wandb", "mujoco", "metaworld")
EXTRAS = {
    **{name: name for name in OWN},
    **{"textworld": "textgame", "httpx": "teacher", "trl": "peers", "gym_pusht": "pusht", "gcsfs": "rlds"},
    **dict.fromkeys(("gguf", "accelerate"), "smollm"),
    **dict.fromkeys(("diffusers", "av", "h5py"), "video"),
    **dict.fromkeys(("playwright", "miniwob", "scipy", "requests"), "web"),
    **dict.fromkeys(("starlette", "uvicorn"), "serve"),
    **dict.fromkeys(("msgpack", "websockets"), "openpi"),
}
"""Which extra of this package brings an optional module."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    if os.name == "nt":
        return fail("Windows: expected a POSIX system, whose locks and signals runs stand on; use WSL")
    # Threads that wait spin for a moment, then sleep. By default (300,000 turns) a step beside other work takes
    # ten times longer; if they slept at once (PASSIVE), one on an idle machine would take twice as long.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    keep_memory()
    _let_print()
    args = argparse.Namespace()
    try:
        args = parse(sys.argv[1:] if argv is None else argv)
        code = args.verb(args) or 0
        sys.stdout.flush()
        return code
    except InputError as error:
        return fail(str(error))
    except (Halted, NonFinite) as error:
        return fail(str(error), code=3)
    except RankLost as error:
        return fail(str(error), code=1)
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRAS:
            raise
        extra = EXTRAS[module]
        return fail(f"this needs the package {module}, which is not installed; pip install 'rlvr-world[{extra}]'")
    except BrokenPipeError:  # whoever read the output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return fail(_stopped("the output was closed", args), code=128 + 13)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return fail(f"no room is left on the disk ({error}); make room and repeat the command", code=3)
        if error.errno is None:  # some libraries' own errors
            raise
        place = f"{error.filename}: " if error.filename else ""
        return fail(f"{place}{error.strerror}; check the path, who owns it, and whether it may be read and written")
    except RuntimeError as error:
        if "home directory" not in str(error):  # what pathlib says of ~
            raise
        return fail("a path begins with ~, but there is no home folder; set HOME, or name data.cache=FOLDER")
    except KeyboardInterrupt as stop:
        print(_stopped("stopped", args), file=sys.stderr)
        return 128 + getattr(stop, "number", 2)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of one command; settings ``a.b=c`` may stand anywhere among them."""
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    wrong = [token for token in rest if token.startswith("-") or "=" not in token or "settings" not in args]
    if wrong:
        hint = "; settings are written a.b=c" if "settings" in args else ""
        parser.error(f"unrecognized arguments: {' '.join(wrong)}{hint}")
    if rest:
        args.settings = [*args.settings, *rest]
    return args


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rlvr-world",
        description="Train world models by reinforcement learning on verifiable rewards, and use them.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"rlvr-world {__version__}")
    verbs = Verbs(parser.add_subparsers(title="verbs", metavar="VERB", required=True))
    for group in (runs, use, diagnose, data):
        group.add_verbs(verbs)
    return parser


def _let_print() -> None:
    """No character and no closed stream is a reason to fail: what a terminal cannot show is escaped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for as long as the process lives
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _stopped(what: str, args: argparse.Namespace) -> str:
    run: Path | None = getattr(args, "run", None)
    whole = run is not None and (run / "config.json").is_file()
    return f"{what}; go on with: rlvr-world resume {run}" if whole else what
