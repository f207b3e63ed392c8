#!/usr/bin/env bash
# Prints where speech starts and ends in a file's sound. Usage: examples/speech.sh FILE
set -euo pipefail
[ $# -gt 0 ] || { echo "usage: examples/speech.sh FILE" >&2; exit 2; }
here=$(dirname "$0")
export GST_PLUGIN_PATH=${GST_PLUGIN_PATH:-$("$here/../scripts/plugin-dir" "$here/../target/release")}
exec gst-launch-1.0 -m filesrc location="$1" ! decodebin ! audioconvert ! audioresample \
  ! audio/x-raw,rate=16000,channels=1 ! vitavad ! fakesink
