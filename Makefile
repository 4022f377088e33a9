# `make run` starts the service, `make test` is what a change must pass; the rest are parts of it or beside it.

.DEFAULT_GOAL := help
.PHONY: help run build dist sbom check test test-ready test-fetched test-build web pictures test-web test-page test-page-more test-page-long test-rust test-unprivileged test-unheard test-walk test-prometheus test-client test-clients test-python test-mcp test-mcp-conformance test-examples docs book recording spelling lint workflows \
	release-check deny advisories test-manifests test-image test-docker test-deb test-vm test-static deb test-arm64 test-real-work soak soak-cluster fuzz \
	guards schemathesis bench release-upload image-push clean

CARGO ?= cargo
# Tools of these versions are built from source once (minutes, on two cores) and kept here.
TOOLS := target/tools
CARGO_DENY := $(TOOLS)/cargo-deny-0.20.2/bin/cargo-deny
# The same version is in the Dockerfile.
CARGO_AUDITABLE := $(TOOLS)/cargo-auditable-0.7.7/bin/cargo-auditable
CARGO_CYCLONEDX := $(TOOLS)/cargo-cyclonedx-0.5.9/bin/cargo-cyclonedx
# What the benchmarks are compared with, among others.
PUEUE := $(TOOLS)/pueue-4.0.4/bin/pueue
# Kubernetes' schemas, 120 MB of them.
KUBERNETES_VALIDATE := $(TOOLS)/kubernetes-validate-1.37.0
# GitHub's schema of workflows, among others.
CHECK_JSONSCHEMA := $(TOOLS)/check-jsonschema-0.39.0
HOST := $(shell rustc -vV | sed -n 's/^host: //p')

# One process a test with nextest where it is installed, else cargo's own runner.
HAS_NEXTEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo yes)
TEST_RUNNER := $(if $(HAS_NEXTEST),nextest run,test)
# Tests wait for processes and timers more than they compute.
export NEXTEST_TEST_THREADS ?= $(shell echo $$((4 * $$(nproc))))
# What the tests run, besides Debian's essential packages.
TEST_NEEDS := make cc=build-essential curl perl python3 setsid=util-linux tmux vi=vim-tiny top=procps nginx=nginx-light pg_ctlcluster=postgresql pgbouncer
# And what other parts of `make test` do.
MORE_TEST_NEEDS := chromium go=golang-go node=nodejs npm
# `make check` without nextest: the names in its profile.
CHECK_TESTS = $(shell sed -n '/profile.check/,$$s/.*test.=\([a-z0-9_:]*\).*/\1/p' .config/nextest.toml)
# What does not read the log of its service, and is none of the long ones.
UNHEARD := not (test(monitors::) + test(surroundings::) + test(faults::) + test(webhooks::) + test(crash::) + test(upgrade::) + test(real_work::) + test(notices::) + test(operators::))
# The account of the run without privileges, and what it runs: what differs by them.
TEST_USER ?= procession-test
UNPRIVILEGED_TESTS ?= cli::run:: containment:: control:: defaults:: disk:: faults::lost:: faults::points:: life:: \
	sandbox:: shutdown:: socket:: spawn:: startup:: stop:: surroundings:: terminal:: upgrade::

help:
	@echo 'make run                start the service on http://127.0.0.1:8080'
	@echo 'make check              before a commit: rustfmt, clippy, unit tests, a few integration tests'
	@echo 'make test               what a change must pass: the parts that follow'
	@echo 'make test-rust          unit, property, integration and security tests'
	@echo 'make test-unprivileged  what privilege changes again as an ordinary user, when root'
	@echo 'make test-mcp           the tools of agents, with the Python and TypeScript libraries of their protocol'
	@echo 'make test-mcp-conformance   the conformance tests of that protocol, as far as they are made for any server'
	@echo 'make test-client        a Python client generated from openapi.yaml, used on a real service'
	@echo 'make test-examples      each of examples/, on a real service'
	@echo 'make test-python        the Python package in clients/python, on a real service'
	@echo
	@echo 'make lint               rustfmt, clippy, rustdoc, spelling, links, the workflows (continuous integration: .ci/run)'
	@echo 'make web                build the page into web/dist, which is committed (needs Node 20 or newer)'
	@echo 'make docs               the generated parts of docs/, which are committed'
	@echo 'make book               the documentation as a site, in target/book/html'
	@echo 'make recording          the recording in README, of a real service in a terminal'
	@echo 'make pictures           the pictures of README and docs, of a real service (ten minutes)'
	@echo 'make test-web           the page: types, unit tests, and web/dist is what its sources give (needs Node)'
	@echo 'make test-page          the page in a browser, on a real service (needs Node and Chromium)'
	@echo 'make test-manifests     packaging/kubernetes, against the schemas of Kubernetes, and the compose files of clusters'
	@echo 'make test-image         the image, with the program of `make build` (its own Docker engine where none answers, as root)'
	@echo
	@echo 'make release-check      before a release: the parts that follow (an hour or more, as root)'
	@echo 'make test-unheard       the tests with a log that cannot be written, and with one that nobody reads'
	@echo 'make deny               licences, sources and bans of the dependencies'
	@echo 'make test-clients       clients of the most used generators, made from openapi.yaml, each running a job'
	@echo 'make test-walk          README as a new user follows it: clone, service, job, stop, page, package, with times'
	@echo 'make test-prometheus    metrics, alerts and dashboard, with a real Prometheus'
	@echo 'make test-page-more     the page: all other journeys, accessibility of every view, small screens, a proxy, TLS, a cluster'
	@echo 'make test-page-long     the page: a log of 1 GB, a fast writer, hundreds of jobs a second'
	@echo 'make test-docker        the image as the Dockerfile builds it'
	@echo 'make test-deb           the Debian package installed, upgraded under a job, removed and purged, as root'
	@echo 'make test-vm            a virtual machine with systemd and cgroup v2, as root'
	@echo 'make test-static        the static program: built, in a Debian package, and on the oldest kernel, as root'
	@echo 'make test-arm64         compiled for arm64, with the tests of sandbox and child processes in an emulator'
	@echo 'make test-real-work     a C project is built from its Debian source as a job (needs the network)'
	@echo 'make guards             every guard taken away, one at a time: a test must miss it (minutes)'
	@echo 'make fuzz               every fuzz target for FUZZ_SECONDS (600), FUZZ_JOBS (1) at a time, from the seeds that are kept'
	@echo 'make schemathesis       random requests made from openapi.yaml for SECONDS (600)'
	@echo 'make soak               the fault suite for long: 300 kills, failpoints 100 times, 100,000 jobs, 100 diamonds (hours)'
	@echo
	@echo 'make dist               the release binary with its list of dependencies, SBOM and checksums, in target/dist'
	@echo 'make deb                a Debian package of what `make dist` or `make build` has made, in target/deb'
	@echo 'make sbom               the list of what the program is made of (CycloneDX), in target/dist'
	@echo 'make release-upload     what `make dist` has made, to the release of TAG; make image-push, the image as IMAGE'
	@echo 'make advisories         known vulnerabilities in the dependencies (needs github.com)'
	@echo 'make soak-cluster       a hub, and API nodes with PostgreSQL, each with nodes and under 500 faults, held against what clients were answered'
	@echo 'make bench              the benchmarks'

# The server prints the address, and a curl line with the token. Built to be there soon: not to be fast or small, and not to be measured.
run:
	$(CARGO) build --profile quick --locked --bin procession
	target/quick/procession serve $(ARGS)

build:
	$(CARGO) build --release --locked

# Slower to build than `make build` makes it, and a little faster to run. The binary names every crate in it, for
# scanners such as cargo audit and trivy. TARGET=x86_64-unknown-linux-musl makes one that needs no library of the machine.
TARGET ?= $(HOST)
BUILT = target/$(if $(filter $(HOST),$(TARGET)),,$(TARGET)/)dist/procession
dist: $(CARGO_AUDITABLE) sbom
	$(if $(filter %-musl,$(TARGET)),scripts/need.sh musl-gcc=musl-tools && rustup target add $(TARGET))
	PATH="$(CURDIR)/$(dir $(CARGO_AUDITABLE)):$$PATH" $(CARGO) auditable build --profile dist --locked --bin procession \
		$(if $(filter-out $(HOST),$(TARGET)),--target $(TARGET))
	$(if $(filter %-musl,$(TARGET)),scripts/need.sh readelf=binutils && ! readelf --program-headers $(BUILT) | grep -q INTERP)
	[ $(BUILT) = target/dist/procession ] || install -m 0755 $(BUILT) target/dist/procession
	scripts/check-dist.py target/dist
	cd target/dist && sha256sum procession procession.cdx.json >SHA256SUMS && cat SHA256SUMS

# A Debian package of what `make dist` or `make build` has made; the former if both have.
DEB_PROGRAM ?= $(firstword $(wildcard target/dist/procession target/release/procession) target/release/procession)
deb:
	scripts/deb.sh $(DEB_PROGRAM) target/deb

# Of all dependencies of the program on Linux, none of its tests or of tools.
sbom: $(CARGO_CYCLONEDX)
	mkdir -p target/dist
	$(CARGO_CYCLONEDX) cyclonedx --format json --describe binaries --target $(TARGET)
	mv procession_bin.cdx.json target/dist/procession.cdx.json

# What `make dist` has made, under names that say for which machine, in the draft of TAG's release.
release-upload: UPLOAD = target/upload/procession-$(TARGET)
release-upload:
	mkdir -p target/upload
	cp target/dist/procession $(UPLOAD)
	cp target/dist/procession.cdx.json $(UPLOAD).cdx.json
	cd target/upload && sha256sum procession-$(TARGET) procession-$(TARGET).cdx.json >procession-$(TARGET).sha256
	gh release view $(TAG) >/dev/null 2>&1 || gh release create $(TAG) --draft --verify-tag --generate-notes \
		|| gh release view $(TAG) >/dev/null
	gh release upload $(TAG) $(UPLOAD) $(UPLOAD).cdx.json $(UPLOAD).sha256

# IMAGE names registry, name and tag; user and token are in REGISTRY_USER and REGISTRY_TOKEN.
image-push:
	docker build --tag $(IMAGE) .
	printf %s "$$REGISTRY_TOKEN" | docker login --username "$$REGISTRY_USER" --password-stdin $(firstword $(subst /, ,$(IMAGE)))
	docker push $(IMAGE)

# Before a commit.
check:
	scripts/guards.py --check
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --lib --bins -- -D warnings
	@scripts/need.sh $(TEST_NEEDS)
ifdef HAS_NEXTEST
	$(CARGO) nextest run --locked --workspace --lib --bins --test it --profile check
else
	$(CARGO) test --locked --workspace --lib --bins
	$(CARGO) test --locked --test it -- --exact $(CHECK_TESTS)
endif

test: test-ready test-rust test-web test-page test-unprivileged test-client test-python test-examples test-mcp

# Compiling waits for processors and fetching for the network, so that both are done at once, before the first test.
test-ready:
	@scripts/need.sh $(TEST_NEEDS) $(if $(filter 0,$(shell id -u)),,$(MORE_TEST_NEEDS))
	@$(MAKE) --no-print-directory --jobs=2 test-build test-fetched

# Each part fetches what it needs if it is run by itself.
test-fetched: $(NODE_MODULES)
	@scripts/need.sh $(MORE_TEST_NEEDS)
	@scripts/venv.sh $(CLIENT) tests/client/requirements.txt
	@scripts/venv.sh $(PYTHON) clients/python/requirements.txt
	@scripts/venv.sh $(EXAMPLES) tests/examples/requirements.txt
	@tests/mcp/fetch.sh

# All parts use what this builds.
test-build:
	@scripts/need.sh cc=build-essential
	$(CARGO) test --locked --workspace --no-run

test-rust:
	@scripts/need.sh $(TEST_NEEDS)
	$(CARGO) $(TEST_RUNNER) --locked --workspace

test-unprivileged:
	@scripts/need.sh $(TEST_NEEDS)
	scripts/test-unprivileged.sh $(TEST_USER) '$(UNPRIVILEGED_TESTS)' $(CARGO) $(TEST_RUNNER) --locked

# The recording in README, of a real service in a terminal.
recording: test-build
	scripts/venv.sh target/recording scripts/recording.txt
	target/recording/bin/python scripts/recording.py target/debug/procession docs/pictures/recording.svg

# The parts of docs/ that are made of the program and of openapi.yaml.
docs:
	PROCESSION_UPDATE_DOCS=1 $(CARGO) test --locked --test docs -- the_generated_parts_are_current

NODE_MODULES := web/node_modules/.package-lock.json
$(NODE_MODULES): web/package-lock.json
	scripts/need.sh node=nodejs npm
	cd web && npm ci

web: $(NODE_MODULES)
	cd web && npm run --silent types && node build.mjs

test-web: $(NODE_MODULES)
	cd web && npm run --silent types && git diff --exit-code -- src/api/types.d.ts && npm run --silent check && npm test
	cd web && node build.mjs ../target/web && diff -r dist ../target/web || { echo 'web/dist is not what the sources give: make web' >&2; exit 1; }

# The pictures of README and docs; as root they have a notice in them.
pictures: $(NODE_MODULES) test-build
	scripts/need.sh chromium
	node tests/page/pictures.mjs

# One browser at a time: the journeys measure nothing, but they wait for what they see.
test-page: $(NODE_MODULES) test-build
	scripts/need.sh chromium
	node --test --test-concurrency=1 tests/page/*.test.mjs

# The other journeys; those that take minutes by themselves are apart.
# The files that are run: all, or the names in PAGE_MORE.
PAGE_MORE ?= *
test-page-more: $(NODE_MODULES) test-build
	scripts/need.sh chromium openssl certutil=libnss3-tools nginx caddy
	node --test --test-concurrency=1 $(patsubst %,tests/page/more/%.test.mjs,$(PAGE_MORE))

test-page-long: $(NODE_MODULES) test-build
	scripts/need.sh chromium
	node --test --test-concurrency=1 tests/page/long/*.test.mjs

# With a log that cannot be written, and with one that nobody reads: all tests but those that read it.
test-unheard: test-build
	for to in full unread; do \
		PROCESSION_TEST_STDERR=$$to $(CARGO) $(TEST_RUNNER) --locked --test it \
			$(if $(HAS_NEXTEST),-E,--) $(if $(HAS_NEXTEST),'$(UNHEARD)',life:: stop:: control::) || exit 1; \
	done

# README as a new user follows it, with times. WALK_BUILD=1 builds the program in the clone, too.
test-walk: test-build
	@scripts/need.sh curl jq dpkg-deb=dpkg objdump=binutils
	tests/walk.sh target/debug/procession

# The metrics, alerts and dashboard, with a real Prometheus.
test-prometheus: test-build
	scripts/need.sh prometheus curl python3
	tests/prometheus/run.sh target/debug/procession

# The generator is pinned in tests/client/requirements.txt and installed below target/, once.
CLIENT := target/client/venv
test-client: test-build
	scripts/venv.sh $(CLIENT) tests/client/requirements.txt
	tests/client/run.sh target/debug/procession

# clients/python: its types, and its tests on a real service.
PYTHON := target/python
test-python: test-build
	scripts/venv.sh $(PYTHON) clients/python/requirements.txt
	cd clients/python && ../../$(PYTHON)/bin/mypy --cache-dir ../../$(PYTHON)/mypy procession tests
	PYTHONPATH=clients/python PYTHONDONTWRITEBYTECODE=1 $(PYTHON)/bin/python clients/python/tests/test_client.py target/debug/procession

# Each example on a real service, with what it needs from the package index.
EXAMPLES := target/examples
test-examples: test-build $(NODE_MODULES)
	@scripts/need.sh go=golang-go
	scripts/venv.sh $(EXAMPLES) tests/examples/requirements.txt
	PYTHONPATH=$(CURDIR)/clients/python:$(CURDIR)/clients/python/tests PYTHONDONTWRITEBYTECODE=1 \
		$(EXAMPLES)/bin/python tests/examples/test_examples.py target/debug/procession

# The documentation as a site, in target/book/html, with every link followed.
DOCUMENTS := target/documents
book:
	scripts/venv.sh $(DOCUMENTS) scripts/documents.txt
	scripts/book.sh $(DOCUMENTS)/bin/mdbook $(DOCUMENTS)/bin/lychee

spelling:
	scripts/venv.sh $(DOCUMENTS) scripts/documents.txt
	$(DOCUMENTS)/bin/typos

# The libraries are pinned beside the tests and installed below target/, once.
test-mcp: test-build
	tests/mcp/run.sh target/debug/procession

# The protocol's own tests, as far as a server can pass them that was not made for them.
test-mcp-conformance: test-build
	tests/mcp/conformance/run.sh target/debug/procession

# Other generators, pinned in tests/clients: each makes a client that compiles and runs a job; and a linter of descriptions.
test-clients: test-build
	tests/clients/run.sh target/debug/procession

lint: workflows book spelling
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps

	@for test in $(CHECK_TESTS); do grep -rq "fn $${test##*::}(" tests/it || { echo "$$test: no such test (.config/nextest.toml)"; exit 1; }; done

workflows: $(CHECK_JSONSCHEMA)/bin/check-jsonschema
	$< --builtin-schema vendor.github-workflows .github/workflows/*.yml

# Before a release and every night: all that is slow, needs much, or seldom changes. Each in small where `make` alone is long.
release-check: deny test-mcp-conformance test-unheard test-page-more test-page-long test-walk test-prometheus test-clients test-docker test-deb test-vm test-static test-arm64 test-real-work guards
	$(MAKE) fuzz FUZZ_SECONDS=30
	$(MAKE) schemathesis SECONDS=120
	$(MAKE) soak PROCESSION_FAULT_KILLS=60 PROCESSION_FAULT_MINUTES=1 PROCESSION_FAILPOINT_ROUNDS=10 \
		PROCESSION_FOLLOW_SECONDS=20 PROCESSION_FOLLOW_KILLS=4 PROCESSION_END_JOBS=200 PROCESSION_RECOVERY_JOBS=200 \
		PROCESSION_LEAK_JOBS=5000 PROCESSION_SERIES_JOBS=1000

deny: $(CARGO_DENY)
	$(CARGO_DENY) --locked check --hide-inclusion-graph bans licenses sources

advisories: $(CARGO_DENY)
	$(CARGO_DENY) --locked check advisories

# target/tools/NAME-VERSION/bin/NAME
$(CARGO_DENY) $(CARGO_AUDITABLE) $(CARGO_CYCLONEDX) $(PUEUE):
	$(CARGO) install --locked $(@F) --version $(patsubst $(@F)-%,%,$(notdir $(patsubst %/bin/,%,$(@D)/))) \
		--root $(patsubst %/bin/,%,$(@D)/) --target-dir $(TOOLS)/build
	rm -rf $(TOOLS)/build

test-manifests: $(KUBERNETES_VALIDATE)/bin/kubernetes-validate
	$(<D)/python3 tests/kubernetes/check.py

# target/tools/NAME-VERSION/bin/NAME, of a package of the Python index
$(KUBERNETES_VALIDATE)/bin/kubernetes-validate $(CHECK_JSONSCHEMA)/bin/check-jsonschema: TOOL = $(patsubst %/bin/,%,$(dir $@))
$(KUBERNETES_VALIDATE)/bin/kubernetes-validate $(CHECK_JSONSCHEMA)/bin/check-jsonschema:
	scripts/need.sh python3
	python3 -c 'import ensurepip, venv' 2>/dev/null || scripts/need.sh no-such-command=python3-venv
	rm -rf $(TOOL)
	python3 -m venv $(TOOL)
	$(TOOL)/bin/pip install --quiet --disable-pip-version-check $(@F)==$(patsubst $(@F)-%,%,$(notdir $(TOOL)))

# With a program that is there already, so that only the image is new.
test-image: build
	tests/docker/run.sh target/release/procession

test-docker:
	tests/docker/run.sh

# Installed, upgraded under a running job, removed and purged, in a Debian of its own.
test-deb: build
	tests/deb/run.sh --suite bookworm --program target/release/procession
	tests/deb/run.sh --suite trixie --program target/release/procession

# PROCESSION_TEST_REAL_WORK: build a C project from its Debian source as a job.
test-real-work:
	@scripts/need.sh $(TEST_NEEDS)
	PROCESSION_TEST_REAL_WORK=1 $(CARGO) $(TEST_RUNNER) --locked --test it -- real_work::

# Debian 13 has a systemd with DelegateSubgroup, Debian 12 one without.
test-vm: build
	tests/vm/run.sh --suite trixie
	tests/vm/run.sh --suite bookworm

# What releases are. Debian 11 has the oldest kernel that is supported.
STATIC := x86_64-unknown-linux-musl
test-static:
	$(MAKE) dist TARGET=$(STATIC)
	tests/deb/run.sh --program target/$(STATIC)/dist/procession
	tests/vm/run.sh --suite bullseye --guest tests/vm/oldest.py --binary target/$(STATIC)/dist/procession

# What depends on the processor is the filter of the sandbox, which its tests follow call by call.
ARM64 := aarch64-unknown-linux-gnu
test-arm64:
	scripts/need.sh aarch64-linux-gnu-g++=crossbuild-essential-arm64 qemu-aarch64=qemu-user
	rustup target add $(ARM64)
	CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
	CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER='qemu-aarch64 -L /usr/aarch64-linux-gnu' \
		$(CARGO) test --locked --target $(ARM64) -p procession-linux -p procession-engine --lib -- sandbox:: a_child_with_a_copy

# A seed is printed; PROCESSION_FAULT_SEED and PROCESSION_FOLLOW_SEED replay the choices. The random kills go on for
# at least PROCESSION_FAULT_MINUTES, without cgroups where PROCESSION_FAULT_NO_CGROUPS is set; followers come and go for PROCESSION_FOLLOW_SECONDS.
soak:
	PROCESSION_FAULT_KILLS=$${PROCESSION_FAULT_KILLS:-300} PROCESSION_FAULT_MINUTES=$${PROCESSION_FAULT_MINUTES:-5} \
		$(CARGO) test --locked --test it -- faults::random --nocapture
	PROCESSION_FAILPOINT_ROUNDS=$${PROCESSION_FAILPOINT_ROUNDS:-100} \
		$(CARGO) test --locked --test it -- faults::points
	PROCESSION_FOLLOW_SECONDS=$${PROCESSION_FOLLOW_SECONDS:-60} PROCESSION_FOLLOW_KILLS=$${PROCESSION_FOLLOW_KILLS:-10} \
		PROCESSION_END_JOBS=$${PROCESSION_END_JOBS:-1000} $(CARGO) test --locked --test it -- follow:: --nocapture
	PROCESSION_RECOVERY_JOBS=$${PROCESSION_RECOVERY_JOBS:-1000} \
		$(CARGO) test --locked --test it -- faults::remains --nocapture
	PROCESSION_SERIES_JOBS=$${PROCESSION_SERIES_JOBS:-10000} \
		$(CARGO) test --locked --test it -- metrics::there_are_no_more_series
	PROCESSION_LEAK_JOBS=$${PROCESSION_LEAK_JOBS:-100000} \
		$(CARGO) test --locked --test it -- faults::leaks --nocapture
	PROCESSION_FAILPOINT_ROUNDS=$${PROCESSION_FAILPOINT_ROUNDS:-100} $(CARGO) test --locked --test it -- retries:: --nocapture
	PROCESSION_DIAMOND_ROUNDS=$${PROCESSION_DIAMOND_ROUNDS:-100} $(CARGO) test --locked --test it -- chains:: --nocapture
	PROCESSION_BATCH_KILLS=$${PROCESSION_BATCH_KILLS:-100} PROCESSION_BATCH_RUNNING=$${PROCESSION_BATCH_RUNNING:-500} \
		$(CARGO) test --locked --test it -- batches:: --nocapture
	PROCESSION_SCHEDULE_KILLS=$${PROCESSION_SCHEDULE_KILLS:-200} $(CARGO) test --locked --test it -- schedules:: --nocapture
	PROCESSION_QUEUE_KILLS=$${PROCESSION_QUEUE_KILLS:-20} PROCESSION_QUEUE_ROUNDS=$${PROCESSION_QUEUE_ROUNDS:-100} \
		PROCESSION_QUEUED=$${PROCESSION_QUEUED:-4000} PROCESSION_RATE_SECONDS=$${PROCESSION_RATE_SECONDS:-10} \
		$(CARGO) test --locked --test it -- queues:: --nocapture

# The checker of histories over as many faults as PROCESSION_CLUSTER_FAULTS says; a seed is printed, and PROCESSION_FAULT_SEED replays it.
soak-cluster:
	scripts/need.sh pg_ctlcluster=postgresql pgbouncer
	PROCESSION_CLUSTER_FAULTS=$${PROCESSION_CLUSTER_FAULTS:-500} \
		$(CARGO) test --locked --test it -- cluster::history ledger::history --nocapture --test-threads=1
	PROCESSION_LOG_MIB=64 $(CARGO) test --locked --test it -- ledger::loss::the_log_is_cut_back --nocapture

# FUZZ_TARGETS='spec patch' runs only these, FUZZ_JOBS=2 two at a time.
CARGO_FUZZ_VERSION := 0.13.2
CARGO_FUZZ := $(TOOLS)/cargo-fuzz-$(CARGO_FUZZ_VERSION)/bin/cargo-fuzz
FUZZ_SECONDS ?= 600
FUZZ_JOBS ?= 1
FUZZ_TARGETS ?= $(sort $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs))))
fuzz: $(CARGO_FUZZ)
	scripts/need.sh c++=build-essential
	scripts/fuzz.sh $(CARGO_FUZZ) $(FUZZ_SECONDS) $(FUZZ_JOBS) $(FUZZ_TARGETS)

$(CARGO_FUZZ):
	$(CARGO) install --locked cargo-fuzz --version $(CARGO_FUZZ_VERSION) \
		--root $(TOOLS)/cargo-fuzz-$(CARGO_FUZZ_VERSION) --target-dir $(TOOLS)/build
	rm -rf $(TOOLS)/build

# Builds a copy of the sources in which each guard has a switch; NAME='…' takes away only this one.
guards:
	scripts/need.sh python3
	scripts/guards.py $(if $(NAME),"$(NAME)")

# SEED=N replays the choices that a run has printed.
SECONDS ?= 600
schemathesis:
	$(CARGO) build --locked
	tests/schemathesis/run.sh target/debug/procession $(SECONDS) $(SEED)

# FIGURES=F1,F2,recovery measures only these and leaves docs/benchmarks.md alone. What is missing of the baselines
# (Debian: webhook, task-spooler, postgresql; python3 with pip) is reported as not measured, and so is pueue where it cannot be
# installed; F1 alone needs it. F13 needs Node and Chromium.
COMMA := ,
FIGURE_LIST := $(subst $(COMMA), ,$(FIGURES))
bench: build
	$(if $(filter F1 f1,$(or $(FIGURE_LIST),F1)),-$(MAKE) --no-print-directory $(PUEUE))
	$(if $(filter F13 f13,$(or $(FIGURE_LIST),F13)),-$(MAKE) --no-print-directory $(NODE_MODULES))
	PATH="$(CURDIR)/$(dir $(PUEUE)):$$PATH" $(CARGO) bench --locked --bench figures -- $(FIGURE_LIST)

clean:
	$(CARGO) clean
