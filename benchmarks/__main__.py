"""Run benchmarks and write their sections of RESULTS.md: `python -m benchmarks [name ...]`."""

import datetime
import os
import platform
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
SECTIONS = {
    "main_job": "The main job",
    "cost": "Cost, against bare loops with the same passes",
    "speed": "Speed and memory of the attacks",
    "strength": "Strength on the reference target",
    "auto_attack": 'AutoAttack, "fast" against "standard"',
    "against_peers": "Beside other libraries",
    "sklearn_targets": "Estimators of scikit-learn",
    "smoothing": "Certificates by smoothing",
    "smoothing_training": "Training for smoothing",
    "settings": "Behind the settings",
}
HEAD = """# Results

Written by `make bench`, section by section. Times are medians of interleaved rounds, and CPU
seconds are of the process, on one thread unless said otherwise.
"""


def stamp():
    """When and on what a section was measured."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "scikit-learn"))
    return (
        f"{datetime.date.today().isoformat()}, {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}, {packages}"
    )


def read():
    """The sections that are there, title by title."""
    if not RESULTS.exists():
        return {}
    _, *parts = ("\n" + RESULTS.read_text()).split("\n## ")
    return {title: body for title, _, body in (part.partition("\n") for part in parts)}


def main(names):
    for name in names or SECTIONS:
        print(f"{name} ...", flush=True)
        body = import_module(f"benchmarks.{name}").main()
        print(body)
        # Read anew: another section may have been measured meanwhile.
        sections = read() | {SECTIONS[name]: f"\n{stamp()}\n\n{body.strip()}\n"}
        ordered = [f"\n## {t}\n{sections[t]}" for t in SECTIONS.values() if t in sections]
        RESULTS.write_text(HEAD + "".join(ordered))


if __name__ == "__main__":
    main(sys.argv[1:])
