#!/bin/sh
# Asks for the page every second, with the second's number.
second=0
while :; do
    second=$((second + 1))
    printf '%s: ' "$second"
    curl -sS --connect-timeout 5 --retry 5 --retry-connrefused http://10.0.0.2/ || echo
    sleep 1
done
