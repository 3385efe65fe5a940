#!/bin/bash
# run-tests: 13 s, busy
# The engine on a bucket where each request takes 30 ms of virtual time: what it costs in requests, bytes and time.
exec "${VARVE_BUILD:-build}/sim_bucket" record cold-read shared-read syncs stream-syncs find open-million idle outage full 2>/dev/null
