"""Nothing that is read can run: no pickle, no eval, no code of a model's, and torch.load of weights alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "rlvr_world"
FORBIDDEN = {"eval", "exec", "compile", "__import__"}
KNOWN = {
    "dino_wm.py": ["pickle"],  # the name of an exception
    "packaged.py": ["pickle"],  # an unpickler that refuses every name but those of numpy arrays
}
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}


def uses(tree: ast.AST) -> list[str]:
    """What a file does that could run what it reads."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [name for name in names if name.split(".")[0] in MODULES]
        if isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "allow_pickle", "weights_only"):
            value = node.value.value if isinstance(node.value, ast.Constant) else None
            if value is not (node.arg == "weights_only"):
                found.append(f"{node.arg}={ast.unparse(node.value)}")
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in FORBIDDEN or name.endswith("_pickle"):
                found.append(name)
            if name == "torch.load" and not any(k.arg == "weights_only" for k in node.keywords):
                found.append(name)
            if name in ("os.system", "os.popen") or any(k.arg == "shell" for k in node.keywords):
                found.append(name)
    return found


def test_the_package_runs_nothing_that_it_reads() -> None:
    found = {
        file.name: uses(ast.parse(file.read_text())) for file in PACKAGE.rglob("*.py") if file.name != "__init__.py"
    }
    assert len(found) > 50
    assert {file: names for file, names in found.items() if names} == KNOWN


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "eval(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "AutoModel.from_pretrained(x, trust_remote_code=flag)",
        "subprocess.run(text, shell=True)",
        "pandas.read_pickle(path)",
    ],
)
def test_the_search_finds(line: str) -> None:
    assert uses(ast.parse(line))
