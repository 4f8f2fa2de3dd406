# The few things one does with a source tree. Meson does the work; see CONTRIBUTING.md.
BUILD ?= build
MESON_ARGS ?=

.PHONY: all build demo check check-long tree bench install uninstall clean

all: build

build: $(BUILD)/build.ninja
	@ninja -C $(BUILD)

$(BUILD)/build.ninja:
	@scripts/deps.sh --look build
	@meson setup $(BUILD) $(MESON_ARGS)

# A redis-server in a quarter of the memory its data takes. DEMO_MB: how much data, default 400.
demo:
	@scripts/deps.sh build demo
	@$(MAKE) --no-print-directory build
	@UPAGER_BUILD=$(abspath $(BUILD)) python3 scripts/demo.py

check:
	@scripts/deps.sh build test
	@$(MAKE) --no-print-directory build
	@UPAGER_BUILD=$(abspath $(BUILD)) tests/run

check-long:
	@scripts/deps.sh build test
	@$(MAKE) --no-print-directory build
	@UPAGER_BUILD=$(abspath $(BUILD)) tests/run --long

# The rows of the fault tree, each with its tests, and how they ended.
tree:
	@scripts/deps.sh build test
	@$(MAKE) --no-print-directory build
	@UPAGER_BUILD=$(abspath $(BUILD)) tests/tree/show

# Beside kernel swap and others. QUICK=1: in three minutes; BENCH_ARGS: see bench/run --help.
bench:
	@scripts/deps.sh build
	@scripts/deps.sh bench || echo "make bench: what needs them is left out" >&2
	@$(MAKE) --no-print-directory build
	@UPAGER_BUILD=$(abspath $(BUILD)) bench/run $(BENCH_ARGS)

install: build
	@meson install -C $(BUILD) --no-rebuild

uninstall:
	@ninja -C $(BUILD) uninstall

clean:
	@rm -rf $(BUILD)
