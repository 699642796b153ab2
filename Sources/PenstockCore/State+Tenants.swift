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

  /// The tenant that a group is; nil for a group of a FIFO queue, or none.
  func tenant(_ group: UInt32) -> Int? {
    guard group != Slab.none, groups[Int(group)].isTenant else { return nil }
    return Int(groups[Int(group)].next)
  }

  /// Makes a group one of a standard queue.
  mutating func makeTenant(_ group: UInt32) {
    groups[Int(group)].isTenant = true
    groups[Int(group)].next = tenants.put(Tenant(), free: &freeTenant) { $0.waiting }
  }

  mutating func freeTenant(of group: UInt32) {
    guard let tenant = tenant(group) else { return }
    tenants[tenant] = Tenant(waiting: freeTenant)
    freeTenant = UInt32(tenant)
  }

  /// The LSN of the tenant's oldest visible message; `max` when none is visible.
  func oldestVisible(of group: UInt32) -> UInt64 {
    guard let tenant = tenant(group) else { return .max }
    let waiting = tenants[tenant].waiting
    return min(
      waiting == Slab.none ? .max : slab[waiting].message,
      tenants[tenant].returned.first?.key ?? .max)
  }

  /// Puts a new message into the list of its group.
  mutating func add(_ index: UInt32, to group: UInt32, waits: Bool) {
    guard let tenant = tenant(group) else {
      return groups[Int(group)].messages.append(index, &slab)
    }
    guard waits else { return groups[Int(group)].messages.prepend(index, &slab) }
    groups[Int(group)].messages.append(index, &slab)
    if tenants[tenant].waiting == Slab.none { tenants[tenant].waiting = index }
  }

  /// A message of a tenant waits no more: it leaves the part of the list where those are.
  mutating func stopWaiting(_ index: UInt32, in group: UInt32) {
    guard let tenant = tenant(group), tenants[tenant].waiting == index else { return }
    tenants[tenant].waiting = slab[index].next
  }

  /// A message of a group is leased.
  mutating func leaseBegins(_ activity: UInt32) {
    if let tenant = tenant(activities[Int(activity)].group) { tenants[tenant].leased += 1 }
  }

  /// A message is leased no more. What counts is the time from its newest receive.
  mutating func leaseEnds(_ q: Int, _ activity: UInt32, at end: Int64) {
    guard table[q].groups.count > 0, !table[q].settings.isFIFO else { return }
    let (minute, known) = (Self.minute(end), activities[Int(activity)])
    let length = end &- known.leasedAt
    table[q].groups.load.add(length, at: minute)
    guard let tenant = tenant(known.group) else { return }
    tenants[tenant].leased -= 1
    tenants[tenant].load.add(length, at: minute)
  }

  // MARK: Receiving

  /// What a look at the next messages of a queue has taken from its tenants so far.
  struct Turns {
    /// How far it has come with a tenant.
    struct Progress {
      /// The key of the tenant in `heads` before the look.
      var key: UInt64
      var waiting: UInt32
      var taken = 0
    }
    var progress: [UInt32: Progress] = [:]
    /// Tenants that are noisy, with their next message; they are off the heap meanwhile.
    var noisy: [(group: UInt32, key: UInt64)] = []
    /// Messages of the queue that were taken, of tenants or not.
    var taken = 0

    /// More than can be by shares of a tenth each are no noise.
    static let mostNoisy = 32
  }

  /// Whether a tenant holds more than its share, with what a look has taken from it.
  func isNoisy(_ q: Int, _ group: UInt32, _ turns: borrowing Turns) -> Bool {
    guard let tenant = tenant(group) else { return false }
    let leased = tenants[tenant].leased + (turns.progress[group]?.taken ?? 0)
    if leased >= 30, leased * 10 > table[q].counts.leased + turns.taken { return true }
    let minute = Self.minute(time.milliseconds)
    return tenants[tenant].load.amount(at: minute) * 10
      > table[q].groups.load.amount(at: minute)
  }

  /// The tenant whose turn it is, when others have a message with the LSN `other`, or none.
  ///
  /// - Returns: its group and its next message; nil when the other one comes first.
  /// - Complexity: O(log tenants), once more for each noisy one.
  mutating func nextTurn(
    _ q: Int, before other: UInt64, _ turns: inout Turns
  ) -> (group: UInt32, message: UInt32)? {
    while let first = table[q].groups.heads.first, first.key < other {
      guard turns.noisy.count < Turns.mostNoisy, isNoisy(q, first.item, turns) else {
        return (first.item, message(first.key, of: first.item, turns))
      }
      begin(first.item, first.key, &turns)
      table[q].groups.heads.remove(first.item, &headPlaces)
      turns.noisy.append((first.item, first.key))
    }
    guard other == .max else { return nil }
    let minute = Self.minute(time.milliseconds)
    func rank(_ turn: (group: UInt32, key: UInt64)) -> (Int, UInt64, UInt64) {
      guard let tenant = tenant(turn.group) else { return (.max, .max, .max) }
      let taken = turns.progress[turn.group]?.taken ?? 0
      return (tenants[tenant].leased + taken, tenants[tenant].load.amount(at: minute), turn.key)
    }
    let next = turns.noisy.filter { $0.key < .max }.min { rank($0) < rank($1) }
    return next.map { ($0.group, message($0.key, of: $0.group, turns)) }
  }

  private func begin(_ group: UInt32, _ key: UInt64, _ turns: inout Turns) {
    guard turns.progress[group] == nil, let tenant = tenant(group) else { return }
    turns.progress[group] = .init(key: key, waiting: tenants[tenant].waiting)
  }

  private func message(_ key: UInt64, of group: UInt32, _ turns: borrowing Turns) -> UInt32 {
    guard let tenant = tenant(group) else { return Slab.none }
    let waiting = turns.progress[group]?.waiting ?? tenants[tenant].waiting
    if waiting != Slab.none, slab[waiting].message == key { return waiting }
    return tenants[tenant].returned.first.map { activities[Int($0.item)].slot } ?? Slab.none
  }

  /// Goes on behind a message of a tenant; one that was visible again is out of its heap by now.
  mutating func take(_ index: UInt32, of group: UInt32, _ q: Int, _ turns: inout Turns) {
    begin(group, slab[index].message, &turns)
    guard let tenant = tenant(group), var known = turns.progress[group] else { return }
    if index == known.waiting { known.waiting = slab[index].next }
    known.taken += 1
    turns.progress[group] = known
    let waiting = known.waiting == Slab.none ? .max : slab[known.waiting].message
    let key = min(waiting, tenants[tenant].returned.first?.key ?? .max)
    if let place = turns.noisy.firstIndex(where: { $0.group == group }) {
      turns.noisy[place].key = key
    } else {
      table[q].groups.heads.move(group, key: key, &headPlaces)
    }
  }

  /// Puts back what a look took off.
  mutating func end(_ q: Int, _ turns: Turns) {
    for (group, known) in turns.progress {
      table[q].groups.heads.move(group, key: known.key, &headPlaces)
    }
  }
}
