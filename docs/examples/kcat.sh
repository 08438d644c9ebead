#!/bin/sh
# The JSON topics with kcat (Debian: apt install kcat) and jq: no Python, no schema registry.
#
#     docs/examples/kcat.sh localhost:9092
set -e
servers=${1:-localhost:9092}

# The last ten trades, one JSON object each. The key is the instrument's.
kcat -b "$servers" -C -t md.trades.v1 -o -10 -e -q -f '%k %s\n'

# What the compacted topic says of the instruments: tick and lot sizes.
kcat -b "$servers" -C -t md.instruments.v1 -o beginning -e -q -f '%k %s\n' | head -n 5
