// SPDX-License-Identifier: Apache-2.0
// The program of Docs/embedding.md, built outside the package.
import Foundation
import Penstock
import PenstockCodable

struct Order: Codable, Sendable {
  var item: String
  var boxes: Int
}

let store = try await Store.open(at: CommandLine.arguments[1])
let queue = try await store.queue("orders", QueueSettings(visibilityTimeout: .seconds(30)))
let orders = queue.typed(Order.self)
try await orders.send(Order(item: "tea", boxes: 2))

let worker = Task {
  try await orders.consume(maxConcurrent: 8, drainLimit: .seconds(20)) { order, lease in
    print("attempt \(lease.attempt): \(order.boxes) boxes of \(order.item)")
  }
}

// On SIGTERM what is at work is finished; then the store is closed.
signal(SIGTERM, SIG_IGN)
let termination = DispatchSource.makeSignalSource(signal: SIGTERM, queue: .main)
termination.setEventHandler { worker.cancel() }
termination.resume()

try await worker.value
try await store.close()
