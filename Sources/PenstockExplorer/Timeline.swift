// SPDX-License-Identifier: Apache-2.0
internal import Penstock
internal import PenstockTesting

/// What a store should hold after each operation, and how far its answers bind it.
///
/// A crash may take operations from the end, none from the middle: what comes back must be one of
/// the moments, and none before those that were promised.
struct Timeline {
  /// The model after an operation.
  struct Moment {
    var oracle: Oracle
    /// Queues by their number in the history.
    var queues: [Int: QueueID] = [:]
    /// The newest record then. Only tells moments apart that look alike.
    var lsn: UInt64 = 0
  }

  /// A message that was handed to the store.
  struct Sent {
    var queue: Int
    var size: Int
    /// Messages of one batch have the same.
    var group: Int
    /// The moment it belongs to.
    var moment: Int
  }

  /// Never empty. The first is what the last start found.
  private(set) var moments: [Moment]
  /// Moments that survive a loss of power: of what was acknowledged, and of what was delivered.
  private(set) var acknowledged = 0
  private(set) var delivered = 0
  /// The moment that survives the end of the process.
  private(set) var written = 0
  /// The newest moment that somebody asked to be synced.
  private(set) var lastSynced = 0
  private(set) var sent: [UInt64: Sent] = [:]
  private(set) var lastNumber: UInt64 = 0
  /// Messages by the LSN of their send.
  private var numbers: [UInt64: UInt64] = [:]
  private var groups = 0

  init(at time: Int64) { moments = [Moment(oracle: Oracle(at: time))] }

  var present: Moment { moments[moments.count - 1] }
  var last: Int { moments.count - 1 }

  /// What must survive the loss of power, and the end of the process.
  var least: Int { max(acknowledged, delivered) }

  /// Goes on from what a start found.
  mutating func begin(from moment: Moment) {
    moments = [moment]
    (acknowledged, delivered, written, lastSynced) = (0, 0, 0, 0)
    for number in sent.keys { sent[number]?.moment = 0 }
  }

  /// An operation happens at `time`. Returns its moment.
  mutating func happen(
    at time: Int64, lsn: UInt64, isSynced: Bool, _ change: (inout Moment) -> Void
  ) -> Int {
    var moment = present
    moment.lsn = lsn
    moment.oracle.advance(to: time)
    change(&moment)
    moments.append(moment)
    if isSynced { lastSynced = last }
    return last
  }

  /// Numbers for a batch that is about to be sent.
  mutating func numbers(_ count: Int, queue: Int, size: Int) -> [UInt64] {
    groups += 1
    return (0..<count).map { _ in
      lastNumber += 1
      sent[lastNumber] = Sent(queue: queue, size: size, group: groups, moment: last + 1)
      return lastNumber
    }
  }

  /// The log has a batch; the last message of it has this LSN.
  mutating func place(_ batch: [UInt64], last: UInt64) {
    for (index, number) in batch.reversed().enumerated() { numbers[last - UInt64(index)] = number }
  }

  /// A message by the LSN of its send; 0 for one that nobody sent.
  func number(lsn: UInt64) -> UInt64 { numbers[lsn] ?? 0 }

  /// Somebody was told of everything up to `moment`.
  mutating func acknowledge(_ moment: Int, survivesPowerLoss: Bool) {
    written = max(written, moment)
    if survivesPowerLoss { acknowledged = max(acknowledged, moment) }
  }

  /// A receiver was given these messages.
  mutating func deliver(_ numbers: [UInt64]) {
    for number in numbers { delivered = max(delivered, sent[number]?.moment ?? 0) }
  }

  /// The body of a message: its number, then bytes that follow from it.
  func body(_ number: UInt64) -> [UInt8] {
    let size = max(8, sent[number]?.size ?? 8)
    var body = (0..<8).map { UInt8(truncatingIfNeeded: number >> (8 * UInt64($0))) }
    body.reserveCapacity(size)
    let filler = UInt8(truncatingIfNeeded: number &* 37) | 1
    body.append(contentsOf: repeatElement(filler, count: size - 8))
    return body
  }

  /// The number in a body; nil when no such message was sent or other bytes belong to it.
  func number(_ body: [UInt8]) -> UInt64? {
    guard body.count >= 8 else { return nil }
    let number = (0..<8).reduce(UInt64(0)) { $0 | UInt64(body[$1]) << (8 * UInt64($1)) }
    return sent[number] != nil && self.body(number) == body ? number : nil
  }
}
