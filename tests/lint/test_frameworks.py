"""What the linter knows of frameworks and integrations, compared with these."""

import inspect
import pkgutil
from importlib import import_module

import telegram.ext
from aiogram import Dispatcher, Router
from aiogram.fsm.scene import OnMarker
from apscheduler.schedulers.base import BaseScheduler
from celery import Celery, shared_task

import llm_common.integrations
from llm_common.integrations.aiogram import FLAG as AIOGRAM_FLAG
from llm_common.lint.frameworks import ADD_JOB, INCLUDE, MIDDLEWARES, OTHER_OBSERVERS, RUN_JOB
from llm_common.lint.known import CALLBACK_AT, EXPORTED, FLAG, MAPPINGS, OBSERVERS, PARAMETERS, SCENE_STEPS


def test_the_observers_are_those_of_aiogram_but_for_that_of_errors() -> None:
    assert OBSERVERS | {"error"} == set(Router().observers)
    assert all(hasattr(getattr(Dispatcher(), name), "register") for name in OBSERVERS)


def test_the_steps_of_a_scene_are_those_of_aiogram() -> None:
    marker = type(OnMarker().message)
    assert {name for name in dir(marker) if not name.startswith("_")} == SCENE_STEPS


def test_the_position_of_the_callback_is_that_of_python_telegram_bot() -> None:
    found = {}
    for name, handler in vars(telegram.ext).items():
        if inspect.isclass(handler) and issubclass(handler, telegram.ext.BaseHandler) and name != "BaseHandler":
            parameters = list(inspect.signature(handler).parameters)
            if "callback" in parameters:
                found[name] = parameters.index("callback")
    assert found == CALLBACK_AT


def test_jobs_are_added_by_methods_that_exist() -> None:
    assert {name for name in dir(telegram.ext.JobQueue) if name.startswith("run_")} == RUN_JOB
    assert next(name for name in inspect.signature(BaseScheduler.add_job).parameters if name != "self") == "func"
    assert hasattr(BaseScheduler, "scheduled_job")
    assert "add_job" in ADD_JOB
    assert callable(Celery.task)
    assert shared_task.__module__.startswith("celery.")


def test_the_names_that_integrations_are_given_are_known() -> None:
    parameters, mappings = {}, set()
    for module in pkgutil.iter_modules(llm_common.integrations.__path__, "llm_common.integrations."):
        for name, thing in vars(import_module(module.name)).items():
            if getattr(thing, "__module__", "") == module.name and name.startswith(("track_", "ActionTracking")):
                given = inspect.signature(thing).parameters
                places = {one: number for number, one in enumerate(given) if one in ("name", "agent", "llm_call")}
                if "names" in given:
                    mappings.add(f"{module.name}.{name}")
                parameters[f"{module.name}.{name}"] = {
                    one: None if given[one].kind is inspect.Parameter.KEYWORD_ONLY else number
                    for one, number in places.items()
                    if given[one].annotation in (str, str | None)
                }
    known = {name: {one.keyword: one.position for one in PARAMETERS[name]} for name in PARAMETERS}
    assert {name: places for name, places in parameters.items() if places} == known
    assert mappings == set(MAPPINGS)
    assert FLAG == AIOGRAM_FLAG


def test_what_a_star_imports_is_there() -> None:
    for name in EXPORTED:
        module, _, thing = name.rpartition(".")
        assert hasattr(import_module(module), thing), name


def test_the_ways_to_attach_a_middleware_are_those_of_aiogram() -> None:
    dispatcher = Dispatcher()
    assert all(hasattr(dispatcher, name) for name in (*OTHER_OBSERVERS, *INCLUDE))
    assert all(hasattr(getattr(dispatcher.message, name), "register") for name in MIDDLEWARES)
