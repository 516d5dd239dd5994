"""What the pages show besides plain Python blocks works too: commands, tests, configuration files."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points, version
from pathlib import Path

import httpx
import pytest
import yaml
from sybil import Document
from sybil.parsers.markdown import CodeBlockParser

from checking import findings, rule_file
from llm_common.lint.config import configured
from llm_common.plugins import GROUP
from llm_common.settings import TABLES_OF_TOOLS, Pyproject, resolve
from pages import ROOT, english, read
from servers import program, running

pytestmark = pytest.mark.once

PAGES = [ROOT / "README.md", ROOT / "AGENTS.md", *english()]
TUTORIAL = ROOT / "docs" / "write-a-backend.md"
COMMAND = re.compile(r"LLM_COMMON_\w+=.* python app\.py$")
CONTRACT = "TestBillingTransport"
"""The suite of tests on the testing page that is inherited; most of its cases run elsewhere already."""

NO_DEADLINE = """
from hypothesis import settings

settings.register_profile("slow machine", deadline=None)
settings.load_profile("slow machine")
"""


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of one language, in order."""
    parser = CodeBlockParser(language, evaluator=lambda example: None)
    return [str(example.parsed) for example in Document.parse(str(page), parser).examples()]


def files(page: Path) -> dict[str, str]:
    """Return the Python files that a page shows, by the path in their first line."""
    found = {}
    for block in blocks(page, "python"):
        if first_line := re.match(r"# ([\w/]+\.py)\n", block):
            found[first_line[1]] = block
    return found


def copy_files(page: Path, directory: Path) -> None:
    """Write the files that a page shows, each as it stands there."""
    for path, source in files(page).items():
        (directory / path).parent.mkdir(exist_ok=True)
        (directory / path).write_text(source, encoding="utf-8")


def commands(page: Path) -> list[str]:
    """Return the command lines that choose a backend for an application that the page shows."""
    return [line for block in blocks(page, "console") for line in block.splitlines() if COMMAND.match(line)]


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("page", "command"),
    [
        pytest.param(page, command, id=f"{page.name}-{command}")
        for page in PAGES
        if page != TUTORIAL
        for command in commands(page)
    ],
)
def test_a_command_runs_the_application_on_the_backend_that_it_names(page: Path, command: str, tmp_path: Path) -> None:
    (source,) = (block for block in blocks(page, "python") if block.startswith("# app.py"))
    (tmp_path / "app.py").write_text(source, encoding="utf-8")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command, shell=True, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert ("genapp_action_count_total" in done.stdout) == ("noop" not in command)
    assert 'app="shop_bot",env="prod"' in done.stdout or "LLM_COMMON_APP" not in command


def test_the_readme_switches_metrics_off_by_one_variable() -> None:
    assert commands(ROOT / "README.md") == ["LLM_COMMON_BACKENDS=noop python app.py"]


def test_the_readme_names_the_two_commands_for_a_fresh_clone() -> None:
    assert ["make demo", "make test"] in [block.splitlines() for block in blocks(ROOT / "README.md", "console")]


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("page", "path"), [pytest.param(page, path, id=f"{page.name}-{path}") for page in PAGES for path in files(page)]
)
def test_a_file_that_a_page_shows_imports_what_it_uses(page: Path, path: str, tmp_path: Path) -> None:
    copy_files(page, tmp_path)
    code = f"import runpy; runpy.run_path({path!r})"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.e2e
def test_the_backend_that_a_page_shows_is_available_by_name(tmp_path: Path) -> None:
    page = ROOT / "docs" / "backends.md"
    copy_files(page, tmp_path)
    (block,) = blocks(page, "toml")
    project = tomllib.loads(block)["project"]
    ((name, module),) = project["entry-points"][GROUP].items()
    installed = tmp_path / "shop_metrics-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    (installed / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {module}\n")
    code = "from llm_common import action_tracking\nwith action_tracking('menu_handler'): pass"
    environ = {**os.environ, "LLM_COMMON_BACKENDS": name, "LLM_COMMON_APP": "shop_bot"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("shop_bot dev menu_handler ok\n", "")


@pytest.mark.e2e
def test_the_plugin_that_the_tutorial_builds_is_installed_and_chosen_by_name_alone(tmp_path: Path) -> None:
    copy_files(TUTORIAL, tmp_path)
    (project,) = blocks(TUTORIAL, "toml")
    (tmp_path / "pyproject.toml").write_text(project, encoding="utf-8")
    python = [sys.executable, "-m"]
    build = [*python, "build", "--wheel", "--no-isolation"]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("tally_metrics-1.0-*.whl")
    target, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    install = [*python, "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    assert {path.name for path in target.iterdir()} >= {"tally_metrics.py"}
    elsewhere.mkdir()
    (elsewhere / "app.py").write_text((tmp_path / "app.py").read_text(encoding="utf-8"), encoding="utf-8")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    found = commands(TUTORIAL)
    assert len(found) == 2
    for command in [*found, "python app.py"]:
        environ = {**os.environ, "PATH": path, "PYTHONPATH": str(target)}
        done = subprocess.run(
            command, shell=True, cwd=elsewhere, env=environ, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        shown = 'genapp_action_count_total{name="menu_handler",env="dev",app="app",status="ok"} 1.0' in done.stdout
        assert shown == ("tally" in command)


def run_tests_of(page: Path, pytester: pytest.Pytester, chosen: str = "") -> pytest.RunResult:
    """Run the tests that a page shows, as its reader would: from its files, or else one below the other.

    ``chosen`` is an expression that selects some of them, as pytest's option ``-k`` takes it.
    """
    pytester.makeconftest(NO_DEADLINE)
    if any(path.startswith("test_") for path in files(page)):
        copy_files(page, pytester.path)
    else:
        pytester.makepyfile(test_page="\n".join(blocks(page, "python")))
    installed = any(point.name == "llm_common" for point in entry_points(group="pytest11"))
    return pytester.runpytest_subprocess(
        "-p", "no:cacheprovider", "-k", chosen, *([] if installed else ["-p", "llm_common.testing.plugin"])
    )


@pytest.mark.e2e
@pytest.mark.parametrize(("name", "tests"), [("README.md", 1), ("AGENTS.md", 2), ("docs/index.md", 1)])
def test_the_tests_that_a_page_shows_pass(name: str, tests: int, pytester: pytest.Pytester) -> None:
    run_tests_of(ROOT / name, pytester).assert_outcomes(passed=tests)


@pytest.mark.e2e
def test_the_tests_on_the_testing_page_pass_but_for_the_one_that_shows_a_failure(pytester: pytest.Pytester) -> None:
    program("promtool")
    page = ROOT / "docs" / "testing.md"
    result = run_tests_of(page, pytester, f"not {CONTRACT}")
    result.assert_outcomes(passed=9, failed=1)
    (_, message) = blocks(page, "text")
    result.stdout.fnmatch_lines([f"E*{line}" for line in message.splitlines()], consecutive=True)
    result.stdout.fnmatch_lines(["*test_the_menu_opens_once*", "*Recorded metrics*"])


@pytest.mark.e2e
def test_the_contract_on_the_testing_page_runs(pytester: pytest.Pytester) -> None:
    result = run_tests_of(ROOT / "docs" / "testing.md", pytester, f"{CONTRACT} and (whole_response or 204 or refused)")
    result.assert_outcomes(passed=3)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "toml")], ids=lambda page: page.name)
def test_a_configuration_file_that_a_page_shows_is_accepted(page: Path) -> None:
    for block in blocks(page, "toml"):
        document = tomllib.loads(block)
        if "llm_common" in document.get("tool", {}):
            table = document["tool"]["llm_common"]
            settings = resolve({}, {}, Pyproject(page, table))
            assert all(settings.source(name) != "the default" for name in table if name not in TABLES_OF_TOOLS)
            if "lint" in table:
                assert configured(Pyproject(page, table)) != configured(Pyproject(page, {}))
        else:
            assert list(document["project"]["entry-points"]) == [GROUP]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")], ids=lambda page: page.name)
def test_yaml_that_a_page_shows_is_what_its_reader_accepts(page: Path, tmp_path: Path) -> None:
    for block in blocks(page, "yaml"):
        (kind, content) = next(iter(yaml.safe_load(block).items()))
        if kind == "scrape_configs":
            (tmp_path / "prometheus.yml").write_text(block, encoding="utf-8")
            command = [program("promtool"), "check", "config", "--syntax-only", str(tmp_path / "prometheus.yml")]
            subprocess.run(command, check=True)
        else:
            assert kind == "repos"
            offered = {hook["id"] for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())}
            assert {hook["id"] for repository in content for hook in repository["hooks"]} <= offered
            assert {repository["rev"] for repository in content} == {f"v{version('llm_common')}"}


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "promql")], ids=lambda page: page.name)
def test_a_query_that_a_page_shows_names_what_the_catalogue_has(page: Path) -> None:
    assert findings(rule_file(*blocks(page, "promql"))) == []


@pytest.mark.e2e
def test_workers_that_are_set_up_as_a_page_shows_serve_the_sum_of_all(tmp_path: Path) -> None:
    page = ROOT / "docs" / "processes.md"
    copy_files(page, tmp_path)
    *before, serve = blocks(page, "console")[0].splitlines()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environ = {**os.environ, "PATH": path, "GUNICORN_CMD_ARGS": "--bind 127.0.0.1:0"}
    script = "\n".join([*before, f"exec env {serve}"])
    with running(["bash", "-c", script], cwd=tmp_path, env=environ, stderr=subprocess.PIPE) as server:
        assert server.stderr is not None
        address = next(found[1] for line in server.stderr if (found := re.search(r"at: (http://\S+)", line)))
        for _ in range(20):
            httpx.get(f"{address}/", trust_env=False).raise_for_status()
        scrape = httpx.get(f"{address}/metrics", trust_env=False).text
    assert 'genapp_action_count_total{app="shop_bot",env="dev",name="menu_handler",status="ok"} 20.0' in scrape


def test_no_page_names_a_python_block_that_is_not_executed() -> None:
    known = {"python", "console", "toml", "text", "promql", "yaml"}
    for page in PAGES:
        opened = [line.strip()[3:] for line in read(page).splitlines() if line.strip().startswith("```")]
        assert set(opened[::2]) <= known, page.name
