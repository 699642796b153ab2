// SPDX-License-Identifier: Apache-2.0

// When to look at a queue's retention: never later than its oldest message expires.

extension State {
  /// Makes sure that `expiries` knows of the queue, in time for its oldest visible message (I6).
  mutating func awaitExpiry(_ q: Int) {
    guard let time = oldestExpiry(q) else { return }
    let key = UInt64(clamping: time)
    if let known = expiries.key(of: UInt32(q), expiryPlaces), known <= key { return }
    expiries.move(UInt32(q), key: key, &expiryPlaces)
  }

  /// When the oldest message that nobody holds expires; nil when there is none. Looks at the same
  /// message as `decideExpire`, or what is due by one might never be due by the other.
  func oldestExpiry(_ q: Int) -> Int64? {
    if table[q].overdue.first != nil { return 0 }
    let head = table[q].ready.head
    if let index = oldestGrouped(q) {
      let waiting = head == Slab.none ? table[q].runs.first?.last : slab[head].message
      if slab[index].message < min(waiting ?? .max, table[q].returned.first?.key ?? .max) {
        return retentionEnd(index, q)
      }
    }
    if let first = table[q].returned.first {
      let next = head == Slab.none ? table[q].runs.first?.last : slab[head].message
      if first.key <= next ?? .max { return retentionEnd(activities[Int(first.item)].slot, q) }
    }
    if head != Slab.none { return retentionEnd(head, q) }
    return table[q].runs.first.map { retentionEnd(q, sentSecond: $0.newestSecond) }
  }

  /// Takes the first queue whose time has come off `expiries`; the caller looks at it and puts it
  /// back.
  mutating func takeExpiry() -> Int? {
    guard let first = expiries.first, first.key <= UInt64(clamping: time.milliseconds) else {
      return nil
    }
    expiries.remove(first.item, &expiryPlaces)
    return Int(first.item)
  }

  mutating func returnExpiry(_ q: Int) { awaitExpiry(q) }
}

extension Timestamp {
  /// Whole seconds since 1970, held at the ends of the range.
  var secondRoundedUp: UInt32 {
    UInt32(
      truncatingIfNeeded: (milliseconds.clamped(to: 0...Int64(UInt32.max) * 1000 - 999) + 999)
        / 1000)
  }
}
