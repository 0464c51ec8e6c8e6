"""What is uploaded is what was tested: builds the distributions and tries them in an empty environment.

`python .ci/package.py dist` builds the wheel from the source distribution and once more from the checkout;
both must be the same. The wheel is then installed where nothing else is, the README's programs run, and the
`sbrpc` command answers.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = re.compile(r"^```python[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = ["CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "SECURITY.md"]
BESIDE = [*PAGES, "docs", "examples", "pyproject.toml", "src", "tests"]
"""What somebody who has only the source distribution needs to read, build and test it."""


def main(dist: Path) -> None:
    """Build into `dist`, and fail with what is wrong."""
    dist.mkdir(parents=True, exist_ok=True)
    for old in [*dist.glob("sbrpc-*.whl"), *dist.glob("sbrpc-*.tar.gz")]:
        old.unlink()
    run(sys.executable, "-m", "build", "--outdir", dist, ROOT)  # the wheel from the source distribution
    (source,) = dist.glob("sbrpc-*.tar.gz")
    (wheel,) = dist.glob("sbrpc-*.whl")
    run(sys.executable, "-m", "twine", "check", "--strict", source, wheel)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        run(sys.executable, "-m", "build", "--wheel", "--outdir", place, ROOT)
        (direct,) = place.glob("sbrpc-*.whl")
        check_wheel(contents(wheel), contents(direct))
        check_source(source)
        try_wheel(wheel, place)
    print(f"package: {source.name} and {wheel.name} are whole, and work where nothing else is installed")


def check_wheel(wheel: dict[str, bytes], direct: dict[str, bytes]) -> None:
    """Both ways lead to the same files, and every file of the package is among them."""
    differing = sorted(name for name in wheel.keys() | direct.keys() if wheel.get(name) != direct.get(name))
    if differing:
        sys.exit(f"package: the source distribution builds another wheel; these differ: {differing}")
    tree = (ROOT / "src").rglob("*")
    expected = {each.relative_to(ROOT / "src").as_posix() for each in tree if each.is_file()}
    expected = {name for name in expected if "__pycache__" not in name}
    missing = sorted(expected - wheel.keys())
    if missing:
        sys.exit(f"package: not in the wheel: {missing}")
    strangers = sorted(name for name in wheel.keys() - expected if ".dist-info/" not in name)
    if strangers:
        sys.exit(f"package: in the wheel, but not in src/: {strangers}")
    if "sbrpc/py.typed" not in wheel:
        sys.exit("package: without sbrpc/py.typed, type checkers take the package for untyped")


def check_source(source: Path) -> None:
    """The source distribution holds what its readers need."""
    with tarfile.open(source) as archive:
        names = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    missing = sorted(set(BESIDE) - names)
    if missing:
        sys.exit(f"package: not in the source distribution: {missing}")


def try_wheel(wheel: Path, place: Path) -> None:
    """Install it as a user would, and do what the README says."""
    venv.create(place / "clean", with_pip=True)
    scripts = place / "clean" / ("Scripts" if sys.platform == "win32" else "bin")
    install = [scripts / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run(*install, f"{wheel}[emulator]")
    run(scripts / "python", "-m", "pip", "--disable-pip-version-check", "check")
    for number, code in enumerate(PROGRAM.findall((ROOT / "README.md").read_text(encoding="utf-8"))):
        program = place / f"readme{number}.py"
        program.write_text(code, encoding="utf-8")
        run(scripts / "python", "-I", program, cwd=place)
    run(*install, f"{wheel}[cli]")
    run(scripts / "sbrpc", "--help", cwd=place, quiet=True)


def contents(wheel: Path) -> dict[str, bytes]:
    """The files of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def run(*command: str | Path, cwd: Path | None = None, quiet: bool = False) -> None:
    """Run it, within ten minutes, or end with what it said."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if quiet else None, timeout=600
    )
    if done.returncode:
        sys.exit(f"package: {' '.join(words)} ended with {done.returncode}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python .ci/package.py DIRECTORY")
    main(Path(sys.argv[1]))
