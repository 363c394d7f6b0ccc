"""Run an experiment and put its table and picture into its page: `python docs/make_figures.py discriminate`.

The page `docs/<experiment>.md` keeps its text; what stands between its two `figures` marks is replaced.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

DOCS = Path(__file__).parent
MARKS = re.compile(r"(<!-- figures -->\n).*(<!-- /figures -->)", re.DOTALL)


def main() -> None:
    """One experiment of `conf/experiment` by name; further arguments are overrides for it."""
    name, *overrides = sys.argv[1:]
    page = DOCS / f"{name}.md"
    text = page.read_text("utf-8")
    if not MARKS.search(text):
        sys.exit(f"{page}: no <!-- figures --> marks")
    with TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pipelines.validate",
            f"+experiment={name}",
            f"results_dir={folder}",
            *overrides,
        ]
        subprocess.run(command, check=True, cwd=DOCS.parent)
        [report] = Path(folder).glob("*/*/report.md")
        table = report.read_text("utf-8")
        shutil.copyfile(report.parent / "plots" / "accuracy.png", DOCS / f"{name}.png")
    picture = f"![accuracy by method, with intervals]({name}.png)"
    page.write_text(MARKS.sub(lambda marks: f"{marks[1]}{table}\n{picture}\n{marks[2]}", text), "utf-8")


if __name__ == "__main__":
    main()
