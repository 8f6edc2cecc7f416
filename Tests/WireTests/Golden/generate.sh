#!/bin/sh
# Regenerates *.bin from *.txt with protoc (Debian: protobuf-compiler): an implementation of protobuf independent of protobuf-c.
set -eu
cd "$(dirname "$0")"
for text in *.txt options/*.txt; do
  protoc --proto_path=../../../proto --deterministic_output --encode=qwenimage.v1.Envelope qwenimage/v1/envelope.proto \
    <"$text" >"${text%.txt}.bin"
done
