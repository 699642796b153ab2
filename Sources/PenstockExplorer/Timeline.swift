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
    /// Its group in a FIFO or a fair queue, and its deduplication id; 0 for none.
    var line = 0
    var repetition = 0
    var priority = 0
    /// The moment it belongs to.
    var moment: Int
    /// That of its move to the dead letters.
    var movedAt = 0
  }

  /// What a transaction did.
  struct Committed {
    var deleted: UInt64
    var sent: UInt64
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
  /// Messages by their newest leases.
  private var tokens: [UInt64: UInt64] = [:]
  private var groups = 0
  private(set) var committed: [Committed] = []
  /// Deduplication ids that were used in a queue.
  private(set) var repetitions: [Int: Set<Int>] = [:]

  init(at time: Int64) { moments = [Moment(oracle: Oracle(at: time))] }

  var present: Moment { moments[moments.count - 1] }
  var last: Int { moments.count - 1 }

  /// What must survive the loss of power, and the end of the process.
  var least: Int { max(acknowledged, delivered) }

  /// Goes on from what a start found.
  mutating func begin(from moment: Moment) {
    moments = [moment]
    (acknowledged, delivered, written, lastSynced) = (0, 0, 0, 0)
    for number in sent.keys {
      sent[number]?.moment = 0
      sent[number]?.movedAt = 0
    }
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
  ///
  /// - Parameters:
  ///   - line: their group in a FIFO or a fair queue.
  ///   - repetition: the deduplication id of the first; 0 for none.
  mutating func numbers(
    _ count: Int, queue: Int, size: Int, line: Int = 0, repetition: Int = 0, priority: Int = 0
  ) -> [UInt64] {
    groups += 1
    return (0..<count).map { index in
      lastNumber += 1
      let id = repetition > 0 ? repetition + index : 0
      sent[lastNumber] = Sent(
        queue: queue, size: size, group: groups, line: line, repetition: id,
        priority: priority, moment: last + 1)
      if id > 0 { repetitions[queue, default: []].insert(id) }
      return lastNumber
    }
  }

  /// A message was leased.
  mutating func lease(_ number: UInt64, token: UInt64) { tokens[token] = number }

  /// The message of a lease was moved to the dead letters by this record, as the next moment.
  mutating func move(token: UInt64, lsn: UInt64) -> UInt64 {
    let number = tokens[token] ?? 0
    numbers[lsn] = number
    let next = last + 1
    sent[number]?.movedAt = next
    return number
  }

  mutating func commit(deleted: UInt64, sent: UInt64) {
    committed.append(Committed(deleted: deleted, sent: sent))
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

  /// A receiver was given these messages of a queue.
  mutating func deliver(_ numbers: [UInt64], of queue: Int) {
    for number in numbers {
      guard let sent = sent[number] else { continue }
      delivered = max(delivered, queue == sent.queue ? sent.moment : sent.movedAt)
    }
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
