"""What Schemathesis must not do to the server, what no schema can tell it, and what it looks at beside its own checks."""

import itertools
import os
import re

import schemathesis

OWN_IDS = (os.environ["CONFORMANCE_KEY_ID"], os.environ["CONFORMANCE_CLIENT_ID"])
# Nobody listens there.
NOWHERE = "http://127.0.0.1:9/hook"
counter = itertools.count()


@schemathesis.hook
def before_call(context, case, kwargs):
    spare(case)
    tell(case.query, case.headers)
    # The client authenticates in its header, and in one way alone.
    if case.path.startswith("/v1/oauth/") and case.media_type == "application/x-www-form-urlencoded" and isinstance(case.body, dict):
        case.body = {name: value for name, value in case.body.items() if name not in ("client_id", "client_secret")}


def spare(case):
    """Nothing leaves this machine, whatever hosts are made up; and the suite does not saw off the branch that it sits on."""
    path, body = case.path_parameters or {}, case.body
    if case.method != "GET" and path.get("id") in OWN_IDS:
        path["id"] = path["id"][:-1] + ("0" if path["id"][-1] != "0" else "1")
    if isinstance(body, dict):
        for name in ("url", "slack_api_url"):
            if isinstance(body.get(name), str) and re.match(r"\s*https?:", body[name], re.I) and len(body[name]) <= 2048:
                body[name] = NOWHERE
        if body.get("require_idempotency_key") is True:
            body["require_idempotency_key"] = False


def tell(query, headers):
    """What is well-formed and yet wrong, since the server alone can make it or since it depends on what stands beside it."""
    if query:
        for name, form in (("cursor", r"[A-Za-z0-9_-]+"), ("after", r"rcp_[A-Za-z0-9_-]+")):
            if isinstance(query.get(name), str) and re.fullmatch(form, query[name]):
                del query[name]
        # Pages reach 10,000 items.
        if re.fullmatch(r"[0-9]{1,5}", str(query.get("page"))) and 100 < int(query["page"]) <= 10_000:
            query["page"] = 100
    if headers:
        if re.fullmatch(r"rcp_[A-Za-z0-9_-]+", str(headers.get("Last-Event-ID"))):
            del headers["Last-Event-ID"]
        # One that was used for another request is refused.
        if re.fullmatch(r"[\x21\x23-\x7e][\x21-\x7e]{0,254}|\"[\x21-\x7e]{1,255}\"", str(headers.get("Idempotency-Key", ""))):
            headers["Idempotency-Key"] = f"conformance-{next(counter)}"


@schemathesis.check
def refusals_say_when(context, response, case):
    """Every 429 says when to ask again, and that of a rate limit how its key stands."""
    if response.status_code != 429:
        return
    needed = ["retry-after"]
    if response.json().get("violated-policies", ["auth-failures"]) != ["auth-failures"]:
        needed += ["ratelimit", "ratelimit-policy", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"]
    missing = [name for name in needed if name not in response.headers]
    assert not missing, f"429 without {', '.join(missing)}"
