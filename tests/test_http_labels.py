"""The label policy: what a method, a status and a resource look like, and what never reaches them."""

import re
from string import ascii_letters, digits

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llm_common.http_labels import (
    MAX_RESOURCE,
    METHODS,
    TELEGRAM,
    failure_label,
    method_label,
    path_label,
    status_label,
    template_label,
)

UUID = "123e4567-e89b-12d3-a456-426614174000"
TOKEN = "123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"  # the shape of a bot's token
SECRETS = st.text(alphabet=ascii_letters + digits + "_-", min_size=35, max_size=35)
PATHS = st.text(max_size=300) | st.text(alphabet="/?#%:;@.{}<>-_ab12Ü\ud800", max_size=60)


@pytest.mark.parametrize(
    ("method", "label"),
    [("GET", "GET"), ("post", "POST"), ("Query", "QUERY"), ("BREW", "_OTHER"), ("", "_OTHER"), ("PROPFIND", "_OTHER")],
)
def test_methods(method: str, label: str) -> None:
    assert method_label(method) == label


@given(st.text())
def test_a_method_is_one_that_the_standards_define_or_other(method: str) -> None:
    assert method_label(method) in METHODS | {"_OTHER"}
    assert method_label(method_label(method)) == method_label(method)


@pytest.mark.parametrize(
    ("status", "label"),
    [
        *((200, "200"), (999, "999"), (99, "error"), (1000, "error"), (-1, "error"), (True, "error")),
        *(("404", "404"), ("099", "error"), ("4040", "error"), ("²00", "error"), ("200\n", "error")),
        *(("error", "error"), ("timeout", "timeout"), ("cancelled", "cancelled"), ("fine", "error")),
        *((None, "error"), (200.5, "error"), (b"200", "error")),
    ],
)
def test_statuses(status: object, label: str) -> None:
    assert status_label(status) == label


@given(st.none() | st.integers() | st.floats() | st.text() | st.binary())
def test_a_status_is_three_digits_or_a_word(status: object) -> None:
    label = status_label(status)
    assert re.fullmatch(r"[1-9][0-9]{2}|error|timeout|cancelled", label)
    assert status_label(label) == label


class ReadTimeoutError(Exception):
    pass


class NewConnectionError(ReadTimeoutError):
    pass


@pytest.mark.parametrize(
    ("exception", "label"),
    [
        (ConnectionRefusedError(), "error"),
        (TimeoutError(), "timeout"),
        (ReadTimeoutError(), "timeout"),
        (NewConnectionError(), "error"),
        (KeyboardInterrupt(), "cancelled"),
        (GeneratorExit(), "cancelled"),
    ],
)
def test_failures(exception: BaseException, label: str) -> None:
    assert failure_label(exception) == label


@pytest.mark.parametrize(
    ("template", "label"),
    [
        *(("/", "/"), ("", "/"), ("//", "/"), ("/items/", "items"), ("/a//b", "a/b")),
        *(("/items/{item_id}", "items/{item_id}"), ("/items/{item_id:int}/", "items/{item_id}")),
        *((r"/items/{code:\d{4}}/x", "items/{code}/x"), ("/items/<int:item_id>", "items/{item_id}")),
        *(("/items/<item_id>", "items/{item_id}"), ("/files/{path:path}", "files/{path}")),
    ],
)
def test_templates(template: str, label: str) -> None:
    assert template_label(template) == label


@given(st.text(alphabet="/{}<>:ab", max_size=40))
def test_a_template_is_never_empty_and_has_no_outer_slashes(template: str) -> None:
    label = template_label(template)
    assert label == "/" or (label and label == label.strip("/"))


@pytest.mark.parametrize(
    ("path", "label"),
    [
        *(("/", "/"), ("", "/"), ("/v1/models", "v1/models"), ("//a//b/", "a/b"), ("/a;b=1/c", "a/c"), ("/;a", "/")),
        *(("/users/17/orders/3", "users/{int}/orders/{int}"), ("/v2/report2024.pdf", "v2/report{int}.pdf")),
        *((f"/jobs/{UUID}", "jobs/{uuid}"), (f"/jobs/{UUID.replace('-', '').upper()}/log", "jobs/{uuid}/log")),
        *(("/a?token=x#y", "a"), ("/a#token", "a"), ("https://user:pass@host:8080/a?b", "a"), ("https://host", "/")),
        *((f"/bot{TOKEN}/sendMessage", "sendMessage"), (f"/bot{TOKEN}", "/"), (f"/x/bot{TOKEN}/getMe", "getMe")),
        *((f"/file/bot{TOKEN}/photos/1.jpg", "file/{path}"), (f"/bot{TOKEN.replace(':', '%3A')}/getMe", "getMe")),
        *(
            (f"/bot{TOKEN.replace(':', '%253A')}/getMe", "getMe"),
            ("/eapi/secret/getMe", "getMe"),
            ("/%2525252541", "{token}"),
        ),
        *(("/keys/sk4f9a8b7c6d5e4f3a2b", "keys/{token}"), ("/a/user:pass@host/b", "a/{token}/b")),
        *(
            ("/a/x%3Fy", "a/{token}"),
            ("/" + "a" * 250, "{token}"),
            ("/ab" * 100, "{long}"),
            (f"/{TOKEN}bot1:x", "{token}"),
        ),
    ],
)
def test_paths(path: str, label: str) -> None:
    assert path_label(path) == label


def test_what_follows_bot_is_a_token_where_telegram_is_asked() -> None:
    assert path_label("/botANYTHING/sendMessage", TELEGRAM) == "sendMessage"
    assert path_label("/bottles/7", "shop_api") == "bottles/{int}"
    assert path_label("/bot", TELEGRAM) == "{token}"


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("/123456789:AAE-hidden_secret/getMe", "getMe"),
        ("/bot/123:AAE-hidden/sendMessage", "sendMessage"),
        ("/bot123456789/AAE-hidden/sendMessage", "sendMessage"),
        ("/bot123:hidden", "{token}"),
        ("/hidden-1", "{token}"),
        ("/file/bot123:hidden/photos/a.jpg", "file/{path}"),
        ("/", "/"),
    ],
)
def test_of_what_telegram_is_asked_only_the_method_is_shown(path: str, label: str) -> None:
    assert path_label(path, TELEGRAM) == label


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("/a%3Bsid=hidden", "a"),
        ("/eapi%2Fhidden%2FsendMessage", "{token}"),
        ("/EAPI/hidden/sendMessage", "sendMessage"),
        ("/%20eapi/hidden/sendMessage", "sendMessage"),
        ("/123456789:AAE-hidden_secret/getMe", "{token}/getMe"),
        ("/bot+123:hidden/getMe", "getMe"),
        ("/bot-123:hidden/getMe", "getMe"),
        ("/bot\uff11\uff12:hidden/getMe", "getMe"),
        ("/bothidden:123/getMe", "getMe"),
        ("/p/user%3Ap%2Fw%40host", "p/{token}"),
        ("/bot123%25252525253Ahidden/getMe", "{token}/getMe"),
        ("/a%2525253Fapi_key=hidden", "{token}"),
        ("/api_key=hidden/x", "{token}/x"),
        ("/k/sk-hiddenhidden-hidden", "k/{token}"),
        ("/users/john.hidden@example.com", "users/{token}"),
        ("/x%0Ahidden", "{token}"),
        ("/x%E2%80%8Bhidden", "{token}"),
        ("/x\u202ehidden", "{token}"),
        ("/a\\hidden", "{token}"),
    ],
)
def test_what_could_be_a_secret_or_is_no_name_is_left_out(path: str, label: str) -> None:
    assert path_label(path) == label
    assert "hidden" not in path_label(path, TELEGRAM)


@given(PATHS, st.sampled_from(["", "llm", TELEGRAM]))
def test_a_resource_is_never_empty_nor_long_and_stays_what_it_is(path: str, app_type: str) -> None:
    label = path_label(path, app_type)
    assert 0 < len(label) <= MAX_RESOURCE
    assert label == "/" or label == label.strip("/")
    assert "?" not in label
    assert "#" not in label


@given(st.integers(10**7, 10**10), SECRETS, PATHS, st.sampled_from(["", "file/", "a/b/"]), st.booleans())
def test_no_bot_token_reaches_a_label(number: int, secret: str, rest: str, prefix: str, quoted: bool) -> None:
    assume(secret not in rest)
    colon = "%3A" if quoted else ":"
    for app_type in ("", TELEGRAM):
        assert secret not in path_label(f"/{prefix}bot{number}{colon}{secret}/{rest}", app_type)
        assert secret not in path_label(f"https://api.telegram.org/{prefix}bot{number}{colon}{secret}", app_type)


@given(SECRETS, PATHS)
def test_no_query_reaches_a_label(secret: str, rest: str) -> None:
    for mark in "?#":
        assert secret not in path_label(f"/v1/chat{mark}token={secret}&{rest}")


@given(SECRETS, st.sampled_from(["http", "https", "ftp", "svn+ssh"]), PATHS)
def test_no_credentials_reach_a_label(secret: str, scheme: str, rest: str) -> None:
    assume(secret not in rest)
    assert secret not in path_label(f"{scheme}://user:{secret}@host/{rest}")
    assert secret not in path_label(f"{scheme}://{secret}@host:80")
    assert secret not in path_label(f"/proxy/{scheme}%3A%2F%2Fuser:{secret}@host/x")
    assert secret not in path_label(f"/proxy/user:{secret}@host/x")


@given(st.integers(0, 10**12), st.uuids())
def test_numbers_and_uuids_leave_no_series_behind(number: int, uuid: object) -> None:
    assert path_label(f"/users/{number}/jobs/{uuid}") == "users/{int}/jobs/{uuid}"


@pytest.mark.parametrize("unit", ["/", "a", "1", "%25", "{", "<", ":", "@", "bot1:", "://", "a/", "0-", ";", "é"])
def test_long_input_costs_no_more_than_its_length(unit: str) -> None:
    """A pattern that backtracks would not come back from this."""
    long = unit * 50_000
    assert len(path_label(long)) <= MAX_RESOURCE
    assert template_label.__wrapped__(long)


@pytest.mark.parametrize("unit", ["{", "{a", "{a{b}", "<a:", "{{}", "}"])
def test_a_long_template_costs_no_more_than_its_length(unit: str) -> None:
    assert template_label.__wrapped__(unit * 20_000)
