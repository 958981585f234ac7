#!/usr/bin/env bash
# The first six calls, against a fresh highwater: CLOUD_API_KEY is an owner key, CLOUD_API_URL its address.
set -euo pipefail

api="${CLOUD_API_URL:-http://127.0.0.1:8080/v1}"
auth="Authorization: Bearer $CLOUD_API_KEY" json='Content-Type: application/json'

# expect STATUS CONDITION ARGUMENTS...: calls, shows and keeps the answer; the condition is Python about its JSON, `a`.
expect() {
  local status="$1" condition="$2" said
  shift 2
  said="$(curl -sS --max-time 30 -w '\n%{http_code}' "$@")"
  answer="${said%$'\n'*}"
  printf '%s %s\n' "${said##*$'\n'}" "$(printf '%.300s' "$answer" | sed 's/pk_live_[0-9A-Za-z]*_[0-9A-Za-z]*/pk_live_…/g')"
  [[ "${said##*$'\n'}" == "$status" ]] || { echo "expected $status of: curl $*" >&2; exit 1; }
  python3 -c 'import json, sys; a = json.loads(sys.argv[1]); assert eval(sys.argv[2]), "not so: " + sys.argv[2]' "$answer" "$condition"
}

# What the calls are about: more projects than a page holds, a Slack channel, an account with usage.
for name in $(seq 25) Payments; do
  curl -sSf --max-time 30 -o /dev/null "$api/projects" -H "$auth" -H "$json" -d "{\"name\": \"$name\", \"env\": \"prod\"}"
done
expect 201 'a["type"] == "slack"' "$api/channels" -H "$auth" -H "$json" \
  -d '{"type": "slack", "name": "ops", "url": "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX"}'
expect 202 'a["accepted"] == 1' "$api/events" -H "$auth" -H "$json" \
  -d '{"id": "first", "account_id": "acc_123", "metric": "api.requests", "value": 861}'
receipt="$(python3 -c 'import json, sys; print(json.loads(sys.argv[1])["receipt"])' "$answer")"

# 1. Without credentials
expect 401 'a["code"] == "authentication_required" and a["status"] == 401' "$api/projects"

# 2. The projects
expect 200 'a["items"][0]["name"] == "Payments" and a["items"][0]["id"].startswith("prj_") and a["page"] == 1 and a["has_more"] is True' \
  "$api/projects" -H "Authorization: Bearer $CLOUD_API_KEY"
project_id="$(python3 -c 'import json, sys; print(json.loads(sys.argv[1])["items"][0]["id"])' "$answer")"

# 3. One project
expect 200 'a["id"].startswith("prj_") and (a["name"], a["env"]) == ("Payments", "prod") and isinstance(a["requests_24h"], int)' \
  "$api/projects/$project_id" -H "$auth"

# 4. A key that may read projects, for 90 days
expect 201 'a["key_id"].startswith("key_") and a["prefix"] == "pk_live_" and a["scope"] == ["read:projects"] and a["expires_at"].endswith("Z")' \
  "$api/api-keys" -H "$auth" -H "$json" -d '{"name": "ci", "scope": ["read:projects"], "expires_in": "90d"}'

# 5. Usage in windows of five minutes; `after` waits for what the receipt stands for
expect 200 'a["window"] == "5m" and sum(item["value"] for item in a["items"]) == 861' \
  "$api/accounts/acc_123/usage?window=5m&after=$receipt" -H "$auth"
expect 200 'a["account_id"] == "acc_123"' "$api/accounts/acc_123/usage?window=5m" -H "$auth"

# 6. An alert
expect 201 'a["id"].startswith("alr_") and a["rule"] == "quota_percent > 85" and a["channel"] == "slack"' \
  "$api/alerts" -H "$auth" -H "$json" -d '{"account_id":"acc_123","rule":"quota_percent > 85","channel":"slack"}'
