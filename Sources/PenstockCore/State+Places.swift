// SPDX-License-Identifier: Apache-2.0

// Where a message is, what time does to it, and how its place is given back.

extension State {
  // MARK: Time

  /// Ends every lease and delay whose deadline is not after `time`.
  ///
  /// - Returns: queues in which a message became visible; a queue may be named more than once.
  /// - Complexity: O(log active) for each that ends.
  @inline(__always) @discardableResult
  public mutating func advance(to time: Timestamp) -> [QueueID] {
    if time > self.time { self.time = time }
    let now = UInt64(clamping: self.time.milliseconds)
    guard let first = timers.first, first.key <= now else { return [] }
    return end(by: now)
  }

  private mutating func end(by now: UInt64) -> [QueueID] {
    var visible: [QueueID] = []
    var opened: [(end: UInt64, slot: UInt32, q: Int, group: UInt32)] = []
    while let first = timers.first, first.key <= now {
      let activity = first.item
      timers.remove(activity, &timerPlaces)
      let index = activities[Int(activity)].slot
      // One that was purged, or whose queue was deleted, waits to be freed.
      guard let q = places[queueNumber(of: index)],
        slab[index].message >= table[q].purgedBefore
      else { continue }
      let group = activities[Int(activity)].group
      if slab[index].state == .returned {
        // A stray whose retention ends.
        hide(q, activity)
        activities[Int(activity)].isOverdue = true
        show(q, activity)
        awaitExpiry(q)
        continue
      } else if slab[index].state == .leased {
        table[q].counts.leased -= 1
        leaseEnds(q, activity, at: Int64(clamping: first.key))
      } else {
        table[q].counts.delayed -= 1
      }
      table[q].counts.visible += 1
      if group != Slab.none, table[q].settings.isFIFO {
        opened.append((first.key, index, q, group))
      } else {
        slab[index].state = .returned
        show(q, activity)
        setTimer(activity)
        if group != Slab.none { groupChanged(q, group) }
      }
      if visible.last != table[q].id { visible.append(table[q].id) }
      awaitExpiry(q)
    }
    // What ends at the same time lines up by its sends, whatever the places of its timers; and a
    // group when its own head is visible, not when the first of its messages is.
    if opened.count > 1 {
      opened.sort { ($0.end, slab[$0.slot].message) < ($1.end, slab[$1.slot].message) }
    }
    for (_, slot, q, group) in opened {
      slab[slot].state = .returned
      groupChanged(q, group)
    }
    return visible
  }

  /// Whether time alone may remove messages that no look at a queue's oldest finds.
  public var hasStrays: Bool { transferIndex.count > 0 || urgentCount > 0 }

  /// When the next lease, delay or retention of a stray ends; nil when none does.
  public var nextTimer: Timestamp? {
    timers.first.map { Timestamp(milliseconds: Int64(clamping: $0.key)) }
  }

  /// Sets when time will do something to a message: end what hides it, or the retention of a stray.
  mutating func setTimer(_ activity: UInt32) {
    let index = activities[Int(activity)].slot
    let isVisible = slab[index].state == .returned
    guard !isVisible || activities[Int(activity)].isStray && !activities[Int(activity)].isOverdue
    else { return }
    var end = isVisible ? .max : activities[Int(activity)].deadline
    // A lease does not outlive its message's retention.
    if let q = places[queueNumber(of: index)] { end = min(end, retentionEnd(index, q)) }
    timers.move(activity, key: UInt64(clamping: end), &timerPlaces)
  }

  /// When the message's retention ends, in milliseconds.
  func retentionEnd(_ index: UInt32, _ q: Int) -> Int64 {
    // What came from elsewhere had another retention before.
    let isMoved =
      slab[index].state.hasActivity && activities[Int(slab[index].link)].isTransferred
      && activities[Int(slab[index].link)].isStray
    return retentionEnd(q, sentSecond: slab[index].sentSecond, isMoved: isMoved)
  }

  /// In milliseconds since 1970.
  func retentionEnd(_ q: Int, sentSecond: UInt32, isMoved: Bool = false) -> Int64 {
    guard sentSecond > table[q].expiredThrough || isMoved else { return 0 }
    let (end, overflow) = (Int64(sentSecond) * 1000)
      .addingReportingOverflow(table[q].retentionMilliseconds)
    return overflow ? .max : end
  }

  // MARK: Places

  /// Whether the slot holds this message of this queue, and it was not purged.
  func isLive(_ q: Int, slot: UInt32, message: UInt64) -> Bool {
    guard slab.contains(slot), slab[slot].state != .free, slab[slot].message == message,
      message >= table[q].purgedBefore
    else { return false }
    return queueNumber(of: slot) == table[q].id.value
  }

  /// The queue of a slot that is not free.
  func queueNumber(of slot: UInt32) -> UInt32 {
    let link = slab[slot].link
    switch slab[slot].state {
    case .ready: return link
    case .grouped: return groups[Int(link)].queue
    default:
      let activity = activities[Int(link)]
      return activity.group == Slab.none ? activity.owner : groups[Int(activity.group)].queue
    }
  }

  /// Puts a visible activity into the heap that it belongs in.
  mutating func show(_ q: Int, _ activity: UInt32) {
    let (message, known) = (slab[activities[Int(activity)].slot].message, activities[Int(activity)])
    if known.group != Slab.none {
      // In a FIFO queue the place in the group says it all.
      guard let tenant = tenant(known.group) else { return }
      tenants[tenant].returned.insert(activity, key: message, &orderPlaces)
    } else if known.isOverdue {
      table[q].overdue.insert(activity, key: message, &orderPlaces)
    } else if known.priority > 0 {
      table[q].urgent.insert(activity, key: urgency(q, activity), &orderPlaces)
    } else {
      table[q].returned.insert(activity, key: message, &orderPlaces)
    }
  }

  /// Takes a visible activity out of the heap that it is in.
  mutating func hide(_ q: Int, _ activity: UInt32) {
    let group = activities[Int(activity)].group
    if group != Slab.none {
      if let tenant = tenant(group) { tenants[tenant].returned.remove(activity, &orderPlaces) }
      return
    }
    table[q].returned.remove(activity, &orderPlaces)
    table[q].urgent.remove(activity, &orderPlaces)
    table[q].overdue.remove(activity, &orderPlaces)
  }

  /// Gives a message an activity, and a place where those that have one are.
  mutating func activate(
    _ q: Int, _ index: UInt32, _ state: Slot.State, group: UInt32 = Slab.none
  ) -> UInt32 {
    let fresh = Activity(slot: index, queue: table[q].id.value, group: group)
    let activity = activities.put(fresh, free: &freeActivity) { $0.slot }
    if timerPlaces.count < activities.count {
      timerPlaces.append(IndexedHeap.absent)
      orderPlaces.append(IndexedHeap.absent)
    }
    slab[index].state = state
    slab[index].link = activity
    if group == Slab.none { table[q].active.append(index, &slab) }
    return activity
  }

  /// Takes a live message out of every structure and frees its place.
  mutating func removeMessage(_ index: UInt32) {
    guard slab[index].state != .free, let q = places[queueNumber(of: index)] else { return }
    detach(q, index)
    if slab[index].state.hasActivity { free(activity: slab[index].link) }
    free(slot: index, of: q)
  }

  /// Takes a live message out of what its queue has it in; it keeps its place and its activity.
  mutating func detach(_ q: Int, _ index: UInt32) {
    let (state, link, group) = (slab[index].state, slab[index].link, group(of: index))
    table[q].counts.add(state, -1)
    switch state {
    case .free, .delayed: break
    case .ready:
      table[q].ready.remove(index, &slab)
      table[q].readyCount -= 1
    case .grouped: stopWaiting(index, in: link)
    case .leased: leaseEnds(q, link, at: time.milliseconds)
    case .returned: hide(q, link)
    }
    if let group {
      groups[Int(group)].messages.remove(index, &slab)
      groupChanged(q, group)
    } else if state.hasActivity {
      table[q].active.remove(index, &slab)
    }
  }

  private mutating func free(slot: UInt32, of q: Int?) {
    reside(slab[slot].segment, -1, -slab[slot].size, of: q)
    slab.free(slot)
  }

  mutating func bury(_ list: SlotList, count: Int) {
    if !list.isEmpty { dying.append(list.head) }
    dyingCount += count
  }

  /// Frees some messages of purged and deleted queues: few, so that no record takes long, and by
  /// the count of records alone, so that a replay frees the same ones at the same time.
  mutating func freeSomeDying() {
    var left = Self.freedPerRecord
    while left > 0, let index = dying.last {
      let next = slab[index].next
      freeDying(index)
      if next == Slab.none { dying.removeLast() } else { dying[dying.count - 1] = next }
      left -= 1
    }
    while left > 0, let group = dyingGroups.first {
      let index = groups[Int(group)].messages.head
      let next = slab[index].next
      freeDying(index)
      groups[Int(group)].messages.head = next
      left -= 1
      guard next == Slab.none else { continue }
      let nextGroup = groups[Int(group)].nextOfQueue
      free(group: group)
      if nextGroup == Slab.none { dyingGroups.removeFirst() } else { dyingGroups[0] = nextGroup }
    }
    if !dyingSends.isEmpty { freeSomeSends() }
  }

  private mutating func freeDying(_ index: UInt32) {
    if slab[index].state.hasActivity { free(activity: slab[index].link) }
    free(slot: index, of: nil)
    dyingCount -= 1
  }

  private mutating func free(activity: UInt32) {
    if activities[Int(activity)].isTransferred { forget(transferOf: activity) }
    if activities[Int(activity)].priority > 0 { urgentCount -= 1 }
    timers.remove(activity, &timerPlaces)
    orderPlaces[Int(activity)] = IndexedHeap.absent
    activities[Int(activity)].slot = freeActivity
    freeActivity = activity
  }
}
