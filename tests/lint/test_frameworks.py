"""What the linter knows of frameworks, compared with the frameworks."""

import inspect

import telegram.ext
from aiogram import Dispatcher, Router
from aiogram.fsm.scene import OnMarker
from apscheduler.schedulers.base import BaseScheduler
from celery import Celery, shared_task

from llm_common.lint.frameworks import ADD_JOB, CALLBACK_AT, OBSERVERS, RUN_JOB, SCENE_STEPS


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
