// SPDX-License-Identifier: Apache-2.0
internal import PenstockSystem

// FIFO queues; more of groups in standard queues is in `State+Tenants`. Every message is in the
// list of its group, in the order of sends, whatever its state is. One rule covers every case: a
// receive may take from a group the longest run of visible messages from its head. So a group can
// deliver exactly when its head is visible, and those that can stand in a row; one that was served
// comes back at its end.

extension State {
  /// A message group that has messages.
  struct Group: Sendable {
    var hash = TextHash(high: 0, low: 0)
    /// In the order of sends.
    var messages = SlotList()
    var queue: UInt32 = 0
    /// Neighbours in the queue's row of groups that can deliver; `next` of a tenant is its place
    /// in `tenants`.
    var next = Slab.none
    var previous = Slab.none
    var isAvailable = false
    var isTenant = false
    /// Neighbours in the list of all groups of the queue.
    var nextOfQueue = Slab.none
    var previousOfQueue = Slab.none
  }

  /// What a FIFO queue has beside its messages.
  struct Groups: Sendable {
    /// Groups that can deliver, the next one first.
    var first = Slab.none
    var last = Slab.none
    /// Of a standard queue, all its messages included that name no tenant.
    var load = Load()
    /// All groups.
    var all = Slab.none
    var count = 0
    /// Groups by the LSN of their oldest message, tenants by that of their oldest visible one;
    /// `max` when there is none.
    var heads = IndexedHeap()
    /// Deduplication entries, oldest first.
    var firstSend = Slab.none
    var lastSend = Slab.none
    /// Receives that may be repeated, and their ids, oldest first.
    var attempts: [TextHash: Attempt] = [:]
    var attemptOrder = Deque<TextHash>()
  }

  /// A send that is remembered, so that another one like it is none.
  struct Deduplication: Sendable {
    var hash = TextHash(high: 0, low: 0)
    var id = MessageID(high: 0, low: 0)
    var message: UInt64 = 0
    /// In milliseconds.
    var expiresAt: Int64 = 0
    var queue: UInt32 = 0
    /// The next one of the queue.
    var next = Slab.none
  }

  // MARK: Groups

  /// The group of a queue by its hash; nil when it has no messages.
  private func group(_ q: Int, _ hash: TextHash) -> UInt32? {
    groupIndex.first(hash.low) { groups[Int($0)].hash == hash && isLive(group: $0, q) }
  }

  /// Whether a group is one of the queue as it is: of one that was purged the messages are old.
  private func isLive(group: UInt32, _ q: Int) -> Bool {
    let group = groups[Int(group)]
    return group.queue == table[q].id.value
      && slab[group.messages.tail].message >= table[q].purgedBefore
  }

  /// Puts a message at the end of its group, which is made if there is none.
  mutating func join(_ q: Int, _ hash: TextHash, _ index: UInt32, waits: Bool = true) -> UInt32 {
    let group = group(q, hash) ?? makeGroup(q, hash)
    add(index, to: group, waits: waits)
    return group
  }

  mutating func makeGroup(_ q: Int, _ hash: TextHash) -> UInt32 {
    let group = groups.put(Group(), free: &freeGroup) { $0.next }
    if headPlaces.count < groups.count { headPlaces.append(IndexedHeap.absent) }
    groups[Int(group)].hash = hash
    groups[Int(group)].queue = table[q].id.value
    if !table[q].settings.isFIFO { makeTenant(group) }
    let all = table[q].groups.all
    groups[Int(group)].nextOfQueue = all
    if all != Slab.none { groups[Int(all)].previousOfQueue = group }
    table[q].groups.all = group
    table[q].groups.count += 1
    let table = groups
    groupIndex.insert(group, hash: hash.low) { table[Int($0)].hash.low }
    return group
  }

  /// Follows a change of a group's messages: whether it can deliver, and which is its oldest.
  mutating func groupChanged(_ q: Int, _ group: UInt32) {
    let head = groups[Int(group)].messages.head
    let isFIFO = table[q].settings.isFIFO
    let isAvailable = isFIFO && head != Slab.none && slab[head].state.isVisible
    if isAvailable != groups[Int(group)].isAvailable {
      if isAvailable { queueUp(q, group) } else { stepOut(q, group) }
    }
    guard head != Slab.none else { return remove(q, group: group) }
    let key = isFIFO ? slab[head].message : oldestVisible(of: group)
    if table[q].groups.heads.key(of: group, headPlaces) != key {
      table[q].groups.heads.move(group, key: key, &headPlaces)
    }
  }

  private mutating func queueUp(_ q: Int, _ group: UInt32) {
    let last = table[q].groups.last
    groups[Int(group)].isAvailable = true
    groups[Int(group)].previous = last
    groups[Int(group)].next = Slab.none
    if last == Slab.none { table[q].groups.first = group } else { groups[Int(last)].next = group }
    table[q].groups.last = group
  }

  /// Gives the groups that can deliver another order.
  mutating func lineUp(_ q: Int, _ row: [UInt32]) {
    for group in row { stepOut(q, group) }
    for group in row { queueUp(q, group) }
  }

  /// Groups that can deliver, the next one first.
  func row(of queue: Queue) -> [UInt32] {
    Slab.chain(from: queue.groups.first) { groups[Int($0)].next }
  }

  /// All groups, the newest first.
  func all(of queue: Queue) -> [UInt32] { all(from: queue.groups.all) }

  func all(from group: UInt32) -> [UInt32] {
    Slab.chain(from: group) { groups[Int($0)].nextOfQueue }
  }

  private mutating func stepOut(_ q: Int, _ group: UInt32) {
    let (next, previous) = (groups[Int(group)].next, groups[Int(group)].previous)
    groups[Int(group)].isAvailable = false
    if previous == Slab.none {
      table[q].groups.first = next
    } else {
      groups[Int(previous)].next = next
    }
    if next == Slab.none {
      table[q].groups.last = previous
    } else {
      groups[Int(next)].previous = previous
    }
  }

  private mutating func remove(_ q: Int, group: UInt32) {
    table[q].groups.heads.remove(group, &headPlaces)
    let (next, previous) = (groups[Int(group)].nextOfQueue, groups[Int(group)].previousOfQueue)
    if previous == Slab.none {
      table[q].groups.all = next
    } else {
      groups[Int(previous)].nextOfQueue = next
    }
    if next != Slab.none { groups[Int(next)].previousOfQueue = previous }
    table[q].groups.count -= 1
    if table[q].groups.count == 0 { table[q].groups.load = Load() }
    free(group: group)
  }

  mutating func free(group: UInt32) {
    freeTenant(of: group)
    groupIndex.remove(group, hash: groups[Int(group)].hash.low)
    headPlaces[Int(group)] = IndexedHeap.absent
    groups[Int(group)] = Group(next: freeGroup)
    freeGroup = group
  }

  /// Lets all groups of a queue go, with what is in them; freed later, a few per record.
  mutating func buryGroups(_ q: Int) {
    if table[q].groups.all != Slab.none { dyingGroups.append(table[q].groups.all) }
    if table[q].groups.firstSend != Slab.none { dyingSends.append(table[q].groups.firstSend) }
    table[q].groups = Groups()
  }

  // MARK: Receiving

  /// Up to `limit` messages that can be received now, group by group.
  func groupedCandidates(_ q: Int, limit: Int) -> [Resident] {
    var found: [Resident] = []
    var group = table[q].groups.first
    while group != Slab.none, found.count < limit {
      var index = groups[Int(group)].messages.head
      while index != Slab.none, found.count < limit, slab[index].state.isVisible {
        found.append(resident(index))
        index = slab[index].next
      }
      group = groups[Int(group)].next
    }
    return found
  }

  // MARK: Retention

  /// The oldest message of a FIFO queue, or the oldest visible one of all tenants.
  func oldestGrouped(_ q: Int) -> UInt32? {
    guard let first = table[q].groups.heads.first, first.key < .max else { return nil }
    if table[q].settings.isFIFO { return groups[Int(first.item)].messages.head }
    guard let tenant = tenant(first.item) else { return nil }
    if let returned = tenants[tenant].returned.first, returned.key == first.key {
      return activities[Int(returned.item)].slot
    }
    return tenants[tenant].waiting
  }

  mutating func expireGrouped(_ q: Int, _ through: UInt64) {
    while let index = oldestGrouped(q), slab[index].message <= through,
      slab[index].state.isVisible
    {
      removeMessage(index)
    }
  }

  // MARK: Deduplication

  /// The send that a new one repeats; nil when it is the first of its kind within the window.
  func duplicate(_ q: Int, _ hash: TextHash) -> Deduplication? {
    sendIndex.first(hash.low) {
      let entry = sends[Int($0)]
      return entry.hash == hash && entry.queue == table[q].id.value
        && entry.expiresAt > time.milliseconds && entry.message >= table[q].purgedBefore
    }.map { sends[Int($0)] }
  }

  /// Remembers a send, and forgets some whose time is over.
  mutating func remember(_ q: Int, _ hash: TextHash, _ id: MessageID, _ message: UInt64) {
    for _ in 0..<2 { forgetFirst(q) }
    let window = table[q].settings.deduplicationWindow.wholeMilliseconds
    insert(
      q,
      Deduplication(
        hash: hash, id: id, message: message, expiresAt: time.adding(window).milliseconds,
        queue: table[q].id.value))
  }

  mutating func insert(_ q: Int, _ entry: Deduplication) {
    let place = sends.put(entry, free: &freeSend) { $0.next }
    let last = table[q].groups.lastSend
    if last == Slab.none {
      table[q].groups.firstSend = place
    } else {
      sends[Int(last)].next = place
    }
    table[q].groups.lastSend = place
    let table = sends
    sendIndex.insert(place, hash: entry.hash.low) { table[Int($0)].hash.low }
  }

  private mutating func forgetFirst(_ q: Int) {
    let first = table[q].groups.firstSend
    guard first != Slab.none, sends[Int(first)].expiresAt <= time.milliseconds else { return }
    table[q].groups.firstSend = sends[Int(first)].next
    if table[q].groups.firstSend == Slab.none { table[q].groups.lastSend = Slab.none }
    free(send: first)
  }

  private mutating func free(send: UInt32) {
    sendIndex.remove(send, hash: sends[Int(send)].hash.low)
    sends[Int(send)] = Deduplication(next: freeSend)
    freeSend = send
  }

  /// Frees some remembered sends of purged and deleted queues.
  mutating func freeSomeSends() {
    for _ in 0..<Self.freedPerRecord {
      guard let send = dyingSends.first else { return }
      let next = sends[Int(send)].next
      free(send: send)
      if next == Slab.none { dyingSends.removeFirst() } else { dyingSends[0] = next }
    }
  }
}
