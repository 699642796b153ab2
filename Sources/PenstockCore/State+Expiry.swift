// SPDX-License-Identifier: Apache-2.0

// When to look at a queue's retention: never later than its oldest message expires; and what is
// removed then, as a record.

extension State {
  /// Makes sure that `expiries` knows of the queue, in time for its oldest visible message (I6).
  mutating func awaitExpiry(_ q: Int) {
    guard let time = oldestExpiry(q) else { return }
    let key = UInt64(clamping: time)
    if let known = expiries.key(of: UInt32(q), expiryPlaces), known <= key { return }
    expiries.move(UInt32(q), key: key, &expiryPlaces)
  }

  /// When the oldest message that nobody holds expires; nil when there is none.
  func oldestExpiry(_ q: Int) -> Int64? {
    table[q].overdue.first != nil ? 0 : oldest(q)?.end
  }

  /// The oldest of a queue's messages that nobody holds, but for overdue ones, or the run that it
  /// is in. `oldestExpiry` and `decideExpire` both ask this, or what is due by one might never be
  /// due by the other.
  ///
  /// - Returns: its LSN, or the last of its run; when its retention ends, in milliseconds; and its
  ///   slot unless it is parked. In a FIFO queue it may be hidden.
  private func oldest(_ q: Int) -> (message: UInt64, end: Int64, slot: UInt32)? {
    let head = table[q].ready.head
    let run = head == Slab.none ? table[q].runs.first : nil
    let waiting = head == Slab.none ? run?.last ?? .max : slab[head].message
    let returned = table[q].returned.first
    var slot = head
    if let grouped = oldestGrouped(q), slab[grouped].message < min(waiting, returned?.key ?? .max) {
      slot = grouped
    } else if let returned, returned.key <= waiting {
      slot = activities[Int(returned.item)].slot
    }
    if slot != Slab.none { return (slab[slot].message, retentionEnd(slot, q), slot) }
    return run.map { ($0.last, retentionEnd(q, sentSecond: $0.newestSecond), slot) }
  }

  /// The record that removes what has outlived its queue's retention; nil when nothing has.
  ///
  /// - Parameter limit: how many messages one record may remove, so that none takes long.
  public func decideExpire(_ id: QueueID, limit: Int = 1000) -> Entry? {
    places[id.value].flatMap { decideExpire($0, limit) }
  }

  private func decideExpire(_ q: Int, _ limit: Int) -> Entry? {
    if let first = table[q].overdue.first {
      return Entry(
        queue: table[q].id, time: time,
        record: .deleted(message: first.key, slot: activities[Int(first.item)].slot))
    }
    guard let oldest = oldest(q), oldest.end <= time.milliseconds,
      oldest.slot == Slab.none || slab[oldest.slot].state.isVisible
    else { return nil }
    var through = oldest.message
    if oldest.slot == table[q].ready.head, oldest.slot != Slab.none {
      // Sends are in the order of time, so those behind it follow until one has not expired, or
      // stands behind one that is elsewhere.
      let grouped = oldestGrouped(q).map { slab[$0].message } ?? .max
      let other = min(grouped, table[q].returned.first?.key ?? .max)
      var (index, left) = (slab[oldest.slot].next, limit - 1)
      while index != Slab.none, left > 0, slab[index].message < other,
        retentionEnd(index, q) <= time.milliseconds
      {
        through = slab[index].message
        (index, left) = (slab[index].next, left - 1)
      }
    }
    return Entry(queue: table[q].id, time: time, record: .expired(through: through))
  }

  /// The next queue whose oldest message may have expired, with the record to apply, if any.
  public mutating func nextExpired(limit: Int = 1000) -> Entry? {
    while let first = expiries.first, first.key <= UInt64(clamping: time.milliseconds) {
      expiries.remove(first.item, &expiryPlaces)
      let entry = decideExpire(Int(first.item), limit)
      awaitExpiry(Int(first.item))
      if let entry { return entry }
    }
    return nil
  }

  /// When the next look at retention is due; nil when nothing waits for it.
  public var nextExpiry: Timestamp? {
    expiries.first.map { Timestamp(milliseconds: Int64(clamping: $0.key)) }
  }
}

extension Timestamp {
  /// Whole seconds since 1970, held at the ends of the range.
  var secondRoundedUp: UInt32 {
    UInt32(
      truncatingIfNeeded: (milliseconds.clamped(to: 0...Int64(UInt32.max) * 1000 - 999) + 999)
        / 1000)
  }
}
