"""Run the tests of the contract and of the adapters on other versions of what we build on; or resolve new pins.

The versions are laid over the environment: in a folder of packages before its own (PYTHONPATH), so that processes
which tests start see it, too. That overlay holds only what differs, and never a second torch.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lmms_eval_stgridpool.run.versions import TESTED, package_version

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
OVERLAYS = ROOT / ".venv" / "overlays"
NEWEST = ("transformers", "lmms-eval", "datasets", "accelerate", "filelock")
HUGGING_FACE = ("transformers", "huggingface-hub", "tokenizers", "safetensors")  # what another transformers may need
_TORCH = re.compile(r"^(torch|torchvision|triton|nvidia-.*|cuda-.*)$")
CONTRACT, ADAPTERS = "contract", "adapters"  # markers of tests
_FAILED = re.compile(
    r"^(?:FAILED|ERROR) (?P<file>\S+?\.py)(?:::test_(?P<test>\w+))?(?:\[(?P<case>.+?)\])?(?: - (?P<error>.*))?$",
    re.MULTILINE,
)
_ERROR = re.compile(r"^(?:E +)?((?:\w+\.)*\w*(?:Error|Exception)\b.*)$", re.MULTILINE)


class PackageIndexError(RuntimeError):
    """pip could not resolve or install what was asked for."""


def main() -> int:
    """Run what the command line names; the status is 0 if it went well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what",
        choices=["oldest", "newest", "resolve"],
        help="oldest: the tests on the oldest tested transformers. newest: on the newest of "
        f"{', '.join(NEWEST)} that the index serves. A line each is about the contract and the adapters for native "
        "models; further lines name each family that broke and the assumption that did not hold. "
        "resolve: print the lines of a new constraints.txt",
    )
    what = parser.parse_args().what
    try:
        return {"oldest": try_oldest, "newest": try_newest, "resolve": print_constraints}[what]()
    except PackageIndexError as failure:
        print(f"{what}: not run, {failure}")
        return 1


def try_oldest() -> int:
    """Run the tests on the oldest tested transformers and the huggingface_hub that goes with it."""
    (oldest,) = (one.version for one in TESTED["transformers"] if one.operator == ">=")
    pins = {name: pin for name, pin in read_pins().items() if name not in HUGGING_FACE}
    return run_tests("oldest", differing(resolve([f"transformers=={oldest}"], pins)))


def try_newest() -> int:
    """Run the tests on the newest versions that we and upstream allow, then say what is held back, and why."""
    bounds = {canonicalize_name(one.name): one for one in map(Requirement, project()["dependencies"])}
    pins = {name: pin for name, pin in read_pins().items() if _TORCH.match(name)}
    allowed = resolve([*project()["dependencies"], *project()["optional-dependencies"]["dev"]], pins)
    newest = resolve(NEWEST, {}, "--no-deps")
    different = {name: version for name, version in differing(allowed).items() if not _TORCH.match(name)}
    status = run_tests("newest", different) if different else 0
    if not different:
        print("newest: the index serves nothing newer than the pins")
    for name, version in newest.items():
        if version != allowed[name] and bounds[name].specifier.contains(version):
            print(f"newest: {name} {version} is out; the requirements of others allow {allowed[name]}")
        elif version != allowed[name]:
            status |= run_tests("newest", different | {name: version}, "command_line")
            print(f"newest: pyproject.toml holds {name} {version} back: {bounds[name].specifier}")
    return status


def print_constraints() -> int:
    """Print the newest versions that pyproject.toml and its dependencies allow each other."""
    print("# What scripts/update_constraints.sh resolved, and the suite was run on.")
    wanted = [*project()["dependencies"], *project()["optional-dependencies"]["dev"], "pip"]
    for name, version in sorted(resolve(wanted, {}).items()):
        print(f"{name}=={version}")
    return 0


def run_tests(title: str, versions: Mapping[str, str], only: str = "") -> int:
    """Run the tests with these versions laid over the environment, the contract beside the adapters, and report.

    Args:
        title: Beginning of each line.
        versions: What is laid over, by package.
        only: Stop at the first failure of the contract's tests with this name, run no others, and print no more than
            the line.

    Returns:
        0 if all passed.
    """
    markers = [CONTRACT] if only else [CONTRACT, ADAPTERS]
    with ThreadPoolExecutor() as pool:
        runs = list(pool.map(partial(_run_pytest, make_overlay(versions), only), markers))
    for marker, done in zip(markers, runs, strict=True):
        if done.returncode and not only:
            print(done.stdout, file=sys.stderr)
        _report(f"{title}, {marker}", versions, done)
    return int(any(done.returncode for done in runs))


def _run_pytest(overlay: Path, only: str, marker: str) -> subprocess.CompletedProcess[str]:
    """Run the tests with a marker in one process, of those files alone that have some; its output is returned."""
    path = os.pathsep.join([str(overlay), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "240"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # processes that tests start need not compile the overlay again
    files = [str(file) for file in sorted((ROOT / "tests").rglob("test_*.py")) if f"mark.{marker}" in file.read_text()]
    part = ["--exitfirst", "-k", only] if only else []
    command = [sys.executable, "-m", "pytest", "-m", marker, "--color=no", *part, *files]
    return subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


def _report(title: str, versions: Mapping[str, str], done: subprocess.CompletedProcess[str]) -> None:
    """Print the result in one line, and which adapters broke."""
    causes = sorted(_ERROR.findall(done.stdout), key=lambda text: text.startswith("AssertionError"))  # those say least
    result = done.stdout.strip().splitlines()[-1].strip("= ")
    print(f"{title}: with {_listed(versions)}: {result}{f', first: {causes[0]}' if done.returncode and causes else ''}")
    for broken in _FAILED.finditer(done.stdout) if title.endswith(ADAPTERS) else ():
        test = (broken["test"] or "it can be imported").replace("_", " ")
        print(f"{title}: {broken['case'] or broken['file']} breaks {test!r}: {broken['error'] or 'see above'}")


def make_overlay(versions: Mapping[str, str]) -> Path:
    """Install packages without what they depend on into their own folder, unless that was done before."""
    requirements = [f"{name}=={version}" for name, version in sorted(versions.items())]
    overlay = OVERLAYS / hashlib.sha256(" ".join(requirements).encode()).hexdigest()[:16]
    if not overlay.exists():
        unfinished = overlay.with_name(f"{overlay.name}.{os.getpid()}")
        # Compiled by what imports it: of transformers' 3,000 modules the tests need few.
        _pip("--no-deps", "--no-compile", "--target", str(unfinished), *requirements)
        unfinished.rename(overlay)
    return overlay


def resolve(requirements: Iterable[str], pins: Mapping[str, str], *options: str) -> dict[str, str]:
    """Versions by package that pip would install into an empty environment, without their local parts.

    Args:
        requirements: What is asked for.
        pins: Versions that packages must have where they are needed.
        *options: Further options of pip.
    """
    OVERLAYS.mkdir(parents=True, exist_ok=True)
    constraints, report = (OVERLAYS / f"{os.getpid()}.{name}" for name in ("txt", "json"))
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in pins.items()))
    try:
        files = ["--constraint", str(constraints), "--report", str(report)]
        _pip("--dry-run", "--ignore-installed", *files, *options, *requirements)
        found = [one["metadata"] for one in json.loads(report.read_text())["install"]]
    finally:
        constraints.unlink()
        report.unlink(missing_ok=True)
    return {canonicalize_name(one["name"]): one["version"].split("+")[0] for one in found}


def differing(versions: Mapping[str, str]) -> dict[str, str]:
    """Return those that the environment lacks or has in another version."""
    return {
        name: version for name, version in versions.items() if (package_version(name) or "").split("+")[0] != version
    }


def read_pins() -> dict[str, str]:
    """Versions of constraints.txt by package."""
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def project() -> dict:
    """Read the project's table in pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        raise PackageIndexError(errors[-1])


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))


if __name__ == "__main__":
    sys.exit(main())
