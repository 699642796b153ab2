// SPDX-License-Identifier: Apache-2.0
internal import PenstockSystem

extension State {
  /// A hash of everything that can be observed: equal for equal states, whatever way led to them.
  ///
  /// - Complexity: O(queues + messages).
  public func stateHash() -> UInt64 {
    var hash = StableHash()
    for name in sortedNames {
      guard let id = names[name], let q = places[id.value] else { continue }
      let queue = table[q]
      hash.add(UInt64(id.value))
      for byte in name.utf8 { hash.add(UInt64(byte)) }
      hash.add(signed: queue.createdAt.milliseconds, queue.changedAt.milliseconds)
      // Settings that come with a later release leave the hash as it is.
      for setting in QueueSetting.allCases.prefix(QueueSetting.always) + queue.settings.more {
        hash.add(UInt64(setting.rawValue))
        for byte in queue.settings[setting].bytes { hash.add(UInt64(byte)) }
      }
      for index in messages(queue.ready) { add(index, to: &hash) }
      let active = (messages(queue.active) + grouped(q))
        .sorted { slab[$0].message < slab[$1].message }
      if queue.settings.isFIFO { addGroups(q, to: &hash) } else { addTenants(q, to: &hash) }
      for index in active { add(index, to: &hash) }
      for run in queue.runs {
        hash.add(run.first, run.last, run.bytes, UInt64(run.segment), UInt64(run.count))
        hash.add(UInt64(run.newestSecond))
      }
      for hole in queue.holes.all { hash.add(hole) }
      for task in tasks[id.value] ?? [] {
        hash.add(task.id.low, UInt64(task.moved) << 8 | UInt64(task.status.rawValue))
      }
      hash.add(UInt64(queue.expiredThrough), queue.setAside)
    }
    hash.add(UInt64(nextQueue))
    return hash.value
  }

  private func add(_ index: UInt32, to hash: inout StableHash) {
    let slot = slab[index]
    hash.add(UInt64(index), slot.message, slot.position)
    hash.add(UInt64(slot.state.rawValue), UInt64(slot.sentSecond))
    guard slot.state.hasActivity else { return }
    let activity = activities[Int(slot.link)]
    hash.add(signed: activity.deadline, activity.leasedAt, activity.firstReceivedAt)
    hash.add(activity.token, UInt64(activity.receiveCount))
    hash.add(
      UInt64(activity.priority) | (activity.hasOwnDelay ? 256 : 0), activity.isOverdue ? 1 : 0)
    guard let origin = origin(index) else { return }
    for byte in origin.queue.utf8 { hash.add(UInt64(byte)) }
    hash.add(signed: origin.movedAt.milliseconds)
    hash.add(UInt64(origin.reason.rawValue) << 32 | UInt64(bytesQueue(of: index)))
  }

  private func addGroups(_ q: Int, to hash: inout StableHash) {
    for group in row(of: table[q]) { hash.add(groups[Int(group)].hash.high) }
    for id in table[q].groups.attemptOrder.all {
      guard let attempt = table[q].groups.attempts[id], attempt.expiresAt > time.milliseconds
      else { continue }
      hash.add(id.low, UInt64(bitPattern: attempt.expiresAt))
      for lease in attempt.leases { hash.add(lease.token) }
    }
    for send in Slab.chain(from: table[q].groups.firstSend, { sends[Int($0)].next }) {
      let entry = sends[Int(send)]
      guard entry.expiresAt > time.milliseconds else { continue }
      hash.add(entry.hash.high, entry.hash.low, entry.id.high, entry.message)
    }
  }

  private func addTenants(_ q: Int, to hash: inout StableHash) {
    guard table[q].groups.count > 0 else { return }
    let minute = time.milliseconds / 60_000
    hash.add(table[q].groups.load.amount(at: minute))
    for group in all(of: table[q]) {
      hash.add(groups[Int(group)].hash.high)
      guard let tenant = tenant(group) else { continue }
      hash.add(UInt64(tenants[tenant].leased), tenants[tenant].load.amount(at: minute))
    }
  }

  /// Messages of a queue that have an activity.
  ///
  /// - Complexity: O(of them), and in a FIFO queue of all its messages.
  func active(_ q: Int) -> [UInt32] {
    let isFIFO = table[q].settings.isFIFO
    var all = messages(table[q].active)
    for group in self.all(of: table[q]) {
      var index = groups[Int(group)].messages.head
      // Those of a tenant are in front.
      while index != Slab.none, isFIFO || slab[index].state.hasActivity {
        if slab[index].state.hasActivity { all.append(index) }
        index = slab[index].next
      }
    }
    return all
  }

  /// Messages of all groups of a queue, group by group.
  func grouped(_ q: Int) -> [UInt32] {
    all(of: table[q]).flatMap { messages(groups[Int($0)].messages) }
  }

  /// Messages of a queue that are in memory.
  private func inMemory(_ q: Int) -> [UInt32] {
    messages(table[q].ready) + messages(table[q].active) + grouped(q)
  }

  /// The queue's messages whose newest lease came after a record, in the order of those leases.
  package func leased(_ id: QueueID, after lsn: UInt64) -> [(token: UInt64, message: UInt64)] {
    guard let q = places[id.value] else { return [] }
    return active(q)
      .map { (token: activities[Int(slab[$0].link)].token, message: slab[$0].message) }
      .filter { $0.token > lsn }.sorted { $0.token < $1.token }
  }

  /// The same of all messages that came to another queue after a record, in that order.
  package func transferred(after lsn: UInt64) -> [(token: UInt64, message: UInt64)] {
    places.values.flatMap { active($0) }
      .filter { slab[$0].message > lsn && origin($0) != nil }
      .map { (token: activities[Int(slab[$0].link)].token, message: slab[$0].message) }
      .sorted { $0.message < $1.message }
  }

  /// When the oldest message of a queue was sent, in whole seconds since 1970, rounded up; nil when
  /// it has none.
  ///
  /// - Complexity: O(messages of the queue that are in memory + runs).
  package func oldestSecond(of id: QueueID) -> UInt32? {
    guard let q = places[id.value] else { return nil }
    return (inMemory(q).map { slab[$0].sentSecond } + table[q].runs.map(\.oldestSecond)).min()
  }

  /// Whether a message is in a queue, in memory or parked.
  package func holds(_ message: UInt64, in id: QueueID) -> Bool {
    guard let q = places[id.value] else { return false }
    let index = runIndex(q, message)
    if table[q].runs.indices.contains(index), table[q].runs[index].first <= message,
      !table[q].holes.contains(message)
    {
      return true
    }
    return (0..<UInt32(slab.capacity)).contains { isLive(q, slot: $0, message: message) }
  }

  /// LSN of the newest message of a queue; nil when it has none.
  package func newestMessage(_ id: QueueID) -> UInt64? {
    guard let q = places[id.value] else { return nil }
    return (inMemory(q).map { slab[$0].message } + table[q].runs.suffix(1).map(\.last)).max()
  }

  /// No fewer than the parked messages that have outlived their retention and are still counted,
  /// because others of their run have not.
  package func overdue(_ id: QueueID) -> Int {
    guard let q = places[id.value] else { return 0 }
    return table[q].runs.filter {
      retentionEnd(q, sentSecond: $0.oldestSecond) <= time.milliseconds
    }.reduce(0) { $0 + Int($1.count) }
  }

  /// A planted bug: every lease and delay ends at once.
  package mutating func forgetTimers() {
    let present = time
    advance(to: Timestamp(milliseconds: .max))
    time = present
  }

  /// A planted bug: what a record moves stays where it was.
  package func resident(of entry: Entry) -> Resident? {
    guard case .transferred(let moved) = entry.record else { return nil }
    return resident(moved.slot)
  }

  package mutating func copy(
    _ resident: Resident, _ entry: Entry, lsn: UInt64
  ) throws(RecordError) {
    let sent = Record.Sent(id: MessageID(high: 0, low: 0), visibleAt: nil)
    let copy = Entry(queue: entry.queue, time: entry.time, record: .sent(sent))
    try apply(copy, lsn: lsn, position: resident.position, size: resident.size)
  }

  func messages(_ list: SlotList) -> [UInt32] { slab.chain(from: list.head) }

  /// The first invariant that does not hold, in words; nil when all do.
  package func brokenInvariant() -> String? {
    var inTimers = 0
    var inSegments: [UInt32: Residents] = [:]
    func reside(_ segment: UInt32, _ count: Int, _ bytes: Int) {
      inSegments[segment, default: Residents()].count += count
      inSegments[segment, default: Residents()].bytes += bytes
    }
    for index in 0..<UInt32(slab.capacity) where slab[index].state != .free {
      reside(slab[index].segment, 1, slab[index].size)
    }
    for q in places.values {
      let queue = table[q]
      let ready = messages(queue.ready)
      let active = messages(queue.active)
      if ready.contains(where: { slab[$0].state != .ready }) || ready.count != queue.readyCount {
        return "I1: ready list"
      }
      if !ready.map({ slab[$0].message }).ascends {
        return "the ready list is not in the order of sends"
      }
      let size = inMemory(q).reduce(0) { $0 + slab[$1].size }
      if queue.bytes != queue.runs.reduce(size, { $0 + Int($1.bytes) }) {
        return "bytes of \(queue.name)"
      }
      var counts = QueueCounts()
      counts.visible = ready.count + queue.runs.reduce(0) { $0 + Int($1.count) }
      if counts.visible != ready.count + queue.parked { return "I7: parked of \(queue.name)" }
      var last = ready.last.map { slab[$0].message } ?? 0
      for run in queue.runs {
        guard run.first > last, run.last >= run.first, run.count > 0 else {
          return "I7: runs of \(queue.name)"
        }
        last = run.last
        reside(run.segment, Int(run.count), Int(run.bytes))
      }
      let holes = queue.holes.all
      if holes.first ?? .max < queue.runs.first?.first ?? .max || !holes.ascends {
        return "I7: holes of \(queue.name)"
      }
      for index in active {
        let (activity, state) = (slab[index].link, slab[index].state)
        guard state.hasActivity else { return "I1: slot \(index) is in the wrong list" }
        guard Int(activity) < activities.count, activities[Int(activity)].slot == index else {
          return "I2: slot \(index) has no activity of its own"
        }
        counts.add(state)
        let known = activities[Int(activity)]
        let end: Int64? =
          !state.isVisible
          ? min(known.deadline, retentionEnd(index, q))
          : known.isStray && !known.isOverdue ? retentionEnd(index, q) : nil
        if timers.key(of: activity, timerPlaces) != end.map({ UInt64(clamping: $0) }) {
          return "I4: slot \(index) has no timer at its end"
        }
        if end != nil { inTimers += 1 }
        let heap =
          known.isOverdue ? queue.overdue : known.priority > 0 ? queue.urgent : queue.returned
        if state.isVisible, heap.key(of: activity, orderPlaces) == nil {
          return "I3: slot \(index)"
        }
      }
      if let broken = brokenGroups(q, &counts, &inTimers) { return broken }
      if counts != queue.counts { return "counts of \(queue.name): \(queue.counts), not \(counts)" }
      let returned = active.filter { slab[$0].state == .returned }.count
      if returned != queue.returned.count + queue.urgent.count + queue.overdue.count {
        return "I3: \(queue.name)"
      }
      // A stray before others may have been sent after them; those are strays, with timers.
      let leader = queue.returned.first.map { activities[Int($0.item)].isStray } ?? false
      if !leader, let end = oldestExpiry(q) {
        let known = expiries.key(of: UInt32(q), expiryPlaces)
        if (known ?? .max) > UInt64(clamping: end) { return "I6: \(queue.name)" }
      }
    }
    let waiting = (dying + dyingGroupHeads()).flatMap { slab.chain(from: $0) }
    if waiting.count != dyingCount { return "I1: \(dyingCount) dying, not \(waiting.count)" }
    let free = Slab.chain(from: freeTransfer) { transfers[Int($0)].origin }
    if transferIndex.count + free.count != transfers.count { return "places of transfers" }
    if inSegments != residents { return "I8: \(residents), not \(inSegments)" }
    if inTimers > timers.count { return "I4: \(timers.count) timers for \(inTimers) activities" }
    return nil
  }

  /// Looks at the groups of a queue, and counts their messages.
  private func brokenGroups(_ q: Int, _ counts: inout QueueCounts, _ inTimers: inout Int) -> String?
  {
    let members = all(of: table[q])
    let isFIFO = table[q].settings.isFIFO
    for group in members {
      let found = groups[Int(group)]
      var all = messages(found.messages)
      guard let head = all.first, found.queue == table[q].id.value else {
        return "I9: group \(group)"
      }
      if found.isAvailable != (isFIFO && slab[head].state.isVisible) {
        return "I9: row of \(table[q].name)"
      }
      let key = isFIFO ? slab[head].message : oldestVisible(of: group)
      if table[q].groups.heads.key(of: group, headPlaces) != key {
        return "I9: heads of \(table[q].name)"
      }
      if let broken = brokenTenant(group, all, isFIFO) { return broken }
      if !isFIFO { all.sort { slab[$0].message < slab[$1].message } }
      if !all.map({ slab[$0].message }).ascends { return "a group is not in the order of sends" }
      for index in all {
        let state = slab[index].state
        counts.add(state)
        if !state.isVisible { inTimers += 1 }
        let link = slab[index].link
        let isOurs = state.hasActivity ? activities[Int(link)].group == group : link == group
        if !isOurs || state == .ready { return "I2: slot \(index) of a group" }
      }
    }
    let available = members.count { groups[Int($0)].isAvailable }
    return members.count != table[q].groups.count || available != row(of: table[q]).count
      ? "I9: \(table[q].name)" : nil
  }

  private func brokenTenant(_ group: UInt32, _ all: [UInt32], _ isFIFO: Bool) -> String? {
    guard let tenant = tenant(group).map({ tenants[$0] }) else {
      return isFIFO ? nil : "I10: no tenant \(group)"
    }
    let waiting = all.drop { slab[$0].state.hasActivity }
    let returned = all.filter { slab[$0].state == .returned }.map { slab[$0].link }
    guard !isFIFO, waiting.first ?? Slab.none == tenant.waiting,
      waiting.allSatisfy({ slab[$0].state == .grouped }),
      waiting.map({ slab[$0].message }).ascends,
      returned.count == tenant.returned.count,
      returned.allSatisfy({ tenant.returned.key(of: $0, orderPlaces) != nil }),
      tenant.leased == all.count(where: { slab[$0].state == .leased })
    else { return "I10: tenant \(group)" }
    return nil
  }
}

extension Collection where Element: Comparable {
  fileprivate var ascends: Bool { zip(self, dropFirst()).allSatisfy { $0 < $1 } }
}

/// FNV-1a over 64-bit words: the same on every machine and in every release.
struct StableHash {
  private(set) var value: UInt64 = 0xcbf2_9ce4_8422_2325
  mutating func add(_ words: UInt64...) {
    for word in words {
      value = (value ^ word) &* 0x0000_0100_0000_01b3
      value ^= value >> 29
    }
  }
  mutating func add(signed words: Int64...) {
    for word in words { add(UInt64(bitPattern: word)) }
  }
}
