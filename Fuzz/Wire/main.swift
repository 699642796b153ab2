// SPDX-License-Identifier: Apache-2.0
import FuzzSupport

runFuzzer([
  FuzzTarget("requests") { Requests.run($0, $1) },
  FuzzTarget("access") { Access.run($0, $1) },
])
