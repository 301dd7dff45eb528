"""An aarch64 Python with the packages that reading an archive needs, which qemu runs on this machine.

    python tests/arm64.py FOLDER

makes `FOLDER/python`. Debian's packages are unpacked, not installed: it takes no root, and this machine's apt and dpkg
keep their lists and their architecture. Where it cannot be, `FOLDER/why-not` says why in a line.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

PLATFORMS = ("manylinux2014_aarch64", "manylinux_2_27_aarch64", "manylinux_2_28_aarch64")
RUN = """\
#!/bin/sh
PYTHONPATH='{folder}/lib':"${{PYTHONPATH-}}" exec '{qemu}' -L '{folder}/arm64' '{folder}/arm64/usr/bin/python3' "$@"
"""


class UnavailableError(Exception):
    """What is needed cannot be had here."""


def call(what: str, *command: str | Path) -> str:
    """What a command prints; UnavailableError, with its first line of error, where it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{what}: {error}") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith(("E:", "ERROR"))]
        raise UnavailableError(f"{what}: {(lines or [done.stderr.strip() or 'it failed'])[0]}")
    return done.stdout.strip()


def unpack_debian(architecture: str, root: Path, *packages: str) -> None:
    """Packages and all that they depend on, unpacked into `root`."""
    state = root.with_name(f"apt-{architecture}")
    for folder in ("lists/partial", "archives/partial"):
        (state / folder).mkdir(parents=True)
    (state / "status").touch()  # nothing is installed there: all is fetched
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Debug::NoLocking": "true",
        "Dir::Cache": state,
        "Dir::State": state,
        "Dir::State::status": state / "status",
    }
    options = [f"-o{key}={value}" for key, value in settings.items()]
    what = f"apt-get gives no {packages[0]} for {architecture}"
    call(what, "apt-get", *options, "update")
    call(what, "apt-get", *options, "install", "-y", "--download-only", "--no-install-recommends", *packages)
    root.mkdir()
    for package in sorted(state.glob("archives/*.deb")):
        call("a Debian package cannot be unpacked", "dpkg-deb", "-x", package, root)
    shutil.rmtree(state)


def core_packages() -> list[str]:
    """The project's dependencies in the versions installed here, but for numba: reading does without."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    names = [re.split(r"[<>=]", wanted)[0] for wanted in project["dependencies"]]
    return [f"{name}=={version(name)}" for name in names if name != "numba"]


def make(folder: Path) -> None:
    """All of it; UnavailableError where something is out of reach."""
    native = call("this machine has no Debian packages", "dpkg", "--print-architecture")
    unpack_debian(native, folder / "native", "qemu-user-static")
    found = [p for n in ("-static", "") for p in folder.glob(f"native/usr/bin/qemu-aarch64{n}") if p.exists()]
    if not found:
        raise UnavailableError("the package qemu-user-static holds no qemu-aarch64")
    unpack_debian("arm64", folder / "arm64", "python3-minimal", "libpython3-stdlib", "libstdc++6")
    run = folder / "run"
    run.write_text(RUN.format(folder=folder, qemu=found[0]))
    run.chmod(0o755)
    print_version = "import sys; print('%d.%d' % sys.version_info[:2])"
    python = call("qemu does not run Debian's aarch64 Python here", run, "-c", print_version)
    call(
        "pip gives no aarch64 wheels",
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q"),
        *("--target", folder / "lib", "--only-binary=:all:", "--implementation=cp"),
        *(f"--python-version={python}", *(f"--platform={platform}" for platform in PLATFORMS)),
        *core_packages(),
    )
    run.rename(folder / "python")  # the last: where it is, all is there


def main(folder: Path) -> int:
    """Make it anew; exit status 1 if it cannot be."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        make(folder)
    except UnavailableError as error:
        why = " ".join(str(error).split())
        (folder / "why-not").write_text(f"{why}\n")
        print(f"no aarch64 Python here: {why}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
