"""How much of this project a reader passes through: files and functions that run for each example of README.

    python experiments/journeys.py [--files] [README.md …]

prints one line for each Python example: the files of ``fedcl_distill``, ``strategies`` and ``simulations`` in which a
function runs, and how many functions those are. Importing alone does not count. With ``--files`` each file and its
functions follow.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
OURS = ("fedcl_distill", "strategies", "simulations")
_EXAMPLE = re.compile(r"^## (?P<title>[^\n]+)|^```python\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)

_COUNTER = f"""
import inspect, sys, threading
seen = set()
def look(frame, event, _):
    if event == "call" and frame.f_code.co_flags & inspect.CO_OPTIMIZED:  # functions, not bodies of classes
        seen.add((frame.f_code.co_filename, frame.f_code.co_qualname))
code = compile(open(sys.argv[1]).read(), "example", "exec")
exec(code, {{"__name__": "example"}})  # everything is imported now
threading.setprofile(look); sys.setprofile(look)
exec(code, {{"__name__": "example"}})
sys.setprofile(None)
root, ours = {str(ROOT)!r}, {OURS!r}
mine = {{one for one in seen if one[0].startswith(tuple(f"{{root}}/{{top}}/" for top in ours)) }}
for file, name in sorted(mine):
    print("journey", file.removeprefix(root + "/"), name)
"""


def examples(readme: Path) -> list[tuple[str, str]]:
    """The Python examples of a Markdown file, each under the heading before it."""
    found, title = [], readme.stem
    for match in _EXAMPLE.finditer(readme.read_text()):
        title = match["title"] or title
        if match["code"]:
            found.append((title, match["code"]))
    return found


def functions_of(code: str) -> dict[str, list[str]]:
    """The functions of this project that run when ``code`` does, by file; in a process and a folder of its own."""
    with TemporaryDirectory() as folder:
        example, counter = Path(folder) / "example.py", Path(folder) / "counter.py"
        example.write_text(code)
        counter.write_text(_COUNTER)
        command = [sys.executable, str(counter), str(example)]
        environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": folder, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the example failed:\n{done.stderr[-2000:]}")
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        if line.startswith("journey "):
            _, file, name = line.split(" ")
            found.setdefault(file, []).append(name)
    return found


def main(readmes: list[Path], each_file: bool) -> None:
    """Print one line for each example, and with ``each_file`` what ran in which file."""
    for readme in readmes or [ROOT / "README.md"]:
        for title, code in examples(readme):
            found = functions_of(code)
            print(f"{len(found):4d} files {sum(map(len, found.values())):5d} functions  {readme.name}: {title}")
            for file, names in found.items() if each_file else ():
                print(f"{len(names):10d} {file}: {', '.join(names)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readmes", nargs="*", type=Path, help="Markdown files with examples (README.md)")
    parser.add_argument("--files", action="store_true", help="list each file and its functions")
    arguments = parser.parse_args()
    main(arguments.readmes, arguments.files)
