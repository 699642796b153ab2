// SPDX-License-Identifier: Apache-2.0
import FuzzSupport

runFuzzer([
  FuzzTarget("frames") { Frames.run($0, $1) },
  FuzzTarget("segments") { Segments.run($0, $1) },
  FuzzTarget("recovery") { DirectoryEdits.run($0, $1) },
  FuzzTarget("keeping") { Keeping.run($0, $1) },
  FuzzTarget("handles") { Handles.run($0, $1) },
])
