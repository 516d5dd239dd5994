import math
from collections.abc import Callable

import pytest

from llm_common.errors import ConfigurationError
from llm_common.monitoring.alerts import alerts
from llm_common.monitoring.options import Objectives, Options, Thresholds

pytestmark = pytest.mark.once


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 1.5, math.nan, math.inf])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda share: Thresholds(action_error_share=share), "action_error_share"),
        (lambda share: Thresholds(dependency_failed_share=share), "dependency_failed_share"),
        (lambda share: Objectives(actions=share), "actions"),
        (lambda share: Objectives(http=share), "http"),
    ],
)
def test_a_share_is_between_nothing_and_all(make: Callable[[float], object], name: str, share: float) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{name} is {share!r}; accepted: a share between 0 and 1, both exc"):
        make(share)


@pytest.mark.parametrize("number", [0.0, -1.0, math.nan, math.inf])
def test_a_duration_or_a_rate_is_above_0(number: float) -> None:
    with pytest.raises(ConfigurationError, match=rf"^http_seconds is {number!r}; accepted: a number above 0$"):
        Thresholds(http_seconds=number)
    with pytest.raises(ConfigurationError, match=r"^min_per_minute is"):
        Thresholds(min_per_minute=number)


def test_a_budget_so_large_that_it_can_not_burn_fast_has_no_such_alert() -> None:
    usual = {alert.name for alert in alerts(Options())}
    large = {alert.name for alert in alerts(Options(objectives=Objectives(actions=0.8)))}
    assert usual - large == {"ActionBudgetBurnsFast"}
    (slow,) = (one for one in alerts(Options(objectives=Objectives(http=0.6))) if one.name == "HttpBudgetBurnsSlowly")
    assert "[3d]" in slow.expression
    assert "[1d]" not in slow.expression
