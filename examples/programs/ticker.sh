#!/bin/sh
# Ticks five times, notes each tick in a file that outlives it, and fails.
trap 'echo "asked to stop"; exit 0' TERM
for tick in 1 2 3 4 5; do
    echo "tick $tick of process $$" | tee -a "$(dirname "$0")/notes"
    sleep 0.6
done
exit 3
