// SPDX-License-Identifier: Apache-2.0

/// What was done with a queue since the store was opened; counts start at 0 then, and with a queue
/// that is created.
public struct QueueTraffic: Hashable, Sendable {
  /// Messages that were sent, those included that a move task brought.
  public var sent = 0
  /// Bytes of their bodies and attributes.
  public var sentBytes = 0
  /// Sends that repeated another one, so that nothing was sent.
  public var duplicates = 0
  /// Deliveries: a message that came twice counts twice. Each was leased; one whose bytes turned
  /// out to be damaged counts, too.
  public var received = 0
  /// Receives that ended without a message, after their wait if they had one; cancelled ones do not
  /// count.
  public var emptyReceives = 0
  /// Messages that were deleted, those included that a move task took.
  public var deleted = 0
  /// Messages whose retention ended.
  public var expired = 0
  /// Messages that were purged.
  public var purged = 0
  /// Messages that went to the queue's dead letters. They do not count as sent there.
  public var deadLettered = 0
  /// Nothing was done yet.
  public init() {}
}

/// How a queue does at one moment: for metrics. Some of it may not be durable yet.
public struct QueueMetrics: Hashable, Sendable {
  /// Since the store was opened.
  public var traffic: QueueTraffic
  /// Messages there are.
  public var counts: QueueCounts
  /// Bytes that their records take in the log.
  public var bytes: Int
  /// Damaged messages that were taken out since the queue was created.
  public var setAside: UInt64
  /// Since when the oldest message is in the queue, in whole seconds, rounded up; nil when there is
  /// none. A dead letter is there since its move. In a queue with delays, priorities or dead
  /// letters it may be that of a younger one: of what was ever hidden 64 are looked at.
  public var oldestSince: Timestamp?
  /// The time since then.
  public var oldestAge: Duration?
}

/// How the groups of a queue share it at one moment.
public struct GroupMetrics: Hashable, Sendable {
  /// Groups that have messages.
  public var count = 0
  /// Of them those with a message in flight.
  public var inFlight = 0
  /// Standard: groups that wait for the others, because they have more than their share.
  public var noisy = 0
  /// Messages of the others, and of no group. In a FIFO queue all.
  public var quiet = QueueCounts()
  /// Since when the oldest visible message of those is in the queue, in whole seconds, rounded up.
  public var quietOldestSince: Timestamp?
  /// The time since then.
  public var quietOldestAge: Duration?
}

extension QueueCounts {
  mutating func add(_ state: Slot.State, _ count: Int = 1) {
    switch state {
    case .delayed: delayed += count
    case .leased: leased += count
    case .ready, .returned, .grouped: visible += count
    case .free: break
    }
  }
}

extension State {
  /// The queue's metrics; nil when there is no such queue.
  ///
  /// - Complexity: O(1).
  public func metrics(_ id: QueueID) -> QueueMetrics? {
    guard let q = places[id.value] else { return nil }
    let since = oldestSecond(q).map { Timestamp(milliseconds: Int64($0) * 1000) }
    return QueueMetrics(
      traffic: table[q].traffic, counts: table[q].counts, bytes: table[q].bytes,
      setAside: table[q].setAside, oldestSince: since,
      oldestAge: since.map { .milliseconds(max(0, time.milliseconds - $0.milliseconds)) })
  }

  /// Whether the queue has messages that name groups.
  public func hasGroups(_ id: QueueID) -> Bool {
    places[id.value].map { table[$0].groups.count > 0 } ?? false
  }

  /// How the groups of a queue share it; nil when there are none. For a copy: it takes long.
  ///
  /// - Complexity: O(groups + messages in flight + messages of noisy groups).
  public func groupMetrics(_ id: QueueID) -> GroupMetrics? {
    guard let q = places[id.value], table[q].groups.count > 0 else { return nil }
    var metrics = GroupMetrics(count: table[q].groups.count, quiet: table[q].counts)
    var oldest = table[q].settings.isFIFO ? nil : oldestUngrouped(q)
    for group in all(of: table[q]) {
      let messages = groups[Int(group)].messages
      var index = messages.head
      let isNoisy = isNoisy(q, group, Turns())
      if isNoisy { metrics.noisy += 1 }
      var hasLease = false
      while index != Slab.none, isNoisy || slab[index].state.hasActivity {
        if slab[index].state == .leased { hasLease = true }
        if isNoisy { metrics.quiet.add(slab[index].state, -1) }
        index = slab[index].next
      }
      if hasLease { metrics.inFlight += 1 }
      if !isNoisy, let tenant = tenant(group) {
        let returned = tenants[tenant].returned.first.map { activities[Int($0.item)].slot }
        for slot in [tenants[tenant].waiting, returned ?? Slab.none] where slot != Slab.none {
          oldest = min(oldest ?? .max, slab[slot].sentSecond)
        }
      } else if !isNoisy, slab[messages.head].state.isVisible {
        oldest = min(oldest ?? .max, slab[messages.head].sentSecond)
      }
    }
    metrics.quietOldestSince = oldest.map { Timestamp(milliseconds: Int64($0) * 1000) }
    metrics.quietOldestAge = metrics.quietOldestSince.map {
      .milliseconds(max(0, time.milliseconds - $0.milliseconds))
    }
    return metrics
  }

  private func oldestUngrouped(_ q: Int) -> UInt32? {
    let head = table[q].ready.head
    let returned = table[q].returned.first.map { slab[activities[Int($0.item)].slot].sentSecond }
    let seconds = [
      head == Slab.none ? nil : slab[head].sentSecond, returned, table[q].runs.first?.oldestSecond,
    ]
    return seconds.compactMap(\.self).min()
  }

  /// Counts a send that repeated another one.
  public mutating func countDuplicate(_ id: QueueID) {
    if let q = places[id.value] { table[q].traffic.duplicates += 1 }
  }

  /// Counts a receive that ended without a message.
  public mutating func countEmptyReceive(_ id: QueueID) {
    if let q = places[id.value] { table[q].traffic.emptyReceives += 1 }
  }

  /// Counts from here on: what was replayed was done by an earlier run.
  public mutating func forgetTraffic() {
    for q in table.indices { table[q].traffic = QueueTraffic() }
  }

  /// Messages of queues none of whose messages would be kept if so much time passed.
  public func outlived(_ duration: Duration) -> Int {
    places.values.reduce(0) {
      $0 + (table[$1].settings.retention <= duration ? table[$1].counts.total : 0)
    }
  }

  private func oldestSecond(_ q: Int) -> UInt32? {
    var oldest = table[q].runs.first?.oldestSecond
    func see(_ index: UInt32) {
      guard index != Slab.none else { return }
      let moved = slab[index].state.hasActivity ? transfer(of: slab[index].link)?.movedAt : nil
      let second =
        moved.map { Timestamp(milliseconds: $0).secondRoundedUp } ?? slab[index].sentSecond
      oldest = min(oldest ?? second, second)
    }
    // Of a FIFO queue its oldest message; of tenants that have none visible, any one.
    if let first = table[q].groups.heads.first { see(groups[Int(first.item)].messages.head) }
    see(oldestGrouped(q) ?? Slab.none)
    see(table[q].ready.head)
    if let first = table[q].returned.first { see(activities[Int(first.item)].slot) }
    // In the order in which they were first hidden or moved here: mostly that of their sends.
    var index = table[q].active.head
    for _ in 0..<64 where index != Slab.none {
      see(index)
      index = slab[index].next
    }
    return oldest
  }
}
