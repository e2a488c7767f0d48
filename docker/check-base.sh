#!/usr/bin/env bash
# Ask the registry for the base image of worker.Dockerfile: its digest must exist and have linux/amd64. Warn where the
# tag beside the digest names another image by now: pin that one, after a look at what changed.
#   docker/check-base.sh     # needs docker buildx and jq
set -euo pipefail
cd "$(dirname "$0")"

base=$(sed -n 's/^FROM \(nvidia[^ ]*@sha256:[0-9a-f]*\) AS base$/\1/p' worker.Dockerfile)
[ -n "$base" ] || { echo "worker.Dockerfile has no base that is pinned by its digest" >&2; exit 1; }
docker buildx imagetools inspect "$base" --format '{{json .Manifest}}' \
  | jq --exit-status '.manifests[] | select(.platform.os == "linux" and .platform.architecture == "amd64")'
now=$(docker buildx imagetools inspect "${base%@*}" --format '{{json .Manifest}}' | jq --raw-output .digest)
echo "base: $base"
if [ "$now" != "${base#*@}" ]; then
  echo "::warning file=docker/worker.Dockerfile::the tag ${base%@*} is $now by now"
fi
