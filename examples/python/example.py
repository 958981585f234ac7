"""Sends events and verifies the page that an alert sends.

pip install --require-hashes -r requirements.txt; CLOUD_API_KEY=pk_live_… python example.py
"""

import http.server
import json
import os
import queue
import threading
import time
import urllib.error
import urllib.request
import uuid

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

API = os.environ.get("CLOUD_API_URL", "http://127.0.0.1:8080/v1")
KEY = os.environ["CLOUD_API_KEY"]


def call(method, path, body=None):
    """Calls the API. 429, 500 and 503 are tried again; one key for all tries makes that safe."""
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json", "idempotency-key": str(uuid.uuid4())}
    data = None if body is None else json.dumps(body).encode()
    for attempt in range(5):
        try:
            request = urllib.request.Request(API + path, data, headers, method=method)
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code not in (429, 500, 503) or attempt == 4:
                raise SystemExit(f"{method} {path}: {error.code} {error.read().decode()}")
            time.sleep(int(error.headers.get("retry-after", 2**attempt)))


received = queue.Queue()


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        received.put((dict(self.headers), body))  # the bytes as they came: a body that is written anew has another signature
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
threading.Thread(target=server.serve_forever, daemon=True).start()

account = f"acc_{uuid.uuid4().hex[:12]}"
call("PUT", f"/accounts/{account}/quotas/api.requests", {"limit": 100, "period": "month"})
url = f"http://127.0.0.1:{server.server_port}/page"
channel = call("POST", "/channels", {"type": "webhook", "name": "example", "url": url})
call("POST", "/alerts", {"account_id": account, "rule": "quota_percent > 85", "channel": channel["id"]})

# Each event has an id, so that one which is sent twice counts once.
events = [{"id": f"{account}-{n}", "account_id": account, "metric": "api.requests", "value": 10} for n in range(9)]
for _ in range(2):
    receipt = call("POST", "/events/batch", {"events": events})["receipt"]
usage = call("GET", f"/accounts/{account}/usage?window=5m&after={receipt}")
assert usage["quotas"][0]["used"] == 90, usage

headers, body = received.get(timeout=30)
webhook = Webhook(channel["secret"])
page = webhook.verify(body, headers)
assert page["type"] == "alert.firing" and page["data"]["account_id"] == account, page
try:
    webhook.verify(body + b" ", headers)
except WebhookVerificationError:
    print(f"python: {page['type']} of {account} is genuine, and a forged one is not")
else:
    raise SystemExit("a forged body was taken")
