#!/bin/sh
# Asks for the page every second, and numbers what comes.
number=0
while :; do
    number=$((number + 1))
    printf '%s: ' "$number"
    curl -sS --connect-timeout 5 --max-time 10 --retry 5 --retry-connrefused http://10.0.0.2/ || echo
    sleep 1
done
