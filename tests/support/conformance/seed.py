"""Puts something of everything into a fresh server, so that what is asked for by id is there, and prints the credentials
that the suites use beside CONFORMANCE_KEY: seed.py http://HOST:PORT"""

import json
import os
import sys
import time
import urllib.request

api, key = sys.argv[1] + "/v1", os.environ["CONFORMANCE_KEY"]


def call(method, path, body=None, credential=key):
    headers = {"Authorization": f"Bearer {credential}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(api + path, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def await_item(path):
    """The first item of a list that fills behind our back, within ten seconds."""
    for _ in range(100):
        items = call("GET", path)["items"]
        if items:
            return items[0]
        time.sleep(0.1)
    sys.exit(f"nothing came to {path}")


# Nobody listens there, and nothing leaves this machine.
nowhere = "http://127.0.0.1:9/hook"
call("POST", "/accounts", {"id": "acc_123", "name": "Example"})
call("PUT", "/metrics/api.requests", {"unit": "requests", "aggregate": "sum", "group_by": ["region"]})
call("PUT", "/accounts/acc_123/quotas/api.requests", {"limit": 100, "period": "day"})
project = call("POST", "/projects", {"name": "Payments", "env": "prod"})["id"]
channel = call("POST", "/channels", {"type": "webhook", "name": "On call", "url": nowhere, "default": True})["id"]
webhook = call("POST", "/webhooks", {"url": nowhere})["id"]
call("POST", "/alerts", {"account_id": "acc_123", "rule": "quota_percent > 85", "channel": channel, "project_id": project})
day = 24 * 3600
moment = lambda seconds: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
matcher = {"name": "severity", "value": "info"}
call("POST", "/silences", {"matchers": [matcher], "starts_at": moment(0), "ends_at": moment(30 * day)})
event = {"account_id": "acc_123", "metric": "api.requests", "value": 90, "id": "one", "dimensions": {"region": "eu"}}
call("POST", "/events", event)
# The same id with another content is set aside.
call("POST", "/events", event | {"value": 91})
call("POST", f"/webhooks/{webhook}/test", {})
await_item(f"/webhooks/{webhook}/deliveries")
await_item("/quarantine")
await_item("/incidents")

client = call("POST", "/oauth/clients", {"name": "Conformance", "role": "owner"})
sandbox = call("POST", "/api-keys", {"name": "Sandbox", "role": "owner", "mode": "sandbox"})
print(f"CONFORMANCE_KEY_ID={call('GET', '/whoami')['key_id']}")
print(f"CONFORMANCE_CLIENT_ID={client['id']}")
print(f"CONFORMANCE_CLIENT_SECRET={client['client_secret']}")
print(f"CONFORMANCE_SANDBOX_KEY={sandbox['key']}")
