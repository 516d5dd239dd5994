import sys
import types
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_common.errors import ConfigurationError
from llm_common.settings import (
    READERS,
    Pyproject,
    Settings,
    clean_label,
    environment_variable,
    find_pyproject,
    main_module_name,
    resolve,
    wants_strict,
)

RAW: Mapping[str, tuple[Any, Any, Any]] = {
    "app": ("code", "environment", "file"),
    "env": ("code", "environment", "file"),
    "backends": (["code"], "environment", ["file"]),
    "plugins": (["code"], "environment", ["file"]),
    "strict": (True, "yes", False),
    "action_duration_buckets": ([1], "2,3", [4.0]),
    "http_duration_buckets": ([1], "2,3", [4.0]),
    "http_size_buckets": ([1], "2,3", [4.0]),
    "first_item_buckets": ([1], "2,3", [4.0]),
    "extra_metrics": (["llm_tokens"], "first_item", ["in_progress"]),
    "max_series": (1, "2", 3),
}


def project(**table: Any) -> Pyproject:
    return Pyproject(Path("/project/pyproject.toml"), table)


@pytest.mark.parametrize("name", READERS)
def test_code_beats_the_environment_which_beats_pyproject_which_beats_the_default(name: str) -> None:
    code, environment, file = RAW[name]
    environ = {environment_variable(name): environment}
    pyproject = project(**{name: file})
    every = resolve({name: code}, environ, pyproject)
    assert every.source(name) == f"the argument {name}= of configure()"
    without_code = resolve({name: None}, environ, pyproject)
    assert without_code.source(name) == f"the environment variable {environment_variable(name)}"
    without_both = resolve({}, {}, pyproject)
    assert without_both.source(name) == f"{name} in [tool.llm_common] of /project/pyproject.toml"
    values = [getattr(one, name) for one in (every, without_code, without_both)]
    assert len({repr(value) for value in values}) == (2 if name == "strict" else 3)
    if name != "app":
        defaults = resolve({}, {})
        assert getattr(defaults, name) == getattr(Settings(app="x"), name)
        assert defaults.source(name) == "the default"


def test_an_empty_environment_variable_counts_as_unset() -> None:
    environ = {environment_variable(name): "" for name in READERS} | {"OTEL_SERVICE_NAME": ""}
    assert resolve({}, environ, main_module="bot") == Settings(app="bot")


def test_the_app_falls_back_to_the_service_name_of_opentelemetry_and_then_to_the_main_module() -> None:
    settings = resolve({}, {"OTEL_SERVICE_NAME": "shop"}, main_module="bot")
    assert (settings.app, settings.source("app")) == ("shop", "the environment variable OTEL_SERVICE_NAME")
    settings = resolve({}, {}, main_module="bot")
    assert (settings.app, settings.source("app")) == ("bot", "the main module's name")


def test_names_are_trimmed_lowered_and_taken_once() -> None:
    settings = resolve({}, {"LLM_COMMON_BACKENDS": " Prometheus, memory,,PROMETHEUS "})
    assert settings.backends == ("prometheus", "memory")


def test_objects_are_kept_as_they_are_even_where_they_compare_equal() -> None:
    class Equal:
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    first, second = Equal(), Equal()
    backends = resolve({"backends": [first, "memory", second, first]}, {}).backends
    assert [id(one) for one in backends if not isinstance(one, str)] == [id(first), id(second)]


@pytest.mark.parametrize(
    ("overrides", "environ", "words"),
    [
        ({}, {"LLM_COMMON_BACKENDS": ","}, ["LLM_COMMON_BACKENDS is ','", "names no backend", "noop"]),
        ({"backends": []}, {}, ["the argument backends= of configure() is []", "noop switches metrics off"]),
        ({"backends": 5}, {}, ["backends= of configure() is 5", "names, separated by commas, or a list"]),
        ({"backends": {"a": 1}}, {}, ["or a list of names and objects"]),
        ({"app": 5}, {}, ["app= of configure() is 5", "a text that isn't empty"]),
        ({"app": " "}, {}, ["which is empty"]),
        ({}, {"LLM_COMMON_STRICT": "maybe"}, ["LLM_COMMON_STRICT is 'maybe'", "1, true, yes, on or 0, false, no, off"]),
        ({"strict": 2}, {}, ["strict= of configure() is 2"]),
        ({}, {"LLM_COMMON_ACTION_DURATION_BUCKETS": "a"}, ["ACTION_DURATION_BUCKETS is 'a'", "ascending"]),
        ({"action_duration_buckets": [2, 1]}, {}, ["is [2, 1]", "ascending"]),
        ({"action_duration_buckets": []}, {}, ["is []"]),
        ({"action_duration_buckets": [0, 1]}, {}, ["positive"]),
        ({"action_duration_buckets": [float("nan")]}, {}, ["positive"]),
        ({"action_duration_buckets": 5}, {}, ["is 5"]),
        ({"max_series": 0}, {}, ["the argument max_series= of configure() is 0", "a whole number from 1 on"]),
        ({"max_series": True}, {}, ["is True"]),
        ({"max_series": 1.5}, {}, ["is 1.5"]),
        ({}, {"LLM_COMMON_MAX_SERIES": "many"}, ["LLM_COMMON_MAX_SERIES is 'many'"]),
    ],
)
def test_what_cannot_be_read_is_an_error_that_names_value_source_and_what_is_accepted(
    overrides: dict[str, object], environ: dict[str, str], words: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve(overrides, environ)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("value", [True, 1, "on"])
def test_strict_is_a_truth_value_a_number_or_a_text(value: object) -> None:
    assert resolve({"strict": value}, {}).strict is True


def test_a_last_bound_of_infinity_is_implied_and_left_out() -> None:
    assert resolve({"action_duration_buckets": [1, "2", float("inf")]}, {}).action_duration_buckets == (1.0, 2.0)


def test_an_unknown_setting_in_pyproject_is_an_error_with_the_nearest_one() -> None:
    with pytest.raises(ConfigurationError, match=r"unknown setting 'backend'; did you mean 'backends'\?"):
        resolve({}, {}, project(backend="memory"))
    with pytest.raises(ConfigurationError, match=r"unknown setting 'zzz' \(accepted: app,"):
        resolve({}, {}, project(zzz=1))


def test_the_table_of_the_linter_is_accepted_and_not_read() -> None:
    assert resolve({}, {}, project(env="prod", lint={"anything": 1})).env == "prod"
    assert resolve({}, {}, project(lint=1)) == resolve({}, {})


def test_the_nearest_pyproject_is_found_from_a_directory_below(tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text('[tool.llm_common]\napp = "shop"\n')
    found = find_pyproject(below)
    assert found == Pyproject(tmp_path / "pyproject.toml", {"app": "shop"})


@pytest.mark.parametrize("text", ["", "[tool.other]\nx = 1\n", "tool = 5\n"])
def test_a_pyproject_without_the_table_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    assert find_pyproject(tmp_path) is None


def test_without_any_pyproject_there_is_none() -> None:
    assert find_pyproject(Path("/proc/self")) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"= 5", "can't be read"), (b"\xff\xfe", "can't be read"), (b"tool.llm_common = 5", "must be a table")],
)
def test_a_pyproject_that_cannot_be_read_is_an_error_with_its_path(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "pyproject.toml").write_bytes(content)
    with pytest.raises(ConfigurationError, match=message) as caught:
        find_pyproject(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(("text", "strict"), [("1", True), (" TRUE ", True), ("0", False), ("maybe", False)])
def test_strictness_can_be_read_without_complaint(text: str, strict: bool) -> None:
    assert wants_strict({"LLM_COMMON_STRICT": text}) is strict
    assert wants_strict({}) is False


def test_the_main_module_gives_the_application_a_name() -> None:
    module = types.ModuleType("__main__")
    assert main_module_name(module) == "python"
    assert main_module_name(None) == "python"
    module.__file__ = "/srv/shop_bot.py"
    assert main_module_name(module) == "shop_bot"
    module.__spec__ = ModuleSpec("shop.bot.__main__", None)
    assert main_module_name(module) == "shop.bot"
    assert main_module_name(sys.modules["__main__"])


@given(st.text(st.characters()))
def test_a_clean_label_is_valid_unicode_and_valid_text_stays_as_it_is(text: str) -> None:
    cleaned = clean_label(text)
    cleaned.encode()
    if "\ufffd" not in cleaned:
        assert cleaned.encode() == text.encode("utf-16", "surrogatepass").decode("utf-16").encode()


def test_metrics_beside_the_contract_are_switched_on_by_name_or_together() -> None:
    def extra(raw: object) -> tuple[str, ...]:
        return resolve({"app": "a", "extra_metrics": raw}, {}).extra_metrics

    assert resolve({"app": "a"}, {}).extra_metrics == ()
    assert extra("in_progress, llm_tokens") == ("llm_tokens", "in_progress")
    assert extra("all") == extra(["all", "first_item"]) == ("llm_tokens", "first_item", "in_progress")
    with pytest.raises(
        ConfigurationError, match=r"extra_metrics= of configure\(\) has 'tokens'; accepted: llm_tokens, "
    ):
        extra(["tokens"])
