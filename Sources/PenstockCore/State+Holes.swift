// SPDX-License-Identifier: Apache-2.0
public import PenstockSystem

// Parked messages that are taken out of the middle of a queue. What says where parked messages
// stand is derived from their segment and still lists them; so the state remembers which are gone,
// eight bytes each, until the queue has come past them.

/// LSNs in ascending order, taken off at the front.
struct Holes: Sendable {
  private var lsns: [UInt64] = []
  private var start = 0

  var all: ArraySlice<UInt64> { lsns[start...] }
  var count: Int { lsns.count - start }

  private func place(_ lsn: UInt64) -> Int { all.firstPlace { $0 < lsn } }

  func contains(_ lsn: UInt64) -> Bool {
    guard count > 0 else { return false }
    let place = place(lsn)
    return place < lsns.count && lsns[place] == lsn
  }

  /// Those who go through a queue in its order append.
  mutating func insert(_ lsn: UInt64) { lsns.insert(lsn, at: place(lsn)) }

  mutating func drop(before lsn: UInt64) {
    while start < lsns.count, lsns[start] < lsn { start += 1 }
    if start == lsns.count { (lsns, start) = ([], 0) }
    if start > 1024, start * 2 > lsns.count {
      lsns.removeFirst(start)
      start = 0
    }
  }
}

extension State {
  // MARK: Apply

  mutating func excise(
    _ q: Int, _ message: UInt64, _ segment: UInt32, _ size: UInt32, _ lsn: UInt64
  ) throws(RecordError) {
    guard let index = parkedRun(q, message, segment, size) else {
      throw RecordError(description: "LSN \(lsn) takes out message \(message), not parked there")
    }
    // Also where no run is left: another in the same segment may grow over it.
    table[q].holes.insert(message)
    table[q].counts.visible -= 1
    drop(Int(size), outOf: index, of: q, next: table[q].runs[index].first)
    awaitExpiry(q)
  }

  /// The run that a message is in, as far as the state can tell; nil when there is none.
  private func parkedRun(_ q: Int, _ message: UInt64, _ segment: UInt32, _ size: UInt32) -> Int? {
    let index = runIndex(q, message)
    guard table[q].runs.indices.contains(index), !table[q].holes.contains(message) else {
      return nil
    }
    let run = table[q].runs[index]
    let fits = run.count > 1 ? UInt64(size) < run.bytes : UInt64(size) == run.bytes
    return run.segment == segment && message >= run.first && fits ? index : nil
  }

  /// Forgets the holes that a queue has come past.
  mutating func dropHoles(_ q: Int) {
    if table[q].holes.count > 0 { table[q].holes.drop(before: table[q].runs.first?.first ?? .max) }
  }

  // MARK: Decide

  /// The record that takes a message out of its queue that is parked in a segment; nil when it is
  /// not parked there any more.
  func decideExcise(_ id: QueueID, in segment: UInt32, _ message: WaitingMessage) -> Entry? {
    guard let q = places[id.value], parkedRun(q, message.message, segment, message.size) != nil
    else { return nil }
    return Entry(
      queue: id, time: time,
      record: .excised(message: message.message, segment: segment, size: message.size))
  }

  /// Without those that were taken out of the queue.
  public func withoutHoles(_ id: QueueID, _ messages: [WaitingMessage]) -> [WaitingMessage] {
    guard let q = places[id.value], table[q].holes.count > 0 else { return messages }
    return messages.filter { !table[q].holes.contains($0.message) }
  }
}
