// SPDX-License-Identifier: Apache-2.0
// The program of the README, built outside the package.
import Penstock

let store = try await Store.open(at: CommandLine.arguments[1])
let orders = try await store.queue("orders", QueueSettings(visibilityTimeout: .seconds(60)))
try await orders.send("two boxes of tea")
for try await lease in orders.leases() {
  print("working on", lease.text)
  try await lease.delete()
  break
}
try await store.close()
