"""What type checkers must refuse: each line marked with REJECTED is an error, and no other line is."""

from llm_common import action_tracking, action_tracking_decorator, configure
from llm_common.prometheus import start_metrics_server


@action_tracking_decorator("menu_handler")
def plain(number: int, *, key: str = "") -> list[str]:
    return [key] * number


@action_tracking_decorator("answer_llm_call")
async def coroutine(number: int) -> str:
    return str(number)


plain("1")  # REJECTED
plain(1, kee="")  # REJECTED
plain()  # REJECTED
len(coroutine(1))  # REJECTED
action_tracking(None)  # REJECTED
action_tracking()  # REJECTED
action_tracking_decorator(plain)  # REJECTED
action_tracking_decorator("menu_handler")(5)  # REJECTED
configure("shop_bot")  # REJECTED
configure(app=5)  # REJECTED
start_metrics_server(port="80")  # REJECTED

with action_tracking("menu_handler") as tracker:
    tracker.size("3")  # REJECTED
    tracker.fail()  # REJECTED
