#!/bin/bash
# run-tests: 45 s, busy
# The short form of `make teeth`, for make check: each planted bug is caught.
exec tests/sim/teeth --quick
