"""Every rule of the check as data: the report, ``--explain`` and the documentation follow from it.

An example is an expression, a rule file, a dashboard, or a page of metrics.
"""

from collections.abc import Mapping
from types import MappingProxyType

from llm_common.reporting.rules import Rule, rule

ACTION = {"name": "menu_handler", "status": "ok", "env": "prod", "app": "shop_bot"}


def counted(*values: str, kind: str = "counter", **labels: str) -> str:
    """Return a page that counts actions, one line for each value."""
    shown = ",".join(f'{label}="{value}"' for label, value in (ACTION | labels).items() if value)
    lines = "".join(f"genapp_action_count_total{{{shown}}} {value}\n" for value in values)
    return f"# TYPE genapp_action_count_total {kind}\n{lines}"


def histogram(name: str, labels: str, in_bucket: str = "1.0") -> str:
    """Return a page with a histogram of two buckets."""
    return (
        f"# TYPE {name} histogram\n"
        f'{name}_bucket{{{labels},le="1.0"}} {in_bucket}\n'
        f'{name}_bucket{{{labels},le="+Inf"}} 1.0\n'
        f"{name}_sum{{{labels}}} 0.2\n"
        f"{name}_count{{{labels}}} 1.0\n"
    )


SERVED = 'method="GET",status="200",resource="/",app_type="app_api",env="prod",app="shop_bot"'
STREAMED = 'name="answer_llm_call",env="prod",app="shop_bot"'

ALL = [
    rule(
        "MC101",
        "a metric that doesn't exist",
        """The query returns nothing, so a panel stays empty and an alert never fires. Names with the prefix
        `genapp_` are compared with the catalogue, and with what rules record; all others only where `--metrics`
        shows what the application has.""",
        'sum by (app) (rate(genapp_actions_total{status="error"}[5m]))',
        'sum by (app) (rate(genapp_action_count_total{status="error"}[5m]))',
    ),
    rule(
        "MC201",
        "a label that the metric doesn't have",
        """A matcher of a label that isn't there selects nothing, or everything where its value may be empty.
        `instance` and `job` are what Prometheus adds; `--target-label` names others that your scrape configuration
        adds.""",
        'genapp_action_size_total{status="ok"}',
        'genapp_action_count_total{status="ok"}',
    ),
    rule(
        "MC202",
        "a label that the series at that place don't have",
        """Grouping by it makes one group of all, matching on it compares what doesn't belong together. An
        aggregation keeps the labels in its `by` and no others.""",
        "sum by (name, resource) (rate(genapp_action_count_total[5m]))",
        "sum by (name, app) (rate(genapp_action_count_total[5m]))",
    ),
    rule(
        "MC203",
        "a text that names a label which the result doesn't have",
        """Legends (`{{app}}`), links (`${__field.labels.app}`) and annotations of alerts (`{{ $labels.app }}`) show
        an empty text in its place.""",
        """
        groups:
          - name: actions
            rules:
              - alert: ActionsFail
                expr: sum by (app) (rate(genapp_action_count_total{status="error"}[5m])) > 1
                annotations:
                  summary: "{{ $labels.name }} fails"
        """,
        """
        groups:
          - name: actions
            rules:
              - alert: ActionsFail
                expr: sum by (app, name) (rate(genapp_action_count_total{status="error"}[5m])) > 1
                annotations:
                  summary: "{{ $labels.name }} fails"
        """,
    ),
    rule(
        "MC301",
        "a value that the label never has",
        """The values of `status`, `method`, `direction`, `token_type` and `app_type` are part of the contract. Of a
        regular expression, each alternative has to match one of them.""",
        'rate(genapp_action_count_total{status=~"error|canceled"}[5m])',
        'rate(genapp_action_count_total{status=~"error|cancelled"}[5m])',
    ),
    rule(
        "MC302",
        "a value of le that is no bound of the histogram",
        """There is a bucket for each bound and for nothing in between, so the query returns nothing. Bounds are
        compared as numbers: those of the settings in force (`pyproject.toml` and environment), or of the page that
        `--metrics` names.""",
        'sum(rate(genapp_action_duration_sec_bucket{le="4"}[5m]))',
        'sum(rate(genapp_action_duration_sec_bucket{le="5"}[5m]))',
    ),
    rule(
        "MC303",
        "a value that the page doesn't show",
        """Compared with a page that `--metrics` names: the name of an action, a route or a model is misspelt, or it
        just hasn't happened there yet. `env` and `app` aren't compared.""",
        'genapp_action_count_total{name="menu_handlr"}',
        'genapp_action_count_total{name="menu_handler"}',
        warning=True,
    ),
    rule(
        "MC401",
        "a rate of what isn't a counter",
        """`rate`, `irate` and `increase` take each fall of a value for a restart. A gauge falls, and so does what a
        rule recorded as a rate.""",
        "sum(rate(genapp_action_in_progress[5m]))",
        "sum(genapp_action_in_progress)",
    ),
    rule(
        "MC402",
        "a quantile of what has no buckets",
        """`histogram_quantile` reads the label `le`, which only series that end with `_bucket` have, and which an
        aggregation has to keep.""",
        "histogram_quantile(0.95, sum by (name) (rate(genapp_action_duration_sec_bucket[5m])))",
        "histogram_quantile(0.95, sum by (name, le) (rate(genapp_action_duration_sec_bucket[5m])))",
    ),
    rule(
        "MC403",
        "a rate of a sum",
        """A sum over instances falls when one of them restarts; its rate takes that for a restart of all, and shows
        growth that never was.""",
        "rate(sum(genapp_action_count_total)[5m:1m])",
        "sum(rate(genapp_action_count_total[5m]))",
    ),
    rule(
        "MC501",
        "a page with a metric of our prefix that the catalogue lacks",
        """Names that begin with `genapp_` are the contract's. Dashboards don't know this one, and a later version
        may give the name another meaning.""",
        counted("1.0").replace("action_count", "actions"),
        counted("1.0"),
    ),
    rule(
        "MC502",
        "a page with a metric of another type",
        "Tools decide by the type what can be asked; a page without the comment `# TYPE` is wrong as well.",
        counted("1.0", kind="gauge"),
        counted("1.0"),
    ),
    rule(
        "MC503",
        "a page with labels that aren't those of the contract",
        "Dashboards sum by these labels: what is missing falls out of them, what is more multiplies the series.",
        counted("1.0", status=""),
        counted("1.0"),
    ),
    rule(
        "MC504",
        "a page with a value that the label can't have",
        "Alerts ask for the contract's values, and never see this one.",
        counted("1.0", status="success"),
        counted("1.0"),
    ),
    rule(
        "MC505",
        "a page with _created series",
        """prometheus_client adds a series with the time of creation to each counter and histogram. They double what
        Prometheus keeps, and the contract doesn't have them.""",
        counted("1.0") + counted("1.7e+09", kind="gauge").replace("_total", "_created"),
        counted("1.0"),
    ),
    rule(
        "MC506",
        "a page with a series twice",
        """Prometheus keeps one of the two values, or refuses the whole page: the other is lost. Two that count the same
        add up only in one registry, as one series.""",
        counted("1.0", "2.0"),
        counted("3.0"),
    ),
    rule(
        "MC507",
        "a page with a histogram that lacks bounds of the contract",
        """Quantiles are summed over applications by their bounds. Where one lacks a bound that the others have, the
        sum falls there, and the quantile is wrong. Other histograms may have any bounds.""",
        histogram("genapp_http_request_duration_sec", SERVED),
        histogram("genapp_action_first_item_sec", STREAMED),
    ),
    rule(
        "MC508",
        "a page with a histogram that doesn't add up",
        "Each bucket counts what is in the smaller ones too; the last is `+Inf`, and the same as the count.",
        histogram("genapp_action_first_item_sec", STREAMED, in_bucket="2.0"),
        histogram("genapp_action_first_item_sec", STREAMED),
    ),
    rule(
        "MC509",
        "a page with a counter that isn't a count",
        "A counter is 0 or more and only grows. A negative or missing number makes every sum that it is in wrong.",
        counted("NaN"),
        counted("1.0"),
    ),
    rule(
        "MC510",
        "a page of several applications",
        """One process is one application in one environment. More of them on a page are a `configure()` that came
        after the first action, or counters that were written by hand.""",
        counted("1.0") + counted("1.0", env="dev"),
        counted("2.0"),
    ),
    rule(
        "MC511",
        "a page that reached the limit of series",
        "New names are counted together as `{other}` from then on; some name or path is built from data.",
        counted("1.0", name="{other}"),
        counted("1.0"),
        warning=True,
    ),
    rule(
        "MC512",
        "a page with an action whose name breaks the rules",
        """Names are in snake_case, with one suffix at most: dashboards filter on it. `llm-common lint` shows where
        it is written.""",
        counted("1.0", name="openMenu_handler"),
        counted("1.0", name="open_menu_handler"),
        warning=True,
    ),
    rule(
        "MC513",
        "a page without any metric of ours",
        "It may be the page of something else, or of an application that has done nothing yet.",
        """
        # TYPE shop_orders_total counter
        shop_orders_total 1.0
        """,
        counted("1.0"),
        warning=True,
    ),
    rule(
        "MC901",
        "a file that is neither a dashboard, nor rules, nor a page",
        """It isn't valid JSON, YAML or exposition format, or has something else in it, so nothing of it was checked.
        In folders, files with something else in them are passed over.""",
        '{"panels": [',
        '{"panels": []}',
    ),
    rule(
        "MC902",
        "a file or page that can't be read",
        """The file can't be opened, isn't UTF-8 or is too large; or the server refuses, sends on to another address,
        or gives no answer in time.""",
        "\\xff",
        "genapp_action_in_progress",
    ),
    rule(
        "MC903",
        "an expression that isn't PromQL",
        """Prometheus refuses it, and refuses to start with a rule file that has it. Variables of Grafana are
        replaced by something that fits before the expression is parsed.""",
        "sum by (app) (rate(genapp_action_count_total[5m])",
        "sum by (app) (rate(genapp_action_count_total[5m]))",
    ),
]

RULES: Mapping[str, Rule] = MappingProxyType({one.code: one for one in ALL})
"""Each rule by its code, in order."""

ALWAYS = frozenset({"MC901", "MC902"})
"""What ``select`` doesn't take out: that something wasn't checked must not look like something without findings."""
