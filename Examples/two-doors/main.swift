// SPDX-License-Identifier: Apache-2.0
import Logging
import Penstock
import PenstockServer
import UnixSignals

/// Writes an invoice for each order.
struct Clerk: Sendable {
  let store: Store
  let orders: Queue
  let invoices: Queue

  /// Works until the task is cancelled; an order in hand is finished first.
  func work() async throws {
    for try await order in orders.leases() {
      let id = order.message.id.description
      let invoice = Array(Self.invoice(for: order.text).utf8)
      do {
        // Both or none, whenever the power goes: each order is invoiced once.
        try await store.transaction { transaction in
          transaction.send(
            invoice, to: invoices,
            attributes: [MessageAttribute(name: "order", type: "String", value: .string(id))])
          transaction.delete(order)
        }
      } catch let error as PenstockError where error.code == .leaseLost {
        // This took too long: the order is somebody else's by now, and the invoice was not sent.
      }
    }
  }

  /// The invoice for `2 tea` is `2 tea: 8`.
  static func invoice(for order: String) -> String {
    let prices = ["tea": 4, "coffee": 6]
    let words = order.split(separator: " ").map(String.init)
    guard words.count == 2, let count = UInt8(words[0]), let price = prices[words[1]] else {
      return "an order is a number up to 255, a space, and tea or coffee"
    }
    return "\(count) \(words[1]): \(Int(count) * price)"
  }
}

let directory = CommandLine.arguments.dropFirst().first ?? "two-doors-data"
let logger = Logger(label: "two-doors")
// From here on a signal ends the program no more: the loop below waits for one.
let signals = await UnixSignalsSequence(trapping: .sigterm, .sigint)

let store = try await Store.open(at: directory)
let clerk = Clerk(
  store: store,
  orders: try await store.queue("orders", QueueSettings(visibilityTimeout: .seconds(5))),
  invoices: try await store.queue("invoices"))
let server = try await PenstockServer.start(serving: store, port: 0, logger: logger)
logger.notice("listening on \(server.endpoint)")

try await withThrowingTaskGroup(of: Void.self) { tasks in
  tasks.addTask { [clerk] in try await clerk.work() }
  tasks.addTask { [signals] in for await _ in signals { break } }
  // The first to end is a signal, or a clerk who cannot go on.
  try await tasks.next()
  tasks.cancelAll()
}
await server.stop()
try await store.close()
logger.notice("stopped cleanly")
