// SPDX-License-Identifier: Apache-2.0
/// The queues and their messages: a pure function of the records applied and the time reached.
///
/// Knows no clock, no file and no randomness. `decide…` methods (in `State+Decide.swift`) answer
/// with records and change nothing; `apply` is the only way to change what was logged; `advance`
/// ends leases and delays whose time has come, which is derived and never logged.
///
/// Invariants
/// - I1: a slot that is not free is in exactly one list: its queue's `ready`, its queue's `active`,
///   or a chain that waits to be freed.
/// - I2: slots in `active` have an activity, slots in `ready` have none.
/// - I3: `returned` of a queue holds exactly its activities whose slot is in state `returned`.
/// - I4: `timers` holds exactly the activities whose slot is leased or delayed, and possibly ones
///   that wait to be freed.
/// - I5: the same records and the same final time give the same state, whatever times were passed
///   to `advance` in between.
/// - I6: `expiries` has each queue with a visible message, at a time not after the first of its
///   expiries; parked messages of one segment expire with the newest of them.
/// - I7: `runs` of a queue are in the order of their LSNs and do not overlap; what is in `ready`
///   was sent before what is in them.
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
    /// Activities that are visible again, least LSN of the send first.
    var returned = IndexedHeap()
    /// Never received, visible, and behind what is in `ready`: parked in their segments.
    var runs: [Run] = []
    /// Messages of all runs.
    var parked = 0
    var counts = QueueCounts()
    /// Messages sent up to this second have expired, whatever the retention is now.
    var expiredThrough: UInt32 = 0
    /// Damaged messages that were taken out.
    var setAside: UInt64 = 0
    var visibilityMilliseconds: Int64
    var retentionMilliseconds: Int64

    init(id: QueueID, name: String, settings: QueueSettings, at: Timestamp) {
      self.id = id
      self.name = name
      self.settings = settings
      createdAt = at
      changedAt = at
      visibilityMilliseconds = settings.visibilityTimeout.wholeMilliseconds
      retentionMilliseconds = settings.retention.wholeMilliseconds
    }

    /// In milliseconds since 1970.
    func retentionEnd(sentSecond: UInt32) -> Int64 {
      guard sentSecond > expiredThrough else { return 0 }
      let (end, overflow) = (Int64(sentSecond) * 1000)
        .addingReportingOverflow(retentionMilliseconds)
      return overflow ? .max : end
    }
  }

  /// Queues by place; a place is used again after its queue was deleted.
  var table: [Queue] = []
  /// Places of the queues that exist, by id.
  private(set) var places: [UInt32: Int] = [:]
  private var freePlaces: [Int] = []
  private(set) var names: [String: QueueID] = [:]
  /// The same names in ascending order, for listing.
  private(set) var sortedNames: [String] = []
  var nextQueue: UInt32 = 1
  var slab = Slab()
  var activities = Blocks<Activity>()
  /// The first free activity; each names the next in `slot`.
  private var freeActivity = Slab.none
  /// Leases and delays by their end.
  private(set) var timers = IndexedHeap()
  private(set) var timerPlaces = Blocks<UInt32>()
  var returnedPlaces = Blocks<UInt32>()
  /// Chains of messages of purged and deleted queues; freed a few per record.
  var dying: [UInt32] = []
  public internal(set) var dyingCount = 0
  /// Messages of all runs of all queues.
  public internal(set) var parkedCount = 0
  /// What each segment holds of messages that live, by ordinal.
  public internal(set) var residents: [UInt32: Residents] = [:]
  /// Bytes of the records of all messages that live.
  public internal(set) var liveBytes = 0
  /// Places of queues by a time before which none of their visible messages expires (I6).
  private(set) var expiries = IndexedHeap()
  private(set) var expiryPlaces = Blocks<UInt32>()
  /// The latest time of any record or advance.
  public internal(set) var time = Timestamp(milliseconds: 0)

  /// How many waiting messages of a queue are kept in memory; those behind them are parked. No part
  /// of the state: what was decided by it is in the records.
  public var window = 1024

  public init() {}

  /// Messages of the dying that each record frees.
  static let freedPerRecord = 16

  // MARK: Apply

  /// Changes the state by one record.
  ///
  /// - Parameter size: of the record in the log, with its header and padding, in bytes.
  /// - Returns: what a message that was parked must be found by.
  /// - Throws: when the record does not fit the state. Live this cannot happen; from disk it means
  ///   that acknowledged records are missing or were not written by this code.
  /// - Complexity: O(log active).
  @discardableResult
  public mutating func apply(
    _ entry: Entry, lsn: UInt64, position: UInt64, size: Int = 0
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
    guard let q = places[entry.queue.value] else {
      throw RecordError(
        description: "LSN \(lsn) names queue \(entry.queue.value), which does not exist")
    }
    switch entry.record {
    case .logCreated, .queueCreated, .cleared: break
    case .queueChanged(let settings): change(q, settings, entry.time)
    case .queueDeleted: remove(q)
    case .sent(let sent):
      if sent.isParked { return try park(q, entry, lsn, position, size) }
      // `decideSend` parks whatever comes behind parked messages.
      guard table[q].runs.isEmpty || (sent.visibleAt.map { $0 > time } ?? false) else {
        throw RecordError(description: "LSN \(lsn) is sent into memory behind parked messages")
      }
      insert(q, sent, lsn, position, size)
    case .moved(let moved): return try move(q, entry, moved, lsn, position, size)
    case .drawn(let segment, let messages): try draw(q, segment, messages, lsn)
    case .setAside(let message, let slot, let size): try setAside(q, message, slot, size, lsn)
    case .leased(let message, let slot, let deadline):
      try lease(q, slot, message, deadline, entry.time, lsn)
    case .leaseChanged(let message, let slot, let deadline):
      try changeLease(q, slot, message, deadline, lsn)
    case .deleted(let message, let slot):
      try check(q, slot, message, lsn)
      removeMessage(slot)
    case .purged: purge(q, before: lsn)
    case .expired(let through): expire(q, through)
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
  ) {
    let oldRetention = table[q].retentionMilliseconds
    table[q].settings = settings
    table[q].visibilityMilliseconds = settings.visibilityTimeout.wholeMilliseconds
    table[q].retentionMilliseconds = settings.retention.wholeMilliseconds
    table[q].changedAt = at
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
    var index = table[q].active.head
    while index != Slab.none {
      if slab[index].state != .returned { setTimer(slab[index].link) }
      index = slab[index].next
    }
    expiries.remove(UInt32(q), &expiryPlaces)
    awaitExpiry(q)
    // What is over by the new retention ends with this record.
    advance(to: time)
  }

  private mutating func remove(_ q: Int) {
    dropRuns(q, through: .max)
    let queue = table[q]
    bury(queue.ready, count: queue.counts.total)
    bury(queue.active, count: 0)
    names[queue.name] = nil
    sortedNames.remove(at: namePlace(queue.name))
    expiries.remove(UInt32(q), &expiryPlaces)
    places[queue.id.value] = nil
    table[q] = Queue(
      id: QueueID(0), name: "", settings: QueueSettings(), at: queue.createdAt)
    freePlaces.append(q)
  }

  private mutating func purge(_ q: Int, before lsn: UInt64) {
    dropRuns(q, through: .max)
    bury(table[q].ready, count: table[q].counts.total)
    bury(table[q].active, count: 0)
    table[q].ready = SlotList()
    table[q].active = SlotList()
    table[q].returned = IndexedHeap()
    table[q].counts = QueueCounts()
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
    reside(slab[index].segment, 1, slab[index].size)
    if let visibleAt = sent.visibleAt, visibleAt > time {
      let activity = allocateActivity(slot: index, queue: table[q].id.value)
      activities[Int(activity)].deadline = visibleAt.milliseconds
      slab[index].state = .delayed
      slab[index].link = activity
      table[q].active.append(index, &slab)
      table[q].counts.delayed += 1
      setTimer(activity)
    } else {
      slab[index].state = .ready
      slab[index].link = table[q].id.value
      table[q].ready.append(index, &slab)
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
      table[q].active.append(index, &slab)
      activity = allocateActivity(slot: index, queue: table[q].id.value)
      slab[index].link = activity
    case .returned:
      activity = slab[index].link
      table[q].returned.remove(activity, &returnedPlaces)
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
      table[q].returned.remove(activity, &returnedPlaces)
      slab[index].state = .leased
      table[q].counts.visible -= 1
      table[q].counts.leased += 1
    case .free, .ready, .delayed:
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
  }

  func check(
    _ q: Int, _ index: UInt32, _ message: UInt64, _ lsn: UInt64
  ) throws(RecordError) {
    guard isLive(q, slot: index, message: message) else {
      throw RecordError(description: "LSN \(lsn) names message \(message), which is not there")
    }
  }

  // MARK: Time

  /// Ends every lease and delay whose deadline is not after `time`.
  ///
  /// - Returns: queues in which a message became visible; a queue may be named more than once.
  /// - Complexity: O(log active) for each that ends.
  @discardableResult
  public mutating func advance(to time: Timestamp) -> [QueueID] {
    if time > self.time { self.time = time }
    let now = UInt64(clamping: self.time.milliseconds)
    var visible: [QueueID] = []
    while let first = timers.first, first.key <= now {
      let activity = first.item
      timers.remove(activity, &timerPlaces)
      let index = activities[Int(activity)].slot
      // One that was purged, or whose queue was deleted, waits to be freed.
      guard let q = places[activities[Int(activity)].queue],
        slab[index].message >= table[q].purgedBefore
      else { continue }
      if slab[index].state == .leased {
        table[q].counts.leased -= 1
      } else {
        table[q].counts.delayed -= 1
      }
      table[q].counts.visible += 1
      slab[index].state = .returned
      table[q].returned.insert(activity, key: slab[index].message, &returnedPlaces)
      if visible.last != table[q].id { visible.append(table[q].id) }
      awaitExpiry(q)
    }
    return visible
  }

  /// When the next lease or delay ends; nil when none does.
  public var nextTimer: Timestamp? {
    timers.first.map { Timestamp(milliseconds: Int64(clamping: $0.key)) }
  }

  mutating func setTimer(_ activity: UInt32) {
    var end = activities[Int(activity)].deadline
    // A lease does not outlive its message's retention.
    if let q = places[activities[Int(activity)].queue] {
      end = min(end, retentionEnd(activities[Int(activity)].slot, table[q]))
    }
    timers.move(activity, key: UInt64(clamping: end), &timerPlaces)
  }

  /// When the message's retention ends, in milliseconds.
  func retentionEnd(_ index: UInt32, _ queue: borrowing Queue) -> Int64 {
    queue.retentionEnd(sentSecond: slab[index].sentSecond)
  }

  // MARK: Expiry times

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
    let head = table[q].ready.head
    if let first = table[q].returned.first {
      let next = head == Slab.none ? table[q].runs.first?.last : slab[head].message
      if first.key <= next ?? .max {
        return retentionEnd(activities[Int(first.item)].slot, table[q])
      }
    }
    if head != Slab.none { return retentionEnd(head, table[q]) }
    return table[q].runs.first.map { table[q].retentionEnd(sentSecond: $0.newestSecond) }
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

  // MARK: Places

  /// Whether the slot holds this message of this queue, and it was not purged.
  func isLive(_ q: Int, slot: UInt32, message: UInt64) -> Bool {
    guard slab.contains(slot), slab[slot].state != .free, slab[slot].message == message,
      message >= table[q].purgedBefore
    else { return false }
    let owner =
      slab[slot].state == .ready ? slab[slot].link : activities[Int(slab[slot].link)].queue
    return owner == table[q].id.value
  }

  /// Takes a live message out of every structure and frees its place.
  mutating func removeMessage(_ index: UInt32) {
    switch slab[index].state {
    case .free: return
    case .ready:
      guard let q = places[slab[index].link] else { return }
      table[q].ready.remove(index, &slab)
      table[q].counts.visible -= 1
    case .delayed, .leased, .returned:
      let activity = slab[index].link
      guard let q = places[activities[Int(activity)].queue] else { return }
      table[q].active.remove(index, &slab)
      switch slab[index].state {
      case .delayed: table[q].counts.delayed -= 1
      case .leased: table[q].counts.leased -= 1
      default:
        table[q].counts.visible -= 1
        table[q].returned.remove(activity, &returnedPlaces)
      }
      free(activity: activity)
    }
    free(slot: index)
  }

  private mutating func free(slot: UInt32) {
    reside(slab[slot].segment, -1, -slab[slot].size)
    slab.free(slot)
  }

  /// Takes an activity out of its queue's `returned` for the length of a look at what is behind it.
  mutating func hideReturned(_ q: Int, _ activity: UInt32) {
    table[q].returned.remove(activity, &returnedPlaces)
  }

  mutating func showReturned(_ q: Int, _ node: IndexedHeap.Node) {
    table[q].returned.insert(node.item, key: node.key, &returnedPlaces)
  }

  private mutating func bury(_ list: SlotList, count: Int) {
    if !list.isEmpty { dying.append(list.head) }
    dyingCount += count
  }

  /// Frees some messages of purged and deleted queues: few, so that no record takes long, and by
  /// the count of records alone, so that a replay frees the same ones at the same time.
  private mutating func freeSomeDying() {
    var left = Self.freedPerRecord
    while left > 0, let index = dying.last {
      let next = slab[index].next
      if slab[index].state != .ready { free(activity: slab[index].link) }
      free(slot: index)
      if next == Slab.none { dying.removeLast() } else { dying[dying.count - 1] = next }
      left -= 1
      dyingCount -= 1
    }
  }

  mutating func allocateActivity(slot: UInt32, queue: UInt32) -> UInt32 {
    let fresh = Activity(slot: slot, queue: queue)
    let activity = freeActivity
    guard activity == Slab.none else {
      freeActivity = activities[Int(activity)].slot
      activities[Int(activity)] = fresh
      return activity
    }
    activities.append(fresh)
    timerPlaces.append(IndexedHeap.absent)
    returnedPlaces.append(IndexedHeap.absent)
    return UInt32(activities.count - 1)
  }

  private mutating func free(activity: UInt32) {
    timers.remove(activity, &timerPlaces)
    returnedPlaces[Int(activity)] = IndexedHeap.absent
    activities[Int(activity)].slot = freeActivity
    freeActivity = activity
  }

  private func namePlace(_ name: String) -> Int {
    var low = 0
    var high = sortedNames.count
    while low < high {
      let middle = (low + high) / 2
      if sortedNames[middle] < name { low = middle + 1 } else { high = middle }
    }
    return low
  }

  public var queueCount: Int { places.count }

  /// Messages of all queues.
  public var liveCount: Int { slab.count - dyingCount + parkedCount }

  /// Messages in memory, those included that wait to be freed.
  public var messageCount: Int { slab.count }
  /// Damaged messages that were taken out of the queues that are there.
  public var setAsideCount: UInt64 { places.values.reduce(0) { $0 &+ table[$1].setAside } }
}

extension Timestamp {
  /// Whole seconds since 1970, held at the ends of the range.
  var secondRoundedUp: UInt32 {
    UInt32(
      truncatingIfNeeded: (milliseconds.clamped(to: 0...Int64(UInt32.max) * 1000 - 999) + 999)
        / 1000)
  }
}

extension Comparable {
  func clamped(to range: ClosedRange<Self>) -> Self {
    min(max(self, range.lowerBound), range.upperBound)
  }
}
