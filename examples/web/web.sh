#!/bin/sh
# Debian's own web server in Python, for the directory site.
exec python3 -m http.server 80 --directory "$(dirname "$0")/site"
