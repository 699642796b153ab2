// SPDX-License-Identifier: Apache-2.0

// Fair queues: standard queues whose messages name groups, called tenants here. Every message with
// a group is in the list of its tenant: those that have an activity in front, in no order, then
// those that wait, in the order of sends. A receive takes the oldest message of a tenant that is
// quiet; only when there is none, one of a noisy tenant. Who is noisy follows from what is in
// flight and what was processed in the last minutes, and is asked anew by every receive: as
// noisy is who has more than a tenth, there are few of them, however many tenants a queue has.

extension State {
  /// What a group of a standard queue has beside its messages.
  struct Tenant: Sendable {
    /// The first message that waits, in the group's list.
    var waiting = Slab.none
    /// Messages that are visible again, by the LSN of the send.
    var returned = IndexedHeap()
    var leased = 0
    var load = Load()
  }

  /// For how long messages were leased, in milliseconds; half as much counts after a minute, and
  /// nothing after five without a lease that ended.
  struct Load: Hashable, Sendable {
    var amount: UInt64 = 0
    /// Since 1970, of the last change.
    var minute: Int64 = 0

    static let memory: Int64 = 5
    static let limit: UInt64 = 1 << 56

    func amount(at minute: Int64) -> UInt64 {
      let age = max(0, minute &- self.minute)
      return age >= Self.memory ? 0 : amount >> UInt64(age)
    }

    mutating func add(_ milliseconds: Int64, at minute: Int64) {
      // More than a lease of years adds nothing to the picture.
      let more = UInt64(milliseconds.clamped(to: 1...1 << 40))
      amount = min(amount(at: minute) &+ more, Self.limit)
      self.minute = max(minute, self.minute)
    }
  }

  private static func minute(_ milliseconds: Int64) -> Int64 { milliseconds / 60_000 }

  // MARK: Apply

  /// The LSN of the tenant's oldest visible message; `max` when none is visible.
  func oldestVisible(of group: UInt32) -> UInt64 {
    guard let tenant = tenants[group] else { return .max }
    let waiting = tenant.waiting == Slab.none ? .max : slab[tenant.waiting].message
    return min(waiting, tenant.returned.first?.key ?? .max)
  }

  /// Puts a new message into the list of its tenant.
  mutating func add(_ index: UInt32, to group: UInt32, waits: Bool) {
    if !waits {
      groups[Int(group)].messages.prepend(index, &slab)
    } else {
      groups[Int(group)].messages.append(index, &slab)
      if tenants[group]?.waiting == Slab.none { tenants[group]?.waiting = index }
    }
  }

  /// A message of a tenant waits no more: it leaves the part of the list where those are.
  mutating func stopWaiting(_ index: UInt32, in group: UInt32) {
    if tenants[group]?.waiting == index { tenants[group]?.waiting = slab[index].next }
  }

  /// A message of a group is leased, or no more.
  mutating func leaseBegins(_ activity: UInt32) {
    tenants[activities[Int(activity)].group]?.leased += 1
  }

  mutating func leaseEnds(_ q: Int, _ activity: UInt32, at end: Int64) {
    guard table[q].groups.count > 0, !table[q].settings.isFIFO else { return }
    let (minute, known) = (Self.minute(end), activities[Int(activity)])
    let length = end &- known.leasedAt
    table[q].groups.load.add(length, at: minute)
    tenants[known.group]?.leased -= 1
    tenants[known.group]?.load.add(length, at: minute)
  }

  // MARK: Receiving

  /// A tenant from which a receive may take, and how far it has come there.
  struct Turn {
    var group: UInt32
    var waiting: UInt32
    /// LSN of the next message; `max` when there is none.
    var key: UInt64
    /// As it was before.
    var firstKey: UInt64
    var taken = 0
  }

  /// Whether a tenant holds more than its share, with what a receive has taken from it.
  func isNoisy(_ q: Int, _ turn: Turn) -> Bool {
    guard let tenant = tenants[turn.group] else { return false }
    let leased = tenant.leased + turn.taken
    if leased >= 30, leased * 10 > table[q].counts.leased { return true }
    let minute = Self.minute(time.milliseconds)
    return tenant.load.amount(at: minute) * 10 > table[q].groups.load.amount(at: minute)
  }

  /// The tenant whose turn it is, when others have a message with the LSN `other`, or none.
  ///
  /// - Returns: its place in `turns`; nil when the other one comes first.
  /// - Complexity: O(log tenants) for each that is taken off the heap: those before it and the
  ///   noisy ones, of which there are some twenty at most.
  mutating func nextTurn(_ q: Int, before other: UInt64, _ turns: inout [Turn]) -> Int? {
    while true {
      let quiet = turns.indices.filter { turns[$0].key < .max && !isNoisy(q, turns[$0]) }
        .min { turns[$0].key < turns[$1].key }
      let oldest = min(quiet.map { turns[$0].key } ?? .max, other)
      if let first = table[q].groups.heads.first, first.key < oldest {
        table[q].groups.heads.remove(first.item, &headPlaces)
        turns.append(
          Turn(
            group: first.item, waiting: tenants[first.item]?.waiting ?? Slab.none,
            key: first.key, firstKey: first.key))
        continue
      }
      if let quiet, turns[quiet].key < other { return quiet }
      guard other == .max else { return nil }
      let minute = Self.minute(time.milliseconds)
      func rank(_ turn: Turn) -> (Int, UInt64, UInt64) {
        let tenant = tenants[turn.group]
        return (
          (tenant?.leased ?? 0) + turn.taken, tenant?.load.amount(at: minute) ?? 0, turn.key
        )
      }
      return turns.indices.filter { turns[$0].key < .max }
        .min { rank(turns[$0]) < rank(turns[$1]) }
    }
  }

  /// The next message of a tenant.
  func message(of turn: Turn) -> UInt32 {
    if turn.waiting != Slab.none, slab[turn.waiting].message == turn.key { return turn.waiting }
    guard let first = tenants[turn.group]?.returned.first else { return Slab.none }
    return activities[Int(first.item)].slot
  }

  /// Goes on behind a message of a tenant; one that was visible again is out of its heap by now.
  func take(_ index: UInt32, _ turn: inout Turn) {
    if index == turn.waiting { turn.waiting = slab[index].next }
    let waiting = turn.waiting == Slab.none ? .max : slab[turn.waiting].message
    turn.key = min(waiting, tenants[turn.group]?.returned.first?.key ?? .max)
    turn.taken += 1
  }

  /// Puts back what a look took off.
  mutating func end(_ q: Int, _ turns: [Turn]) {
    for turn in turns {
      table[q].groups.heads.insert(turn.group, key: turn.firstKey, &headPlaces)
    }
  }
}
