# The two commands of the README come first: `make demo` and `make test`.
CARGO ?= cargo
BINARY = $(or $(CARGO_TARGET_DIR),target)/release/highwater
DENY_VERSION = 0.20.2

# The whole of it in one terminal. It ends by itself where nobody is there to press Ctrl-C, and with ONCE=1.
.PHONY: demo
demo: release
	@if [ -n "$(ONCE)" ] || [ ! -t 1 ]; then $(BINARY) demo --once; else $(BINARY) demo; fi

# The same story on a real Kafka and a real ClickHouse engine (see scripts/services): two nodes, one is killed on the way.
.PHONY: demo-cluster
demo-cluster: release
	@eval "$$(scripts/services up)"; once=--once; if [ -z "$(ONCE)" ] && [ -t 1 ]; then once=; fi; \
	  $(BINARY) demo --kafka "$$HIGHWATER_TEST_KAFKA" --clickhouse "$$HIGHWATER_TEST_CLICKHOUSE" $$once; code=$$?; \
	  scripts/services down; exit $$code

# Everything: unit, contract, property, API, crash and cluster tests, the last against a real Kafka and a real ClickHouse
# engine that scripts/services starts (it needs Java 17, Maven, npm and Python 3), then the examples (they need Go too), then
# the API against its description. HIGHWATER_TEST_CRASH_ROUNDS=500 makes
# the crash test longer, HIGHWATER_TEST_REPEAT_ROUNDS=200 that of repetitions, HIGHWATER_TEST_TIMING_SAMPLES=100000 (with --release)
# that of timing.
.PHONY: test
test:
	@eval "$$(scripts/services up)"; export HIGHWATER_TEST_SERVICES=required; \
	  $(CARGO) test --locked; code=$$?; scripts/services down; [ $$code = 0 ] || exit $$code; \
	  scripts/examples $(or $(CARGO_TARGET_DIR),target)/debug/highwater && \
	  scripts/conformance $(or $(CARGO_TARGET_DIR),target)/debug/highwater

# examples/ and the first steps of the README, against fresh servers of the binary that is built (it builds nothing).
# It needs curl, Python 3, Node.js with npm, and Go.
.PHONY: examples
examples:
	@scripts/examples

# The API against its own OpenAPI document, with the debug binary that is built (it builds nothing). It needs Python 3 with venv.
# scripts/conformance --random asks for longer, under another seed.
.PHONY: conformance
conformance:
	@scripts/conformance

# The faults one after the other, with their long variants, and a table of what was accepted, counted and repeated.
.PHONY: faults
faults:
	@eval "$$(scripts/services up)"; export HIGHWATER_TEST_SERVICES=required HIGHWATER_TEST_FAULTS=long; \
	  log="$$(mktemp)"; $(CARGO) test --locked --test it outages:: -- --nocapture --test-threads=1 >"$$log" 2>&1; code=$$?; \
	  echo '| fault | accepted before | during | accepted | counted | lost | doubled | sent again | pages + repeats | accepts again | counts again |'; \
	  echo '|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|'; grep -a '^| ' "$$log"; \
	  if [ $$code != 0 ]; then tail -n 40 "$$log"; fi; echo "The whole output is $$log"; scripts/services down; exit $$code

# What a change must pass beside the tests. It installs cargo-deny where it is missing.
.PHONY: lint
lint: deny compatible
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items --quiet
	$(CARGO) deny check licenses bans sources

# The released OpenAPI document against the present one: what breaks a client is refused. A release copies the present one there.
.PHONY: compatible
compatible:
	@scripts/compatible --test
	@scripts/compatible schemas/released/openapi-v0.json schemas/openapi.json

.PHONY: deny
deny:
	@$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install cargo-deny --version $(DENY_VERSION) --locked

.PHONY: release
release:
	$(CARGO) build --locked --release

# The figures of the README, on this machine.
.PHONY: bench
bench:
	$(CARGO) bench --locked --bench fold --bench recovery --bench rules --bench serve --bench requests

# A million events from a topic into ClickHouse, beside ClickHouse's own Kafka engine.
.PHONY: bench-cluster
bench-cluster:
	@eval "$$(scripts/services up)"; $(CARGO) bench --locked --bench cluster; code=$$?; scripts/services down; exit $$code

# Writes the checked-in OpenAPI document anew.
.PHONY: schemas
schemas:
	$(CARGO) run --locked --quiet -- openapi > schemas/openapi.json
