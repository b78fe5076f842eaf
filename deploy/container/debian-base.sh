#!/bin/sh
# A base image out of Debian's own packages, for machines that reach a mirror of Debian and no
# registry of images:
#
#   deploy/container/debian-base.sh localhost/python:3.11-debian [MIRROR …]
#   podman build --build-arg PYTHON_IMAGE=localhost/python:3.11-debian …
#
# Needs mmdebstrap, and podman or docker ($ENGINE). A mirror is a URL, a line such as
# `deb http://mirror/debian-security bookworm-security main`, or a sources.list; without, Debian's
# own, with security updates.
set -eu
image=${1:?the name of the image to make}
shift
engine=${ENGINE:-$(command -v podman || command -v docker)}

archive=$(mktemp)
trap 'rm -f "$archive"' EXIT
# What python:…-slim is: python and its venv, certificates, no documentation.
# shellcheck disable=SC2016  # $1 is for mmdebstrap to fill
mmdebstrap --quiet --format=tar --variant=minbase \
  --include=ca-certificates,python-is-python3,python3-venv \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --customize-hook='rm -f "$1/etc/resolv.conf" "$1/etc/hostname"' \
  bookworm - "$@" > "$archive"
"$engine" import --change 'ENV LANG=C.UTF-8' --change 'CMD ["python3"]' - "$image" < "$archive"
