// SPDX-License-Identifier: Apache-2.0
internal import PenstockTesting

/// Small histories: everything that can be said with a few operations of an alphabet after a
/// prelude, each operation at rest, pending, or in the middle of a call that the one before it
/// caused.
///
/// Most known bugs of this kind need no more than three operations (L18).
package struct Family: Sendable {
  package var name: String
  var prelude: String
  var alphabet: [String]
  /// Operations in the longest history.
  package var length: Int
  var machine = "machine 0 0 0"
  /// Outcomes of one loss of power beyond which only some are tried.
  var limit = 4096
  /// Histories take so many times longer than those of other families: a stride takes fewer.
  var cost = 1

  /// How an operation is followed by the next one: at rest, pending, inside the writer's first
  /// call, inside its second.
  private static let joints = [", settle", "", ", during 1 1, settle", ", during 2 1, settle"]

  struct History {
    var steps: [Step]
    /// How many steps belong to the last operation.
    var lastSteps: Int
  }

  /// How many histories there are.
  package var count: Int { count(upTo: length) }

  private func count(upTo length: Int) -> Int {
    var count = 1
    var longer = alphabet.count
    for _ in 0..<length {
      count += longer
      longer *= alphabet.count * Self.joints.count
    }
    return count
  }

  /// Indexes of all histories but the longest, and of about every `stride`th of those, fewer in a
  /// costly family, drawn so that every operation comes last.
  package func indexes(stride: Int) -> [Int] {
    let longest = count(upTo: max(0, length - 1))..<count
    let share = stride * cost
    return Array(0..<longest.lowerBound)
      + longest.filter { stride == 1 || StableRandom(seed: UInt64($0)).below(share) == 0 }
  }

  /// History number `index`: the empty one, then those of one operation, of two, and so on.
  func history(_ index: Int) -> History {
    var index = index
    if index == 0 { return history([], nil) }
    index -= 1
    var longer = alphabet.count
    var length = 1
    while index >= longer {
      index -= longer
      longer *= alphabet.count * Self.joints.count
      length += 1
    }
    let last = alphabet[index % alphabet.count]
    index /= alphabet.count
    var parts: [String] = []
    for _ in 1..<length {
      let joined = index % (alphabet.count * Self.joints.count)
      parts.append(
        alphabet[joined / Self.joints.count] + Self.joints[joined % Self.joints.count])
      index /= alphabet.count * Self.joints.count
    }
    return history(parts, last)
  }

  private func history(_ parts: [String], _ last: String?) -> History {
    let tail = (last.map { [$0] } ?? []) + ["settle"]
    let lastSteps = Step.history(tail.joined(separator: ", "))?.count ?? 0
    let text = ([machine, prelude] + parts + tail).filter { !$0.isEmpty }.joined(separator: ", ")
    // A step text that cannot be read would be a fault of the tables below; a test reads them all.
    return History(steps: Step.history(text) ?? [], lastSteps: last == nil ? .max : lastSteps)
  }

  private static let creating = "create 0, settle"
  private static let changes = [
    "send 0 1 100", "send 0 2 3000", "receive 0 10 30000", "delete 0", "hide 0 0", "hide 0 60000",
    "purge 0", "create 1", "remove 0", "retain 0 10", "pass 40000", "turn 1",
  ]

  /// Four of these fill a segment.
  private static let filler = "send 2 1 16000"
  private static let filling = "\(filler), settle, \(filler), settle, \(filler), settle"

  /// A checkpoint was written, and the next one comes where the present segment ends.
  private static let beforeCheckpoint =
    "create 1, create 2, send 1 6 100, receive 1 2 90000, settle, delete 0, settle, "
    + "\(filling), \(filler), settle, receive 2 1 0, settle, delete 2, settle, \(filling)"

  /// The first segments hold little that lives: messages that are leased, returned, delayed,
  /// waiting, and parked. Once the present one has ended there are two checkpoints behind them.
  private static let beforeCompaction =
    creating + ", create 1, create 2, send 1 9 100, settle, send 1 1 100 3000000, settle, "
    + "receive 1 1 3000000, settle, receive 1 1 0, settle, "
    + "\(filler), settle, \(filler), settle, receive 2 10 90000, settle, delete 2, delete 3, "
    + "settle, \(filler), settle, \(filler), settle, receive 2 10 90000, settle, delete 4, "
    + "delete 5, settle, \(filler), settle"

  /// Two groups; the head of the first is leased, and a send is remembered.
  private static let groups =
    "create 0 1, settle, send 0 2 100 0 1 1, settle, send 0 1 100 0 2, settle, "
    + "receive 0 1 30000, settle"

  /// Two messages that the next receive moves, one behind them, and one that was moved.
  private static func exhausted(_ kind: Int) -> String {
    "create 3 \(kind), create 0 \(kind) 1, settle, send 0 1 100, settle, receive 0 1 0, settle, "
      + "receive 0 1 0, settle, send 0 2 100, settle, receive 0 2 0, settle, send 0 1 100, settle"
  }

  /// All families; their histories have up to `length` operations.
  package static func all(length: Int) -> [Family] {
    [
      Family(
        name: "creation", prelude: "", alphabet: ["create 0", "pass 200"], length: 1,
        machine: "machine 0 1 0 1", limit: 200),
      Family(name: "fresh queue", prelude: creating, alphabet: changes, length: length),
      Family(
        name: "leased messages",
        prelude: creating
          + ", send 0 3 100, settle, receive 0 2 30000, settle, send 0 1 100 60000, settle",
        alphabet: [
          "delete 0", "delete 1", "hide 0 0", "hide 1 60000", "receive 0 1 1000", "purge 0",
          "send 0 1 100", "pass 40000", "kill", "restart",
        ], length: length),
      Family(
        name: "full segment",
        prelude: creating
          + ", send 0 1 16000, settle, send 0 1 16000, settle, send 0 1 16000, settle",
        alphabet: [
          "send 0 1 16000", "send 0 2 100", "receive 0 1 30000", "delete 0", "pass 200", "restart",
          "kill",
        ], length: length),
      Family(
        name: "torn sectors", prelude: creating,
        alphabet: [
          "send 0 1 100", "send 0 3 2000", "receive 0 10 30000", "delete 0", "pass 200",
        ], length: length, machine: "machine 1 1 0", limit: 200),
      Family(
        name: "crashes of recovery", prelude: creating,
        alphabet: [
          "send 0 1 100", "receive 0 1 30000", "pass 200", "send 0 1 16000", "restart",
        ], length: min(length, 2), machine: "machine 0 0 0 1"),
      Family(
        name: "parked messages",
        prelude: creating + ", send 0 7 100, settle, send 0 2 100 60000, settle",
        alphabet: [
          "receive 0 1 30000", "receive 0 10 0", "send 0 2 100", "delete 0", "purge 0",
          "retain 0 10", "pass 70000", "turn 1", "remove 0", "kill", "restart",
        ], length: min(length, 2), limit: 200),
      Family(
        name: "checkpoints", prelude: creating + ", " + beforeCheckpoint,
        alphabet: [
          filler, "receive 0 10 30000", "delete 0", "purge 0", "send 1 2 100 60000", "remove 0",
          "kill", "restart",
        ], length: min(length, 2), limit: 24, cost: 4),
      Family(
        name: "compaction", prelude: beforeCompaction,
        alphabet: [
          filler, "receive 1 10 30000", "delete 0", "hide 0 0", "purge 1", "remove 1", "kill",
          "restart",
        ], length: min(length, 2), limit: 24, cost: 4),
      Family(
        name: "full disk", prelude: beforeCompaction + ", fill 1",
        alphabet: [
          "\(filling), \(filler)", "receive 1 10 30000", "delete 0", "purge 1",
          "fill 0, pass 6000", "restart",
        ], length: min(length, 2), limit: 24, cost: 4),
      Family(
        name: "groups", prelude: groups,
        alphabet: [
          "send 0 1 100 0 1 1", "send 0 2 100 0 1 2", "receive 0 1 1000", "receive 0 10 30000",
          "delete 0", "hide 0 0", "hide 0 60000", "purge 0", "pass 40000", "pass 300000", "kill",
          "restart",
        ], length: length, cost: 10),
      Family(
        name: "dead letters", prelude: exhausted(0),
        alphabet: [
          "receive 0 1 30000", "receive 0 10 0", "receive 3 10 30000", "delete 0", "delete 4",
          "purge 0", "purge 3", "remove 3", "create 3", "retain 3 10", "pass 40000", "turn 1",
          "kill", "restart",
        ], length: length, cost: 20),
      Family(
        name: "dead letters of groups", prelude: exhausted(1),
        alphabet: [
          "receive 0 1 30000", "receive 3 10 30000", "send 0 1 100 0 0 1", "delete 4", "purge 3",
          "remove 3", "pass 40000", "kill", "restart",
        ], length: min(length, 2)),
      Family(
        name: "transactions",
        prelude: creating
          + ", create 1 1, send 0 3 100, settle, receive 0 2 30000, settle, send 1 1 100 0 0 1, "
          + "settle",
        alphabet: [
          "commit 0 1 100 0 2", "commit 1 1 100 0 1", "commit 0 0 3000", "delete 0", "hide 1 0",
          "receive 0 3 1000", "purge 1", "remove 1", "pass 40000", "kill", "restart",
        ], length: length, cost: 16),
      Family(
        name: "sweeps", prelude: creating + ", send 0 9 100, settle, look 0, settle",
        alphabet: [
          "sweep 0 2", "sweep 0 1", "look 0", "receive 0 1 30000", "receive 0 10 0",
          "send 0 2 100", "purge 0", "turn 1", "kill", "restart",
        ], length: min(length, 2), limit: 200),
      Family(
        name: "damage", prelude: creating + ", pass 200, settle",
        alphabet: [
          "send 0 1 100, settle, pass 200, settle", "receive 0 1 30000, settle, restart",
          "send 0 1 16000, settle, restart", "delete 0, settle, pass 200, settle",
        ], length: min(length, 2), machine: "machine 0 0 0 0 1"),
      Family(
        name: "damaged messages", prelude: beforeCompaction + ", \(filler), settle",
        alphabet: [
          "receive 1 10 30000", "\(filling), \(filler), settle, restart", "delete 0, purge 1",
        ], length: min(length, 1), machine: "machine 0 0 0 0 1", limit: 24),
    ]
  }
}
