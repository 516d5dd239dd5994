"""Every rule of the check, by its own examples."""

import re

import pytest

from checking import codes, rule_file
from llm_common.catalog import CATALOGUE
from llm_common.monitoring.checking import pages
from llm_common.monitoring.checking.rules import ALWAYS, RULES
from llm_common.monitoring.checking.vocabulary import Vocabulary, vocabulary
from llm_common.reporting.rules import Rule

pytestmark = pytest.mark.once

SEEN = '# TYPE genapp_action_count_total counter\ngenapp_action_count_total{name="menu_handler"} 1\n'


def known_for(rule: Rule) -> Vocabulary:
    families = pages.families_in(SEEN) if rule.code == "MC303" else []
    return pages.with_pages(vocabulary(), families, CATALOGUE) if families else vocabulary()


def as_asset(text: str) -> bytes:
    """Return an example as what a file would have: an expression stands in a rule file."""
    if text == "\\xff\n":
        return b"\xff"
    return (text if text.startswith(("#", "{", "groups:")) else rule_file(text.strip())).encode()


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.code)
def test_the_examples_of_a_rule_are_wrong_once_and_right(rule: Rule) -> None:
    assert codes(as_asset(rule.wrong), known_for(rule)) == [rule.code]
    assert codes(as_asset(rule.right), known_for(rule)) == []


def test_codes_are_in_order_and_of_one_form() -> None:
    assert list(RULES) == sorted(RULES)
    assert all(re.fullmatch(r"MC\d{3}", code) for code in RULES)
    assert set(RULES) > ALWAYS
