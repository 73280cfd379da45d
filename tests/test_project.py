"""The project around the package: names, versions, and what may stand in its files."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import pymc_streaming
from pymc_streaming import errors

ROOT = Path(__file__).parents[1]

MODULES = [
    pymc_streaming.__name__,
    *(module.name for module in pkgutil.walk_packages(pymc_streaming.__path__, "pymc_streaming.")),
]


def as_ruff_sorts(name: str) -> tuple[bool, bool, str]:
    """Constants, then classes, then functions, each by the alphabet."""
    return (not name.isupper(), not name[0].isupper(), name)


@pytest.mark.parametrize("name", MODULES)
def test_all_is_sorted_and_true(name: str) -> None:
    module = importlib.import_module(name)
    names = list(getattr(module, "__all__", []))
    assert names == sorted(set(names), key=as_ruff_sorts)
    assert [name for name in names if not hasattr(module, name)] == []


def test_all_of_the_package_is_complete() -> None:
    public = {
        name
        for name, value in vars(pymc_streaming).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and getattr(value, "__module__", "").startswith("pymc_streaming")
    }
    assert public - set(pymc_streaming.__all__) == set()


def test_the_errors_docstring_draws_the_tree_that_is_there() -> None:
    drawn: dict[str, str | None] = {}
    ancestors: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        entry = re.match(r"([\s│├└─]*)(\w+(?:Error|Warning))(\s{2,}|$)", line)
        if entry is None:
            continue
        depth, name = len(entry[1]), entry[2]
        while ancestors and ancestors[-1][0] >= depth:
            ancestors.pop()
        drawn[name] = ancestors[-1][1] if ancestors else None
        ancestors.append((depth, name))

    defined = {
        name: value
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    actual = {
        name: next((base.__name__ for base in value.__bases__ if base in defined.values()), None)
        for name, value in defined.items()
    }
    assert drawn == actual
    assert set(errors.__all__) == set(defined)


def test_one_version() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert pymc_streaming.__version__ == declared
    assert importlib.metadata.version("pymc-streaming") == declared


def test_constraints_cover_every_requirement() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    wanted = [requirement for group in groups for requirement in group]
    pins = [
        line
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if not line.startswith("#")
    ]
    assert [
        pin for pin in pins if not re.match(r"[\w.-]+==[\w.]+( ; python_version .*)?$", pin)
    ] == []

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[^\w.-]", name)[0].replace("_", "-").lower() for name in requirements}

    assert names(wanted) - names(pins) == {"pymc-streaming"}


def test_no_file_names_a_place_on_one_machine() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so there is no telling which files belong to the project")
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    # Preceded by a letter or a slash it is the middle of a relative path or of a URL.
    place = re.compile(rb"(?<![\w./~$}>-])/(?:" + b"|".join([b"root", b"work", b"home"]) + rb")/")
    paths = [ROOT / name for name in listing.split("\0") if name]
    assert paths
    assert [
        path.relative_to(ROOT).as_posix()
        for path in paths
        if path.is_file() and place.search(path.read_bytes())
    ] == []


@pytest.fixture
def path_of_fakes(tmp_path: Path) -> Path:
    """A PATH on which `python3.13` is a shim that refuses to run."""
    shim = tmp_path / "bin" / "python3.13"
    shim.parent.mkdir()
    shim.write_text("#!/bin/sh\necho 'python3.13: command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    return shim.parent


def find_python(path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    shell = "/bin/sh"
    return subprocess.run(
        [shell, str(ROOT / "tools" / "find-python")],
        env={"PATH": str(path), "HOME": str(path)} | environment,
        check=False, capture_output=True, text=True,
    )  # fmt: skip


needs_shell = pytest.mark.skipif(os.name != "posix", reason="find-python is a POSIX shell script")


@needs_shell
def test_find_python_passes_over_a_shim_that_does_not_run(path_of_fakes: Path) -> None:
    python3 = path_of_fakes / "python3"
    python3.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python3.chmod(0o755)
    found = find_python(path_of_fakes)
    assert (found.returncode, found.stdout.strip()) == (0, sys.executable)


@needs_shell
def test_find_python_looks_into_pyenv(path_of_fakes: Path, tmp_path: Path) -> None:
    inside = tmp_path / "pyenv" / "versions" / "3.12.9" / "bin" / "python"
    inside.parent.mkdir(parents=True)
    inside.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    inside.chmod(0o755)
    found = find_python(path_of_fakes, PYENV_ROOT=str(tmp_path / "pyenv"))
    assert (found.returncode, found.stdout.strip()) == (0, sys.executable)


@needs_shell
def test_find_python_says_what_is_missing(path_of_fakes: Path) -> None:
    found = find_python(path_of_fakes, PYTHON="python9")
    assert found.returncode == 1
    assert found.stdout == ""
    assert "PYTHON=python9 is not" in found.stderr
    assert "needs CPython 3.12 or newer" in found.stderr


def test_a_fit_does_not_import_what_it_does_not_need() -> None:
    """scipy.stats and what it needs take 36 MB, matplotlib as much."""
    program = (
        "import sys; from pymc_streaming import DataLoader, Trainer, parquet_source;"
        "print({'scipy.stats', 'matplotlib', 'sklearn'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert run.stdout.strip() == "set()"


def test_what_is_guaranteed_is_tested() -> None:
    page = (ROOT / "docs/explanation/what-is-guaranteed.md").read_text()
    statements = [line for line in page.splitlines() if re.match(r"\| (?!guaranteed|---)", line)]
    assert len(statements) > 20
    for line in statements:
        named = re.findall(r"`(tests/\S+?\.py)::(\w+)`", line)
        assert named, line
        for path, name in named:
            assert f"def {name}(" in (ROOT / path).read_text(), f"{path} has no test {name}"
        for module in re.findall(r"`python -m (tests[.\w]+)`", line):
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module


def test_nothing_is_unpickled() -> None:
    """Pickles run code, and so may NumPy's files of objects."""
    wanted = re.compile(r"pickle|marshal|\bshelve|joblib|\bexec\(")
    for path in (ROOT / "pymc_streaming").rglob("*.py"):
        assert wanted.findall(path.read_text()) == [], path
