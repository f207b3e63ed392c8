#!/usr/bin/env bash
# Prints the filterbank frames of a file's sound, a buffer a line. Usage: examples/mel.sh FILE
set -euo pipefail
[ $# -gt 0 ] || { echo "usage: examples/mel.sh FILE" >&2; exit 2; }
here=$(dirname "$0")
export GST_PLUGIN_PATH=${GST_PLUGIN_PATH:-$("$here/../scripts/plugin-dir" "$here/../target/release")}
exec gst-launch-1.0 -v filesrc location="$1" ! decodebin ! audioconvert ! audioresample \
  ! audio/x-raw,rate=16000,channels=1 ! vitamel ! fakesink silent=false
