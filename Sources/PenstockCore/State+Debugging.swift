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
      for part in [queue.createdAt.milliseconds, queue.changedAt.milliseconds] {
        hash.add(UInt64(bitPattern: part))
      }
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
        for part in [run.first, run.last, run.bytes, UInt64(run.segment), UInt64(run.count)] {
          hash.add(part)
        }
        hash.add(UInt64(run.newestSecond))
      }
      for hole in queue.holes.all { hash.add(hole) }
      for task in tasks[id.value] ?? [] {
        hash.add(task.id.low)
        hash.add(UInt64(task.moved) << 8 | UInt64(task.status.rawValue))
      }
      hash.add(UInt64(queue.expiredThrough))
      hash.add(queue.setAside)
    }
    hash.add(UInt64(nextQueue))
    return hash.value
  }

  private func add(_ index: UInt32, to hash: inout StableHash) {
    let slot = slab[index]
    hash.add(UInt64(index))
    hash.add(slot.message)
    hash.add(slot.position)
    hash.add(UInt64(slot.state.rawValue))
    hash.add(UInt64(slot.sentSecond))
    guard slot.state.hasActivity else { return }
    let activity = activities[Int(slot.link)]
    hash.add(UInt64(bitPattern: activity.deadline))
    hash.add(UInt64(bitPattern: activity.leasedAt))
    hash.add(UInt64(bitPattern: activity.firstReceivedAt))
    hash.add(activity.token)
    hash.add(UInt64(activity.receiveCount))
    hash.add(UInt64(activity.priority) | (activity.hasOwnDelay ? 256 : 0))
    hash.add(activity.isOverdue ? 1 : 0)
    guard let origin = origin(index) else { return }
    for byte in origin.queue.utf8 { hash.add(UInt64(byte)) }
    hash.add(UInt64(bitPattern: origin.movedAt.milliseconds))
    hash.add(UInt64(origin.reason.rawValue) << 32 | UInt64(bytesQueue(of: index)))
  }

  private func addGroups(_ q: Int, to hash: inout StableHash) {
    for group in row(of: table[q]) { hash.add(groups[Int(group)].hash.high) }
    for id in table[q].groups.attemptOrder.all {
      guard let attempt = table[q].groups.attempts[id], attempt.expiresAt > time.milliseconds
      else { continue }
      hash.add(id.low)
      hash.add(UInt64(bitPattern: attempt.expiresAt))
      for lease in attempt.leases { hash.add(lease.token) }
    }
    var send = table[q].groups.firstSend
    while send != Slab.none {
      let entry = sends[Int(send)]
      if entry.expiresAt > time.milliseconds {
        for part in [entry.hash.high, entry.hash.low, entry.id.high, entry.message] {
          hash.add(part)
        }
      }
      send = entry.next
    }
  }

  private func addTenants(_ q: Int, to hash: inout StableHash) {
    guard table[q].groups.count > 0 else { return }
    let minute = time.milliseconds / 60_000
    hash.add(table[q].groups.load.amount(at: minute))
    for group in all(of: table[q]) {
      hash.add(groups[Int(group)].hash.high)
      guard let tenant = tenant(group) else { continue }
      hash.add(UInt64(tenants[tenant].leased))
      hash.add(tenants[tenant].load.amount(at: minute))
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

  /// The queue's messages whose newest lease came after a record, in the order of those leases.
  package func leased(_ id: QueueID, after lsn: UInt64) -> [(token: UInt64, message: UInt64)] {
    guard let q = places[id.value] else { return [] }
    return (messages(table[q].active) + grouped(q)).filter { slab[$0].state.hasActivity }
      .map { (token: activities[Int(slab[$0].link)].token, message: slab[$0].message) }
      .filter { $0.token > lsn }.sorted { $0.token < $1.token }
  }

  /// The same of all messages that came to another queue after a record, in that order.
  package func transferred(after lsn: UInt64) -> [(token: UInt64, message: UInt64)] {
    places.values.flatMap { messages(table[$0].active) + grouped($0) }
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
    let inMemory = messages(table[q].ready) + messages(table[q].active) + grouped(q)
    let parked = table[q].runs.map(\.oldestSecond)
    return (inMemory.map { slab[$0].sentSecond } + parked).min()
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
    let inMemory = (messages(table[q].ready) + messages(table[q].active) + grouped(q))
      .map { slab[$0].message }
    return (inMemory + [table[q].runs.last?.last].compactMap(\.self)).max()
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

  func messages(_ list: SlotList) -> [UInt32] {
    var all: [UInt32] = []
    var index = list.head
    while index != Slab.none {
      all.append(index)
      index = slab[index].next
    }
    return all
  }

  /// The first invariant that does not hold, in words; nil when all do.
  package func brokenInvariant() -> String? {
    var inTimers = 0
    var inSegments: [UInt32: Residents] = [:]
    for index in 0..<slab.capacity where slab[UInt32(index)].state != .free {
      inSegments[slab[UInt32(index)].segment, default: Residents()].count += 1
      let slot = slab[UInt32(index)]
      inSegments[slot.segment, default: Residents()].bytes += slot.size
    }
    for q in places.values {
      let queue = table[q]
      let ready = messages(queue.ready)
      let active = messages(queue.active)
      if ready.contains(where: { slab[$0].state != .ready }) || ready.count != queue.readyCount {
        return "I1: ready list"
      }
      if zip(ready, ready.dropFirst()).contains(where: { slab[$0].message >= slab[$1].message }) {
        return "the ready list is not in the order of sends"
      }
      let inMemory = (ready + active + grouped(q)).reduce(0) { $0 + slab[$1].size }
      if queue.bytes != queue.runs.reduce(inMemory, { $0 + Int($1.bytes) }) {
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
        inSegments[run.segment, default: Residents()].count += Int(run.count)
        inSegments[run.segment, default: Residents()].bytes += Int(run.bytes)
      }
      let holes = queue.holes.all
      if holes.first ?? .max < queue.runs.first?.first ?? .max
        || zip(holes, holes.dropFirst()).contains(where: { $0 >= $1 })
      {
        return "I7: holes of \(queue.name)"
      }
      for index in active {
        let activity = slab[index].link
        guard Int(activity) < activities.count, activities[Int(activity)].slot == index else {
          return "I2: slot \(index) has no activity of its own"
        }
        switch slab[index].state {
        case .delayed, .leased:
          if slab[index].state == .delayed { counts.delayed += 1 } else { counts.leased += 1 }
          let end = min(activities[Int(activity)].deadline, retentionEnd(index, q))
          if timers.key(of: activity, timerPlaces) != UInt64(clamping: end) {
            return "I4: slot \(index) has no timer at its end"
          }
        case .returned:
          counts.visible += 1
          let known = activities[Int(activity)]
          let end: UInt64? =
            known.isStray && !known.isOverdue
            ? UInt64(clamping: retentionEnd(index, q)) : nil
          if timers.key(of: activity, timerPlaces) != end { return "I4: slot \(index), a stray" }
          if end != nil { inTimers += 1 }
          let heap =
            known.isOverdue ? queue.overdue : known.priority > 0 ? queue.urgent : queue.returned
          if heap.key(of: activity, orderPlaces) == nil { return "I3: slot \(index)" }
        case .free, .ready, .grouped: return "I1: slot \(index) is in the wrong list"
        }
      }
      if let broken = brokenGroups(q, &counts, &inTimers) { return broken }
      if counts != queue.counts { return "counts of \(queue.name): \(queue.counts), not \(counts)" }
      let returned = active.filter { slab[$0].state == .returned }.count
      if returned != queue.returned.count + queue.urgent.count + queue.overdue.count {
        return "I3: \(queue.name)"
      }
      inTimers += active.count - returned
      // A stray before others may have been sent after them; those are strays, with timers.
      let leader = queue.returned.first.map { activities[Int($0.item)].isStray } ?? false
      if !leader, let end = oldestExpiry(q) {
        let known = expiries.key(of: UInt32(q), expiryPlaces)
        if (known ?? .max) > UInt64(clamping: end) { return "I6: \(queue.name)" }
      }
    }
    let waiting =
      dying.flatMap { messages(SlotList(head: $0)) }
      + dyingGroupHeads().flatMap {
        messages(SlotList(head: $0))
      }
    if waiting.count != dyingCount { return "I1: \(dyingCount) dying, not \(waiting.count)" }
    let known = transfers.count
    var (lost, free) = (transferIndex.count, freeTransfer)
    while free != Slab.none { (lost, free) = (lost + 1, transfers[Int(free)].origin) }
    if lost != known { return "\(known) places of transfers, not \(lost)" }
    if inSegments != residents { return "I8: \(residents), not \(inSegments)" }
    if inTimers > timers.count { return "I4: \(timers.count) timers for \(inTimers) activities" }
    return nil
  }
}

extension State {
  /// Looks at the groups of a queue, and counts their messages.
  private func brokenGroups(_ q: Int, _ counts: inout QueueCounts, _ inTimers: inout Int) -> String?
  {
    var (group, count, available) = (table[q].groups.all, 0, 0)
    let isFIFO = table[q].settings.isFIFO
    while group != Slab.none {
      let found = groups[Int(group)]
      var all = messages(found.messages)
      count += 1
      guard let head = all.first, found.queue == table[q].id.value else {
        return "I9: group \(group)"
      }
      if found.isAvailable { available += 1 }
      if found.isAvailable != (isFIFO && slab[head].state.isVisible) {
        return "I9: row of \(table[q].name)"
      }
      let key = isFIFO ? slab[head].message : oldestVisible(of: group)
      if table[q].groups.heads.key(of: group, headPlaces) != key {
        return "I9: heads of \(table[q].name)"
      }
      if let broken = brokenTenant(group, all, isFIFO) { return broken }
      if !isFIFO { all.sort { slab[$0].message < slab[$1].message } }
      if zip(all, all.dropFirst()).contains(where: { slab[$0].message >= slab[$1].message }) {
        return "a group is not in the order of sends"
      }
      for index in all {
        let state = slab[index].state
        if state.isVisible {
          counts.visible += 1
        } else if state == .leased {
          counts.leased += 1
        } else {
          counts.delayed += 1
        }
        if !state.isVisible { inTimers += 1 }
        let link = slab[index].link
        let isOurs = state.hasActivity ? activities[Int(link)].group == group : link == group
        if !isOurs || state == .ready { return "I2: slot \(index) of a group" }
      }
      group = found.nextOfQueue
    }
    group = table[q].groups.first
    while group != Slab.none {
      available -= 1
      group = groups[Int(group)].next
    }
    return count != table[q].groups.count || available != 0 ? "I9: \(table[q].name)" : nil
  }
}

extension State {
  private func brokenTenant(_ group: UInt32, _ all: [UInt32], _ isFIFO: Bool) -> String? {
    guard let tenant = tenant(group).map({ tenants[$0] }) else {
      return isFIFO ? nil : "I10: no tenant \(group)"
    }
    let waiting = all.drop { slab[$0].state.hasActivity }
    let returned = all.filter { slab[$0].state == .returned }.map { slab[$0].link }
    guard !isFIFO, waiting.first ?? Slab.none == tenant.waiting,
      waiting.allSatisfy({ slab[$0].state == .grouped }),
      zip(waiting, waiting.dropFirst()).allSatisfy({ slab[$0].message < slab[$1].message }),
      returned.count == tenant.returned.count,
      returned.allSatisfy({ tenant.returned.key(of: $0, orderPlaces) != nil }),
      tenant.leased == all.count(where: { slab[$0].state == .leased })
    else { return "I10: tenant \(group)" }
    return nil
  }
}

/// FNV-1a over 64-bit words: the same on every machine and in every release.
struct StableHash {
  private(set) var value: UInt64 = 0xcbf2_9ce4_8422_2325
  mutating func add(_ word: UInt64) {
    value = (value ^ word) &* 0x0000_0100_0000_01b3
    value ^= value >> 29
  }
}
