# What there is to do with this tree. `make` alone lists it.

SHELL  := /bin/bash
GO     ?= go
DATA   ?= .run
LISTEN ?= 127.0.0.1:9000
ADMIN  ?= 127.0.0.1:9001
KEK    ?= softhsm

# Only these are measured against a clock or drive the whole system: the race
# detector would make them slow, or make what they measure meaningless.
SLOW := chatelaine/test/|chatelaine/gateway/sealed$$

# These measure: they run alone, as whatever runs beside them is measured too.
MEASURED := ^Test(AGigabyteCosts|MemoryIsBounded|TheKMSReachesHalf|ListsCost)
MEASURING := ./test/e2e ./test/compat

# Half of what test/e2e takes: it runs beside the other half, as both mostly wait.
HALF := ^Test(OneEndpoint|AnAdoption|ABlock|NothingAcknowledged|TheCommandLine)

# Without this, Google's client brings xDS, which it is never told to use: 20 MB of
# program, and 10 MB of memory.
TAGS := disable_grpc_modules

# Everything runs, always: a cached pass says nothing of this machine. Nobody debugs
# these binaries, and without DWARF they are linked in half the time.
TEST := $(GO) test -count=1 -timeout 25m -tags $(TAGS) -ldflags=-w

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/chatelaine
	$(GO) build -trimpath -tags $(TAGS) -ldflags '-X main.version=$(VERSION)' -o bin/chatelaine ./cmd/chatelaine

.PHONY: up
up: ## install SoftHSM if it is missing, build, and run everything on this machine
	@if [ '$(KEK)' = softhsm ]; then test/tools/install.sh softhsm2; fi
	@$(MAKE) --no-print-directory build
	@exec bin/chatelaine up --data $(DATA) --listen $(LISTEN) --admin-listen $(ADMIN) --kek $(KEK)

.PHONY: test
test: test-parts ## install what is missing and run every test
	@failed=0; \
	$(TEST) -p 2 -race $$($(GO) list ./... | grep -Ev '$(SLOW)') || failed=1; \
	built=$$(mktemp -d) && trap 'rm -rf "$$built"' EXIT && \
	$(GO) build -tags $(TAGS) -ldflags=-w -o "$$built/chatelaine" ./cmd/chatelaine && \
	export CHATELAINE_BIN="$$built/chatelaine" || exit 1; \
	$(TEST) -run '$(HALF)' ./test/e2e & half=$$!; \
	$(TEST) -p 2 -skip '$(MEASURED)|$(HALF)' $$($(GO) list ./... | grep -E '$(SLOW)') || failed=1; \
	wait $$half || failed=1; \
	$(TEST) -p 1 -run '$(MEASURED)' $(MEASURING) || failed=1; \
	exit $$failed

.PHONY: long
long: test-parts ## run in full what make test shortens: races, memory, clients
	CHATELAINE_TEST_LONG=1 $(TEST) -p 1 -v -run 'RacesThroughTwo|MemoryIsBounded|ClientsStoreAFolder' $(MEASURING)

.PHONY: test-parts
test-parts:
	test/tools/install.sh softhsm2 opensc libnss3 libnss3-tools openssh-client awscli python3-boto3 python3-cryptography rclone s3cmd curl restic s3fs nodejs npm
	test/tools/build.sh minio >/dev/null
	test/tools/build.sh versitygw >/dev/null
	test/tools/build.sh versitygw-server >/dev/null
	test/tools/build.sh toxiproxy >/dev/null
	test/tools/build.sh vault >/dev/null
	test/tools/build.sh fake-gcs-server >/dev/null

.PHONY: test-ceph
test-ceph: ## run the tests that want a Ceph: it takes two minutes, so they are not in make test
	test/tools/install.sh softhsm2 awscli ceph-mon ceph-osd ceph-common radosgw
	CHATELAINE_TEST_CEPH=1 $(TEST) -p 2 -run Ceph ./backends/s3store ./test/e2e

.PHONY: test-short
test-short: ## run the tests that need seconds, with what is installed
	$(GO) test -short -timeout 5m ./...

.PHONY: lint
lint: ## vet, build without cgo, golangci-lint
	$(GO) vet ./...
	CGO_ENABLED=0 $(GO) build -o /dev/null ./cmd/chatelaine
	$$(test/tools/build.sh lint) run --timeout 15m ./...

# What reads what anybody on the network may send, FUZZTIME each; and what reads what
# administrators and clouds send, a quarter of that.
FUZZED := gateway/s3api:FuzzTarget gateway/s3api:FuzzXML gateway/sigv4:FuzzChunked gateway/sigv4:FuzzVerify
FUZZED_SHORTER := gateway/s3api:FuzzLifecycle backends/azurestore:FuzzNamesKeepOrderAndPrefixes \
	backends/azurestore:FuzzDecodeNameTakesWhatEncodeNameMakes backends/azurestore:FuzzTags kms:FuzzVerifyReport kms/policy:FuzzCheck \
	backends/s3store:FuzzScanListing kms/approval:FuzzParseStatement kms/approval:FuzzSignature \
	kms/approval:FuzzBundle kms/approval:FuzzParseRules kms/keyceremony:FuzzRecord kms:FuzzParseMirror \
	kms/offline:FuzzParsePublicKey
FUZZTIME ?= 60
FUZZ := $(GO) test -run '^$$' -parallel 2 -fuzzminimizetime 20x

.PHONY: fuzz
fuzz: ## fuzz what reads requests, FUZZTIME seconds each, and other parsers for a quarter of that
	@for f in $(FUZZED); do \
		$(FUZZ) -fuzz "^$${f#*:}$$" -fuzztime $(FUZZTIME)s ./$${f%:*} || exit 1; \
	done
	@for f in $(FUZZED_SHORTER); do \
		$(FUZZ) -fuzz "^$${f#*:}$$" -fuzztime $$(( ($(FUZZTIME) + 3) / 4 ))s ./$${f%:*} || exit 1; \
	done

ATTACKS ?= 100000
WIRE_ATTACKS ?= 13000
FORGERIES ?= 22500

.PHONY: hostile
hostile: ## attack as a provider would, ATTACKS times, and print what came of it
	$(GO) test -count=1 -timeout 2h -v -run 'Attacks|Forgeries' ./test/hostile -args -attacks $(ATTACKS) -wire-attacks $(WIRE_ATTACKS) -forgeries $(FORGERIES)

SOAK ?= 30m

.PHONY: soak
soak: ## run everything for SOAK with all that can go wrong, and see that nothing is lost or grows
	test/tools/install.sh softhsm2
	$(GO) test -count=1 -timeout 12h -v -run Grows ./test/soak -args -soak $(SOAK)

.PHONY: mutation
mutation: ## switch off each verification of the format, the service on objects and the client of the KMS in turn and see its test fail
	$(GO) test -count=1 -timeout 3h -v ./test/mutation -args -every

.PHONY: bench
bench: ## measure the gateway before MinIO against MinIO bare (BENCH=-quick: a minute)
	test/tools/install.sh softhsm2
	$(GO) run ./test/bench $(BENCH)

.PHONY: adopt
adopt: ## adopt a bucket of 100,000 objects, killed ten times (OBJECTS=n)
	CHATELAINE_ADOPT_OBJECTS=$(or $(OBJECTS),100000) $(GO) test -count=1 -timeout 2h -v -run KilledTenTimes ./test/e2e

.PHONY: parts
parts: ## one upload of PARTS parts, 52 GB for all 10,000, with a killed gateway (PARTS=n)
	CHATELAINE_TEST_PARTS=$(or $(PARTS),10000) $(GO) test -count=1 -timeout 2h -v -run TenThousandParts ./test/e2e

# What every cloud is tested for, by the tests of test/e2e that take them from one table.
CLOUDS ?= OneEndpointServesManyClouds|BadRequestsAreRefused|ABodyThatIsCut|EverythingIs|NothingAcknowledgedIsLost|ReplicasTakeTurns|OneOfManyCreates

.PHONY: clouds
clouds: test-parts ## run what runs on files and MinIO on every cloud, with uploads of 300 MB (CLOUDS=regexp)
	CHATELAINE_TEST_CLOUDS=1 $(GO) test -count=1 -timeout 2h -v -run '$(CLOUDS)' ./test/e2e

.PHONY: generate
generate: ## write generated code anew (needs protoc)
	$(GO) generate ./...
