# The front door; meson.build is the build. B is the build directory.
B ?= build

all:
	@tools/configure $(B) && ninja -C $(B)
run:
	@tools/install-deps && tools/configure $(B) && ninja -C $(B) varve
	tools/run
check:
	tools/check $(B)
bench: all
	tests/bench/run
	VARVE_BUILD=$(B) tests/bench/bucket
asan:
	@tools/configure build-asan -Dsanitize=address
	tools/check build-asan
fuzz:
	@tools/install-deps check && CC=clang tools/configure build-fuzz -Dfuzzer=true && \
	    ninja -C build-fuzz $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
	tools/fuzz build-fuzz
soak: all
	tests/sim/soak
teeth: all
	VARVE_BUILD=$(B) tests/sim/teeth
tidy:
	clang-format --dry-run $$(git ls-files '*.[ch]')
clean:
	rm -rf $(B) build-asan build-fuzz
.PHONY: all run check bench asan fuzz soak teeth tidy clean
