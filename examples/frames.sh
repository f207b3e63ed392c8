#!/usr/bin/env bash
# Prints which frames of an MP4 file with H.264 are kept, RATE a second (1). The sampler stands before the decoder, which
# sees only what the kept frames need. Usage: examples/frames.sh FILE [RATE]
set -euo pipefail
[ $# -gt 0 ] || { echo "usage: examples/frames.sh FILE [RATE]" >&2; exit 2; }
here=$(dirname "$0")
export GST_PLUGIN_PATH=${GST_PLUGIN_PATH:-$("$here/../scripts/plugin-dir" "$here/../target/release")}
exec gst-launch-1.0 -m filesrc location="$1" ! qtdemux ! h264parse \
  ! vitaframesampler rate="${2:-1}" ! avdec_h264 ! fakesink
