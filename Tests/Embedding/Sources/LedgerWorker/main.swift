// SPDX-License-Identifier: Apache-2.0
// A worker whose invoices stand in a table of its own, outside of the store, guarded by fencing
// tokens. Its process is killed again and again by Tests/Embedding/kill-workers.
import Foundation
import Penstock

@Sendable func say(_ line: String) { FileHandle.standardOutput.write(Data((line + "\n").utf8)) }

/// A table in a file, with a row for each order; a row is written by a line at the file's end.
actor Ledger {
  /// The highest token that was seen for an order, by the id of its message.
  private var tokens: [String: UInt64] = [:]
  private let file: FileHandle

  init(at path: String) throws {
    if !FileManager.default.fileExists(atPath: path) {
      try Data().write(to: URL(fileURLWithPath: path))
    }
    file = try FileHandle(forUpdating: URL(fileURLWithPath: path))
    let text = String(decoding: try file.readToEnd() ?? Data(), as: UTF8.self)
    // A kill may have cut the last line short.
    let whole = text.lastIndex(of: "\n").map { text[...$0] } ?? ""
    try file.truncate(atOffset: UInt64(whole.utf8.count))
    for line in whole.split(separator: "\n") {
      let words = line.split(separator: " ", maxSplits: 2)
      tokens[String(words[0])] = UInt64(words[1])
    }
  }

  /// Writes the row of an order.
  ///
  /// - Returns: false when a later holder of the order has written it already.
  func write(_ invoice: String, for message: ReceivedMessage) throws -> Bool {
    let (id, token) = (message.id.description, message.fencingToken)
    guard token >= tokens[id] ?? 0 else { return false }
    tokens[id] = token
    try file.write(contentsOf: Data("\(id) \(token) \(invoice)\n".utf8))
    try file.synchronize()
    return true
  }

  private var somebodyIsLate = false

  /// Plays a holder that takes longer than its lease: waits until somebody else has written the
  /// row. One holder at a time, so that there is somebody else.
  func waitForAnother(than message: ReceivedMessage) async {
    guard !somebodyIsLate else { return }
    somebodyIsLate = true
    while tokens[message.id.description] ?? 0 <= message.fencingToken {
      try? await Task.sleep(for: .milliseconds(10))
    }
    somebodyIsLate = false
  }
}

let store = try await Store.open(at: CommandLine.arguments[1])
let ledger = try Ledger(at: CommandLine.arguments[1] + ".ledger")
let orders = try await store.queue("orders", QueueSettings(visibilityTimeout: .milliseconds(400)))

let workers = (0..<4).map { _ in
  Task {
    for try await lease in orders.leases() {
      if lease.message.receiveCount == 1, lease.text.hasSuffix("7") {
        await ledger.waitForAnother(than: lease.message)
      }
      if try await ledger.write("invoice of \(lease.text)", for: lease.message) {
        try await lease.delete()
        say("invoiced \(lease.text)")
      } else {
        say("refused \(lease.text)")
      }
    }
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
  // Finishes what is there, and one order more, whose first holder comes too late.
  for isLast in [false, true] {
    if isLast {
      try await orders.send("order \(CommandLine.arguments[3])")
      say("took order \(CommandLine.arguments[3])")
    }
    while try await orders.describe().counts.total > 0 {
      try await Task.sleep(for: .milliseconds(50))
    }
  }
  for worker in workers { worker.cancel() }
  for worker in workers { _ = await worker.result }
}
try await store.close()
