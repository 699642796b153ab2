// SPDX-License-Identifier: Apache-2.0
internal import PenstockSystem

/// The queues and their messages: a pure function of the records applied and the time reached.
///
/// Knows no clock, no file and no randomness. `decide…` methods (in `State+Decide.swift`) answer
/// with records and change nothing; `apply` is the only way to change what was logged; `advance`
/// ends leases and delays whose time has come, which is derived and never logged.
///
/// Invariants
/// - I1: a slot that is not free is in exactly one list: its queue's `ready`, its queue's `active`,
///   its group's, or one that waits to be freed.
/// - I2: slots that are delayed, leased or returned have an activity, others have none.
/// - I3: `returned`, `urgent` and `overdue` of a queue hold exactly its activities whose slot is in
///   state `returned`, each in one of them.
/// - I4: `timers` holds exactly the activities whose slot is leased or delayed, those of strays
///   that are not overdue, and possibly ones that wait to be freed.
/// - I5: the same records and the same final time give the same state, whatever times were passed
///   to `advance` in between.
/// - I6: `expiries` has each queue with a visible message, at a time not after the first of its
///   expiries; parked messages of one segment expire with the newest of them. Strays have timers
///   for that (I4).
/// - I7: `runs` of a queue are in the order of their LSNs and do not overlap; what is in `ready`
///   was sent before what is in them.
/// - I9: a group with messages is in the index and in its queue's `heads`, and of a FIFO queue in
///   its row exactly when its head is visible; one without is free.
/// - I10: a group of a standard queue has a tenant, with its visible messages in the heap
///   `returned` or, from `waiting` on, at the end of its list.
/// - I8: `residents` counts, per segment, the messages of all runs and slots whose bytes are there.
public struct State: Sendable {
  struct Queue: Sendable {
    var id: QueueID
    var name: String
    var settings: QueueSettings
    var createdAt: Timestamp
    var changedAt: Timestamp
    /// Messages sent before this LSN were purged.
    var purgedBefore: UInt64 = 0
    /// Never received and visible, in the order of their sends.
    var ready = SlotList()
    /// Delayed, leased and returned ones, in no order that matters.
    var active = SlotList()
    /// Messages in `ready`.
    var readyCount = 0
    /// Activities that are visible, least LSN of the send first.
    var returned = IndexedHeap()
    /// Visible ones with a priority, by `urgency`.
    var urgent = IndexedHeap()
    /// Visible strays whose retention has ended, by their LSN.
    var overdue = IndexedHeap()
    /// Never received, visible, and behind what is in `ready`: parked in their segments.
    var runs: [Run] = []
    /// Messages of all runs.
    var parked = 0
    /// LSNs within the runs that are not there any more.
    var holes = Holes()
    var counts = QueueCounts()
    /// Of the records of all its messages.
    var bytes = 0
    /// Messages sent up to this second have expired, whatever the retention is now.
    var expiredThrough: UInt32 = 0
    /// Damaged messages that were taken out.
    var setAside: UInt64 = 0
    /// Of a FIFO queue, or tenants.
    var groups = Groups()
    var visibilityMilliseconds: Int64
    var retentionMilliseconds: Int64
    /// No part of the state: what this run did.
    var traffic = QueueTraffic()

    init(id: QueueID, name: String, settings: QueueSettings, at: Timestamp) {
      self.id = id
      self.name = name
      self.settings = settings
      createdAt = at
      changedAt = at
      visibilityMilliseconds = settings.visibilityTimeout.wholeMilliseconds
      retentionMilliseconds = settings.retention.wholeMilliseconds
    }
  }

  /// Queues by place; a place is used again after its queue was deleted.
  var table: [Queue] = []
  /// Places of the queues that exist, by id.
  var places: [UInt32: Int] = [:]
  /// The place of the newest record's queue: most look for the same again.
  private var newest: (number: UInt32, place: Int)?
  private var freePlaces: [Int] = []
  private(set) var names: [String: QueueID] = [:]
  /// The same names in ascending order, for listing.
  private(set) var sortedNames: [String] = []
  /// Always nil. A value of such a type has an address, so methods are handed the state's own; all
  /// of it was copied for each call.
  private let byAddress: (any Sendable)? = nil
  var nextQueue: UInt32 = 1
  var slab = Slab()
  var activities = Blocks<Activity>()
  /// The first free activity; each names the next in `slot`.
  var freeActivity = Slab.none
  /// Leases and delays by their end.
  var timers = IndexedHeap()
  var timerPlaces = Blocks<UInt32>()
  var orderPlaces = Blocks<UInt32>()
  /// Chains of messages of purged and deleted queues; freed a few per record.
  var dying: [UInt32] = []
  var groups = Blocks<Group>()
  var freeGroup = Slab.none
  /// What groups of standard queues have beside, by `Group.next`.
  var tenants = Blocks<Tenant>()
  /// The first free one; each names the next in `waiting`.
  var freeTenant = Slab.none
  var groupIndex = HashIndex()
  var headPlaces = Blocks<UInt32>()
  var sends = Blocks<Deduplication>()
  var freeSend = Slab.none
  var sendIndex = HashIndex()
  /// What is known of messages that came from another queue, found by their activity.
  var transfers = Blocks<Transfer>()
  var freeTransfer = Slab.none
  var transferIndex = HashIndex()
  /// Names of queues that transferred messages came from, with how many of those there are.
  var origins: [UInt32: (name: String, count: Int)] = [:]
  /// Messages with a priority.
  var urgentCount = 0
  /// Move tasks by the number of the queue they take from, oldest first.
  var tasks: [UInt32: [MoveTask]] = [:]
  /// Lists of groups and of remembered sends of purged and deleted queues; freed after `dying`.
  var dyingGroups: [UInt32] = []
  var dyingSends: [UInt32] = []
  /// Messages that were purged and still take memory.
  public internal(set) var dyingCount = 0
  /// Messages of all runs of all queues.
  public internal(set) var parkedCount = 0
  /// What each segment holds of messages that live, by ordinal.
  public internal(set) var residents: [UInt32: Residents] = [:]
  /// Bytes of the records of all messages that live.
  public internal(set) var liveBytes = 0
  /// Places of queues by a time before which none of their visible messages expires (I6).
  var expiries = IndexedHeap()
  var expiryPlaces = Blocks<UInt32>()
  /// The latest time of any record or advance.
  public internal(set) var time = Timestamp(milliseconds: 0)

  /// How many waiting messages of a queue are kept in memory; those behind them are parked. No part
  /// of the state: what was decided by it is in the records.
  public var window = 1024

  /// No queues, at the beginning of time.
  public init() {}

  /// Where a queue is in the table; nil when there is none of this number.
  func place(_ number: UInt32) -> Int? {
    if let newest, newest.number == number { return newest.place }
    return places[number]
  }

  /// Messages of the dying that each record frees.
  static let freedPerRecord = 16

  // MARK: Apply

  /// Changes the state by one record.
  ///
  /// - Parameters:
  ///   - size: of the record in the log, with its header and padding, in bytes.
  ///   - content: bytes of the body and attributes of what is sent, to be counted.
  /// - Returns: what a message that was parked must be found by.
  /// - Throws: when the record does not fit the state. Live this cannot happen; from disk it means
  ///   that acknowledged records are missing or were not written by this code.
  /// - Complexity: O(log active).
  @discardableResult
  public mutating func apply(
    _ entry: Entry, lsn: UInt64, position: UInt64, size: Int = 0, content: Int = 0
  ) throws(RecordError) -> Parked? {
    switch entry.record {
    // A copy tells the time of its message.
    case .moved: break
    default: advance(to: entry.time)
    }
    freeSomeDying()
    switch entry.record {
    case .logCreated, .cleared: return nil
    case .queueCreated(let name, let settings):
      try create(entry, name, settings, lsn)
      return nil
    default: break
    }
    guard let q = place(entry.queue.value) else {
      throw RecordError(
        description: "LSN \(lsn) names queue \(entry.queue.value), which does not exist")
    }
    newest = (entry.queue.value, q)
    switch entry.record {
    case .logCreated, .queueCreated, .cleared: break
    case .queueChanged(let settings): try change(q, settings, entry.time)
    case .queueDeleted: remove(q)
    case .sent(let sent):
      let isFIFO = table[q].settings.isFIFO
      if isFIFO ? sent.group == nil : sent.deduplication != nil || sent.hasOwnDelay {
        throw RecordError(description: "LSN \(lsn) is of another kind of queue than its own")
      }
      table[q].traffic.sent += 1
      table[q].traffic.sentBytes += content
      if sent.isParked { return try park(q, entry, lsn, position, size) }
      // `decideSend` parks whatever comes behind parked messages.
      guard
        table[q].runs.isEmpty || sent.priority > 0 || sent.group != nil
          || (sent.visibleAt.map { $0 > time } ?? false)
      else {
        throw RecordError(description: "LSN \(lsn) is sent into memory behind parked messages")
      }
      insert(q, sent, lsn, position, size)
    case .moved(let moved): return try move(q, entry, moved, lsn, position, size)
    case .drawn(let segment, let messages): try draw(q, segment, messages, lsn)
    case .excised(let message, let segment, let size):
      table[q].traffic.deleted += 1
      try excise(q, message, segment, size, lsn)
    case .setAside(let message, let slot, let size): try setAside(q, message, slot, size, lsn)
    case .leased(let message, let slot, let deadline):
      table[q].traffic.received += 1
      try lease(q, slot, message, deadline, entry.time, lsn)
    case .leaseChanged(let message, let slot, let deadline):
      try changeLease(q, slot, message, deadline, lsn)
    case .transferred(let transferred):
      table[q].traffic.deadLettered += 1
      try transfer(q, transferred, lsn)
    case .task(let task): try apply(task, q, lsn)
    case .attempted(let hash, let messages): try attempt(q, hash, messages, lsn)
    case .deleted(let message, let slot):
      try check(q, slot, message, lsn)
      if slab[slot].state.hasActivity, activities[Int(slab[slot].link)].isOverdue {
        table[q].traffic.expired += 1
      } else {
        table[q].traffic.deleted += 1
      }
      removeMessage(slot)
    case .purged:
      table[q].traffic.purged += table[q].counts.total
      purge(q, before: lsn)
    case .expired(let through):
      let before = table[q].counts.total
      expire(q, through)
      table[q].traffic.expired += before - table[q].counts.total
    }
    return nil
  }

  private mutating func create(
    _ entry: Entry, _ name: String, _ settings: QueueSettings, _ lsn: UInt64
  ) throws(RecordError) {
    let id = entry.queue
    guard id.value >= nextQueue, names[name] == nil else {
      throw RecordError(description: "LSN \(lsn) creates queue \(id.value) a second time")
    }
    // No number would be left for the next one.
    guard id.value < .max else {
      throw RecordError(description: "LSN \(lsn) creates a queue with the number \(id.value)")
    }
    nextQueue = id.value &+ 1
    add(Queue(id: id, name: name, settings: settings, at: entry.time))
  }

  /// Gives a queue whose number and name are new a place.
  mutating func add(_ queue: Queue) {
    let id = queue.id
    let name = queue.name
    if let q = freePlaces.popLast() {
      table[q] = queue
      places[id.value] = q
    } else {
      places[id.value] = table.count
      table.append(queue)
      expiryPlaces.append(IndexedHeap.absent)
    }
    names[name] = id
    sortedNames.insert(name, at: namePlace(name))
  }

  private mutating func change(
    _ q: Int, _ settings: QueueSettings, _ at: Timestamp
  ) throws(RecordError) {
    let oldRetention = table[q].retentionMilliseconds
    let old = table[q].settings
    guard settings.isFIFO == table[q].settings.isFIFO else {
      throw RecordError(description: "a record makes queue \(table[q].id.value) another kind")
    }
    table[q].settings = settings
    table[q].visibilityMilliseconds = settings.visibilityTimeout.wholeMilliseconds
    table[q].retentionMilliseconds = settings.retention.wholeMilliseconds
    var others = old
    others.tags = settings.tags
    if others != settings || others == old { table[q].changedAt = at }
    if settings.isFIFO, settings.delay != old.delay { moveDelays(q) }
    if settings.priorityStep != old.priorityStep { orderUrgent(q) }
    guard table[q].retentionMilliseconds != oldRetention else { return }
    // What has expired must not come back when the retention grows, parked messages included.
    let (end, overflow) = time.milliseconds.subtractingReportingOverflow(oldRetention)
    if !overflow, end > 0 {
      table[q].expiredThrough = max(table[q].expiredThrough, UInt32(clamping: end / 1000))
    }
    moveRetention(q)
  }

  /// Follows a new retention: leases and delays end with it at the latest, expiries come when due.
  ///
  /// - Complexity: O(active of the queue · log active); other changes take less.
  private mutating func moveRetention(_ q: Int) {
    for index in active(q) { setTimer(slab[index].link) }
    expiries.remove(UInt32(q), &expiryPlaces)
    awaitExpiry(q)
    // What is over by the new retention ends with this record.
    advance(to: time)
  }

  /// FIFO: delays that are the queue's follow it, counted from the send.
  private mutating func moveDelays(_ q: Int) {
    let delay = table[q].settings.delay.wholeMilliseconds
    for index in grouped(q) where slab[index].state == .delayed {
      let activity = slab[index].link
      guard !activities[Int(activity)].hasOwnDelay else { continue }
      let sent = Timestamp(milliseconds: activities[Int(activity)].leasedAt)
      activities[Int(activity)].deadline = sent.adding(delay).milliseconds
      setTimer(activity)
    }
    advance(to: time)
  }

  private mutating func remove(_ q: Int) {
    dropRuns(q, through: .max)
    let queue = table[q]
    bury(queue.ready, count: queue.counts.total)
    bury(queue.active, count: 0)
    buryGroups(q)
    names[queue.name] = nil
    sortedNames.remove(at: namePlace(queue.name))
    expiries.remove(UInt32(q), &expiryPlaces)
    places[queue.id.value] = nil
    newest = nil
    tasks[queue.id.value] = nil
    table[q] = Queue(id: QueueID(0), name: "", settings: QueueSettings(), at: queue.createdAt)
    freePlaces.append(q)
  }

  private mutating func purge(_ q: Int, before lsn: UInt64) {
    dropRuns(q, through: .max)
    bury(table[q].ready, count: table[q].counts.total)
    bury(table[q].active, count: 0)
    buryGroups(q)
    table[q].ready = SlotList()
    table[q].readyCount = 0
    table[q].active = SlotList()
    table[q].returned = IndexedHeap()
    table[q].urgent = IndexedHeap()
    table[q].overdue = IndexedHeap()
    table[q].counts = QueueCounts()
    table[q].bytes = 0
    table[q].purgedBefore = lsn
  }

  private mutating func insert(
    _ q: Int, _ sent: Record.Sent, _ lsn: UInt64, _ position: UInt64, _ size: Int
  ) {
    let index = slab.allocate()
    slab[index].position = position
    slab[index].message = lsn
    slab[index].size = size
    // The record's time, or a later one before it: retention relies on sends in the order of time.
    slab[index].sentSecond = time.secondRoundedUp
    reside(slab[index].segment, 1, slab[index].size, of: q)
    let isDelayed = sent.visibleAt.map { $0 > time } ?? false
    let group = sent.group.map { join(q, $0, index, waits: !isDelayed) }
    if let hash = sent.deduplication { remember(q, hash, sent.id, lsn) }
    if let visibleAt = sent.visibleAt, isDelayed {
      let activity = activate(q, index, .delayed, group: group ?? Slab.none)
      activities[Int(activity)].deadline = visibleAt.milliseconds
      if table[q].settings.isFIFO {
        activities[Int(activity)].leasedAt = time.milliseconds
        activities[Int(activity)].hasOwnDelay = sent.hasOwnDelay
      }
      activities[Int(activity)].priority = sent.priority
      if sent.priority > 0 { urgentCount += 1 }
      table[q].counts.delayed += 1
      setTimer(activity)
      if let group {
        groupChanged(q, group)
        awaitExpiry(q)
      }
    } else if let group {
      slab[index].state = .grouped
      slab[index].link = group
      table[q].counts.visible += 1
      groupChanged(q, group)
      awaitExpiry(q)
    } else if sent.priority > 0 {
      let activity = activate(q, index, .returned)
      activities[Int(activity)].priority = sent.priority
      urgentCount += 1
      table[q].counts.visible += 1
      show(q, activity)
      setTimer(activity)
      awaitExpiry(q)
    } else {
      slab[index].state = .ready
      slab[index].link = table[q].id.value
      table[q].ready.append(index, &slab)
      table[q].readyCount += 1
      table[q].counts.visible += 1
      awaitExpiry(q)
    }
  }

  private mutating func lease(
    _ q: Int, _ index: UInt32, _ message: UInt64, _ deadline: Timestamp, _ at: Timestamp,
    _ lsn: UInt64
  ) throws(RecordError) {
    try check(q, index, message, lsn)
    let activity: UInt32
    switch slab[index].state {
    case .ready:
      table[q].ready.remove(index, &slab)
      table[q].readyCount -= 1
      activity = activate(q, index, .leased)
    case .grouped:
      let group = slab[index].link
      if tenant(group) != nil {
        stopWaiting(index, in: group)
        groups[Int(group)].messages.remove(index, &slab)
        groups[Int(group)].messages.prepend(index, &slab)
      }
      activity = activate(q, index, .leased, group: group)
    case .returned:
      activity = slab[index].link
      hide(q, activity)
    case .free, .delayed, .leased:
      throw RecordError(description: "LSN \(lsn) leases message \(message), which is hidden")
    }
    slab[index].state = .leased
    if activities[Int(activity)].receiveCount == 0 {
      activities[Int(activity)].firstReceivedAt = at.milliseconds
    }
    activities[Int(activity)].receiveCount &+= 1
    activities[Int(activity)].leasedAt = at.milliseconds
    activities[Int(activity)].token = lsn
    activities[Int(activity)].deadline = deadline.milliseconds
    table[q].counts.visible -= 1
    table[q].counts.leased += 1
    if activities[Int(activity)].group != Slab.none {
      leaseBegins(activity)
      groupChanged(q, activities[Int(activity)].group)
    }
    setTimer(activity)
    // A lease that ends now ends with this record, not with the next look at the time.
    advance(to: time)
  }

  private mutating func changeLease(
    _ q: Int, _ index: UInt32, _ message: UInt64, _ deadline: Timestamp, _ lsn: UInt64
  ) throws(RecordError) {
    try check(q, index, message, lsn)
    let activity = slab[index].link
    switch slab[index].state {
    case .leased: break
    case .returned:
      hide(q, activity)
      slab[index].state = .leased
      table[q].counts.visible -= 1
      table[q].counts.leased += 1
      if activities[Int(activity)].group != Slab.none {
        leaseBegins(activity)
        groupChanged(q, activities[Int(activity)].group)
      }
    case .free, .ready, .delayed, .grouped:
      throw RecordError(description: "LSN \(lsn) changes a lease of message \(message), not leased")
    }
    activities[Int(activity)].deadline = deadline.milliseconds
    setTimer(activity)
    advance(to: time)
  }

  private mutating func expire(_ q: Int, _ through: UInt64) {
    dropRuns(q, through: through)
    while table[q].ready.head != Slab.none, slab[table[q].ready.head].message <= through {
      removeMessage(table[q].ready.head)
    }
    while let first = table[q].returned.first, first.key <= through {
      removeMessage(activities[Int(first.item)].slot)
    }
    expireGrouped(q, through)
  }

  func check(_ q: Int, _ index: UInt32, _ message: UInt64, _ lsn: UInt64) throws(RecordError) {
    guard isLive(q, slot: index, message: message) else {
      throw RecordError(description: "LSN \(lsn) names message \(message), which is not there")
    }
  }

  private func namePlace(_ name: String) -> Int {
    sortedNames.firstPlace { $0 < name }
  }

  /// Queues that are there.
  public var queueCount: Int { places.count }

  /// Messages of all queues.
  public var liveCount: Int { slab.count - dyingCount + parkedCount }

  /// Messages in memory, those included that wait to be freed.
  public var messageCount: Int { slab.count }
  /// Damaged messages that were taken out of the queues that are there.
  public var setAsideCount: UInt64 { places.values.reduce(0) { $0 &+ table[$1].setAside } }
}

extension Comparable {
  func clamped(to range: ClosedRange<Self>) -> Self {
    min(max(self, range.lowerBound), range.upperBound)
  }
}
