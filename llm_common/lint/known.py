"""What is known by its dotted name: of frameworks, and of this package. Nothing of it is imported."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from llm_common.action_names import AGENT, HANDLER, LLM_CALL, TASK

TRACKING, DECORATOR = "action_tracking", "action_tracking_decorator"
OURS: Mapping[str, str] = MappingProxyType(
    {
        f"{module}.{name}": name
        for name, home in ((TRACKING, "tracking"), (DECORATOR, "decorator"))
        for module in ("llm_common", "llm_common.prometheus", f"llm_common.{home}")
    }
)
"""The dotted names of the two that track, wherever they are imported from."""

OBSERVERS = frozenset(
    {
        "business_connection",
        "business_message",
        "callback_query",
        "channel_post",
        "chat_boost",
        "chat_join_request",
        "chat_member",
        "chosen_inline_result",
        "deleted_business_messages",
        "edited_business_message",
        "edited_channel_post",
        "edited_message",
        "guest_message",
        "inline_query",
        "managed_bot",
        "message",
        "message_reaction",
        "message_reaction_count",
        "my_chat_member",
        "poll",
        "poll_answer",
        "pre_checkout_query",
        "purchased_paid_media",
        "removed_chat_boost",
        "shipping_query",
        "stopped_message_generation",
        "subscription",
    }
)
"""The observers of an aiogram router that take handlers of updates."""

SCENE_STEPS = frozenset({"enter", "leave", "exit", "back"})

CALLBACK_AT: Mapping[str, int] = MappingProxyType(
    {
        "BusinessConnectionHandler": 0,
        "BusinessMessagesDeletedHandler": 0,
        "CallbackQueryHandler": 0,
        "ChatBoostHandler": 0,
        "ChatJoinRequestHandler": 0,
        "ChatMemberHandler": 0,
        "ChosenInlineResultHandler": 0,
        "CommandHandler": 1,
        "InlineQueryHandler": 0,
        "ManagedBotUpdatedHandler": 0,
        "MessageHandler": 1,
        "MessageReactionHandler": 0,
        "PaidMediaPurchasedHandler": 0,
        "PollAnswerHandler": 0,
        "PollHandler": 0,
        "PreCheckoutQueryHandler": 0,
        "PrefixHandler": 2,
        "ShippingQueryHandler": 0,
        "StringCommandHandler": 1,
        "StringRegexHandler": 1,
        "TypeHandler": 1,
    }
)
"""The handlers of python-telegram-bot, with the position of the callback among their arguments."""

AIOGRAM, TELEGRAM, JOBS, MODELS = "aiogram", "python-telegram-bot", "jobs", "models"


@dataclass(frozen=True, slots=True)
class Role:
    """What a framework takes a function for."""

    framework: str
    suffix: str
    words: str
    """What the function is, for a message."""


AIOGRAM_HANDLER = Role(AIOGRAM, HANDLER, "a handler of aiogram")
TELEGRAM_HANDLER = Role(TELEGRAM, HANDLER, "a handler of python-telegram-bot")
JOB = Role(JOBS, TASK, "a scheduled job")
MODEL = Role(MODELS, LLM_CALL, "a call of a model")
AGENT_RUN = Role(MODELS, AGENT, "a run of an agent")

INTEGRATIONS = "llm_common.integrations"
MIDDLEWARE = f"{INTEGRATIONS}.aiogram.ActionTrackingMiddleware"
TRACK_HANDLERS = f"{INTEGRATIONS}.telegram.track_handlers"
FLAG = "action_tracking"
"""The flag that names the action of a handler of aiogram."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One by which an integration is given the name of an action."""

    keyword: str
    role: Role
    position: int | None = None
    """Among the arguments; ``None`` where it is given by its keyword alone."""
    optional: bool = True
    """Whether it may be ``None``."""
    extended: bool = False
    """Whether the name is of an agent, to which the integration adds the suffixes itself."""


PARAMETERS: Mapping[str, tuple[Parameter, ...]] = MappingProxyType(
    {
        f"{INTEGRATIONS}.openai.track_client": (Parameter("name", MODEL, 1, optional=False),),
        f"{INTEGRATIONS}.pydantic_ai.track_agent": (Parameter("name", AGENT_RUN, 1, extended=True),),
        f"{INTEGRATIONS}.pydantic_ai.ActionTracking": (Parameter("name", AGENT_RUN, 0, extended=True),),
        **dict.fromkeys(
            (
                f"{INTEGRATIONS}.langchain.ActionTrackingCallback",
                f"{INTEGRATIONS}.openai_agents.ActionTrackingProcessor",
            ),
            (Parameter("llm_call", MODEL), Parameter("agent", AGENT_RUN)),
        ),
    }
)
"""The integrations that are given names of actions."""

MAPPINGS: Mapping[str, tuple[Role, ...]] = MappingProxyType(
    {
        TRACK_HANDLERS: (TELEGRAM_HANDLER, JOB),
        f"{INTEGRATIONS}.apscheduler.track_jobs": (JOB,),
        f"{INTEGRATIONS}.celery.track_tasks": (JOB,),
    }
)
"""Those that are given several in a dictionary ``names``, and what these may be the names of."""

EXPORTED = frozenset(
    {
        *(*OURS, *PARAMETERS, *MAPPINGS, MIDDLEWARE),
        *(f"telegram.ext.{name}" for name in (*CALLBACK_AT, "JobQueue")),
        *("aiogram.Dispatcher", "aiogram.Router", "celery.Celery", "celery.shared_task"),
    }
)
"""What ``from … import *`` is known to import."""
