# make check   what can be checked without starting anything: format, vet,
#              staticcheck, the architecture, and the quick tests with -race
# make test    everything, the lab included: real programs in namespaces; it
#              installs what it needs with apt where that is missing
# make fuzz    every fuzz target for FUZZTIME
# make bench   authd beside knot, nsd, bind and pdns on the same data
#              (bench/README.md); it installs what it needs with apt
# make chaos   breaks a real cluster for an hour, as root: CHAOS=fault,fault RUNS=n
#              SEED=s make chaos for less, QUERIES=1000000 RATE=6000 to repeat each
#              fault until so many queries were sent to the nodes it leaves alone;
#              what was found is added to bench/CHAOS.md.
#              LIFE=10000 make chaos runs time fast instead, until there were so many
#              rotations, and verifies mail through the worst caches: 15 minutes
# make gobench the benchmarks of the packages
# make build   ./authd

SHELL       := bash
GO          ?= go
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
TOOLS       := $(CURDIR)/.tools
FUZZTIME    ?= 10s
BENCHTIME   ?= 1s

# Programs that tests run, each with its Debian package.
PROGRAMS := dig:bind9-dnsutils knotd:knot nsd:nsd unbound:unbound ip:iproute2 \
            promtool:prometheus \
            /usr/lib/python3/dist-packages/dkim/__init__.py:python3-dkim

.PHONY: build check static unit test programs fuzz bench chaos gobench clean

build:
	CGO_ENABLED=0 $(GO) build -trimpath -o authd ./cmd/authd

check: static unit

static: $(TOOLS)/staticcheck-v0.8.2
	@unformatted=$$(git ls-files '*.go' | xargs gofmt -l); \
	  if [ -n "$$unformatted" ]; then echo "gofmt would change:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags lab ./...
	$(TOOLS)/staticcheck-v0.8.2 ./...
	$(TOOLS)/staticcheck-v0.8.2 -tags lab ./...
	$(GO) test -count=1 -run 'Imports|TheMachine|NoInit|LabFiles|LongFunctions|PackageDocuments' ./cmd/authd

# The quick tests, with the race detector.
unit:
	$(GO) test -race -short -timeout 10m ./...

test: programs
	$(GO) test -count=1 -timeout 18m ./...

# Fails, rather than skips, where a program cannot be had.
programs:
	@missing=; for pair in $(PROGRAMS); do \
	  program=$${pair%%:*}; \
	  case $$program in \
	    /*) [ -e "$$program" ] ;; \
	    *) PATH="$$PATH:/usr/sbin:/sbin" command -v "$$program" >/dev/null ;; \
	  esac || missing="$$missing $${pair##*:}"; \
	done; \
	if [ -n "$$missing" ]; then \
	  echo "installing$$missing"; \
	  sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	  install="$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends"; \
	  $$install $$missing || { $$sudo apt-get update && $$install $$missing; }; \
	fi

$(TOOLS)/staticcheck-v0.8.2:
	@mkdir -p $(TOOLS)
	GOBIN=$(TOOLS) GOFLAGS= $(GO) install $(STATICCHECK)
	mv $(TOOLS)/staticcheck $@

fuzz:
	@set -e; for package in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
	    echo "$$package $$target"; \
	    $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s $$package; \
	  done; \
	done

bench:
	bench/setup
	bench/run

CHAOS ?=
RUNS  ?= 0
RATE  ?= 1000
QUERIES ?= 0
SEED  ?= 0
LIMIT ?= 55m
LIFE  ?= 0

chaos:
	@mkdir -p $(TOOLS)
	$(GO) build -tags lab -o $(TOOLS)/chaos-authd ./cmd/authd
	$(GO) build -o $(TOOLS)/chaos ./cmd/authd/chaos
	$(TOOLS)/chaos -binary $(TOOLS)/chaos-authd -dir $(TOOLS)/chaos-run -faults '$(CHAOS)' -runs $(RUNS) -rate $(RATE) -queries $(QUERIES) -seed $(SEED) -limit $(LIMIT) -life $(LIFE) \
	  -totals bench/CHAOS.md -commit "$$(git describe --always --dirty)"

gobench:
	$(GO) test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) ./...

clean:
	rm -rf authd $(TOOLS)
