// SPDX-License-Identifier: Apache-2.0
// A worker as README.md and Docs/embedding.md tell it: each order becomes an invoice, once. Its
// process is killed again and again by Tests/Embedding/kill-workers.
import Foundation
import Penstock

@Sendable func say(_ line: String) { FileHandle.standardOutput.write(Data((line + "\n").utf8)) }

let store = try await Store.open(at: CommandLine.arguments[1])
let orders = try await store.queue("orders", QueueSettings(visibilityTimeout: .seconds(2)))
let invoices = try await store.queue("invoices")

let worker = Task {
  try await orders.consume(maxConcurrent: 4) { lease in
    try await store.transaction { transaction in
      transaction.send(Array("invoice of \(lease.text)".utf8), to: invoices)
      transaction.delete(lease)
    }
    say("invoiced \(lease.text)")
  }
}

switch CommandLine.arguments[2] {
case "run":
  // Takes orders until it is killed.
  var number = Int(CommandLine.arguments[3]) ?? 0
  while true {
    try await orders.send("order \(number)")
    say("took order \(number)")
    number += 1
  }
default:
  // Finishes what is there, then shows the invoices.
  while try await orders.describe().counts.total > 0 {
    try await Task.sleep(for: .milliseconds(50))
  }
  worker.cancel()
  try await worker.value
  while let lease = try await invoices.receive(wait: .zero).first {
    say(lease.text)
    try await lease.delete()
  }
}
try await store.close()
