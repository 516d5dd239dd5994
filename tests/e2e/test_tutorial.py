"""Start in five minutes, followed to the letter, as a reader does who copies what the page shows."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pages import ROOT, code

pytestmark = [pytest.mark.e2e, pytest.mark.once]

NOT_CLONED = shutil.ignore_patterns(
    ".git", ".venv*", ".*cache", ".coverage*", "__pycache__", "dist", "node_modules", "site"
)
NOT_INHERITED = re.compile("LLM_COMMON_|PROMETHEUS_|PYTEST|PYTHON|VIRTUAL_ENV|COVERAGE|COV_")
END = "the end of what block {} printed"


def as_script(page: Path) -> tuple[str, list[str]]:
    """Return what the page asks for as one shell script, and what each of its blocks should print."""
    script = ["set -e"]
    printed: list[str] = []
    for block in code(page):
        language, _, text = block.removesuffix("```").removeprefix("```").partition("\n")
        if language == "text":
            printed[-1] = text
        elif language == "console":
            printed.append("")
            script += [text, f"echo '{END.format(len(printed))}'"]
        elif name := re.match(r"# (\w+\.py)\n", text):
            script.append(f"cat > {name[1]} <<'END OF FILE'\n{text}END OF FILE")
    return "\n".join(script), printed


@pytest.mark.parametrize("name", ["index.md", "index.ru.md"])
def test_the_page_works_to_the_letter_in_a_clean_environment(name: str, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(ROOT, clone, ignore=NOT_CLONED)
    environ = {key: value for key, value in os.environ.items() if not NOT_INHERITED.match(key)}
    environ |= {"PIP_CONSTRAINT": str(clone / "requirements" / "dev.txt"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    script, expected = as_script(ROOT / "docs" / name)
    done = subprocess.run(["bash"], input=script, cwd=clone, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rest = done.stdout
    for number, lines in enumerate(expected, start=1):
        printed, _, rest = rest.partition(END.format(number))
        for line in lines.splitlines():
            assert line in printed.splitlines(), printed
    assert "1 passed" in done.stdout
