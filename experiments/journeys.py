"""How much of this project a reader passes through: files and functions that run for each example of README.

    python experiments/journeys.py [README.md …]

prints one line for each Python example: the files of ``fedcl_distill``, ``strategies`` and ``simulations`` in which a
function runs, and how many functions those are. Importing alone does not count.
"""

from __future__ import annotations

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
print("journey", len({{file for file, _ in mine}}), len(mine))
"""


def examples(readme: Path) -> list[tuple[str, str]]:
    """The Python examples of a Markdown file, each under the heading before it."""
    found, title = [], readme.stem
    for match in _EXAMPLE.finditer(readme.read_text()):
        title = match["title"] or title
        if match["code"]:
            found.append((title, match["code"]))
    return found


def count(code: str) -> tuple[int, int]:
    """Files and functions of this project that run when ``code`` does, in a process and a folder of its own."""
    with TemporaryDirectory() as folder:
        example, counter = Path(folder) / "example.py", Path(folder) / "counter.py"
        example.write_text(code)
        counter.write_text(_COUNTER)
        command = [sys.executable, str(counter), str(example)]
        environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": folder, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("journey ")]
    if not lines:
        raise SystemExit(f"the example failed:\n{done.stderr[-2000:]}")
    files, functions = lines[-1].split()[1:]
    return int(files), int(functions)


def main(readmes: list[Path]) -> None:
    """Print one line for each example."""
    for readme in readmes or [ROOT / "README.md"]:
        for title, code in examples(readme):
            files, functions = count(code)
            print(f"{files:4d} files {functions:5d} functions  {readme.name}: {title}")


if __name__ == "__main__":
    main([Path(one) for one in sys.argv[1:]])
