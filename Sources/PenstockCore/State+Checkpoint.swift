// SPDX-License-Identifier: Apache-2.0
public import PenstockSystem

// The state as bytes. `Docs/format.md` has the layout. Lists are written in order, slots by number,
// so that a state that was read gives out the same slots as the one that was written; everything
// that follows from that (heaps, counts, what lives where) is built anew.

extension State {
  /// Writes the state in pieces.
  ///
  /// - Parameter flush: takes what `buffer` holds, about a megabyte at a time, and empties it.
  /// - Complexity: O(queues + messages in memory + runs).
  public func encode<Failure: Error>(
    _ buffer: CommitBuffer, flush: (CommitBuffer) throws(Failure) -> Void
  ) throws(Failure) {
    buffer.put(time.milliseconds)
    buffer.put(nextQueue)
    buffer.put(UInt32(slab.capacity))
    let free = slab.freePlaces
    buffer.put(UInt32(free.count))
    buffer.put(UInt32(dyingCount))
    for (index, place) in free.enumerated() {
      buffer.put(place)
      if index & 0xffff == 0xffff { try flush(buffer) }
    }
    // In the order in which they will be freed.
    for head in dying.reversed() + dyingGroupHeads() {
      var index = head
      while index != Slab.none {
        var slot = slab[index]
        // What it was does not count any more.
        slot.state = .ready
        encode(slot, index, buffer)
        index = slot.next
        if buffer.count > 1 << 20 { try flush(buffer) }
      }
    }
    try flush(buffer)
    let queues = places.sorted { $0.key < $1.key }
    buffer.put(UInt32(queues.count))
    for (id, q) in queues {
      let queue = table[q]
      buffer.put(id)
      buffer.put(UInt32(queue.name.utf8.count))
      buffer.put(queue.name)
      queue.settings.encodeCommon(into: buffer)
      buffer.put(queue.createdAt.milliseconds)
      buffer.put(queue.changedAt.milliseconds)
      buffer.put(queue.purgedBefore)
      buffer.put(queue.setAside)
      buffer.put(queue.expiredThrough)
      buffer.put(UInt32(queue.runs.count))
      for (index, run) in queue.runs.enumerated() {
        buffer.put(run.segment)
        buffer.put(run.count)
        buffer.put(run.first)
        buffer.put(run.last)
        buffer.put(run.bytes)
        buffer.put(run.oldestSecond)
        buffer.put(run.newestSecond)
        if index & 0xfff == 0xfff { try flush(buffer) }
      }
      try encode(queue.ready, buffer, flush)
      try encode(queue.active, buffer, flush)
      if buffer.count > 1 << 20 { try flush(buffer) }
    }
    try flush(buffer)
    for (id, q) in queues {
      if table[q].settings.hasMore {
        head(.settings, id, buffer)
        table[q].settings.encodeMore(into: buffer)
      }
      if table[q].settings.isFIFO || table[q].groups.count > 0 {
        head(.groups, id, buffer)
        try encodeGroups(q, buffer, flush)
      }
      if !table[q].settings.isFIFO, table[q].groups.count > 0 {
        head(.loads, id, buffer)
        let loads = all(of: table[q]).reversed().compactMap { tenant($0).map { tenants[$0].load } }
        for load in [table[q].groups.load] + loads {
          buffer.put(load.amount)
          buffer.put(load.minute)
          if buffer.count > 1 << 20 { try flush(buffer) }
        }
      }
    }
    for (id, q) in queues where table[q].holes.count > 0 {
      head(.holes, id, buffer)
      buffer.put(UInt32(table[q].holes.count))
      for hole in table[q].holes.all {
        buffer.put(hole)
        if buffer.count > 1 << 20 { try flush(buffer) }
      }
    }
    for (number, origin) in origins.sorted(by: { $0.key < $1.key }) {
      head(.origin, number, buffer)
      buffer.put(UInt32(origin.name.utf8.count))
      buffer.put(origin.name)
    }
    for (id, q) in queues {
      for hash in table[q].groups.attemptOrder.all {
        guard let attempt = table[q].groups.attempts[hash] else { continue }
        head(.attempt, id, buffer)
        buffer.put(hash)
        buffer.put(attempt.expiresAt)
        buffer.put(UInt32(attempt.leases.count))
        for lease in attempt.leases {
          buffer.put(lease.slot)
          buffer.put(lease.message)
          buffer.put(lease.token)
          buffer.put(lease.deadline)
        }
        if buffer.count > 1 << 20 { try flush(buffer) }
      }
    }
    for (id, all) in tasks.sorted(by: { $0.key < $1.key }) {
      for task in all {
        head(.task, id, buffer)
        for number in [
          task.id.high, task.id.low, UInt64(bitPattern: task.startedAt.milliseconds),
          UInt64(task.rate ?? 0), UInt64(task.toMove), UInt64(task.moved),
          UInt64(task.status.rawValue),
        ] { buffer.put(number) }
        let destination = task.destination ?? ""
        buffer.put(UInt32(destination.utf8.count))
        buffer.put(destination)
      }
    }
    for (_, q) in queues { try encodeStrays(q, buffer, flush) }
    try flush(buffer)
  }

  /// What may follow the queues: each with its number and a number of what it is about.
  private enum Section: UInt32 {
    /// Settings of a queue that are not at their default.
    case settings = 1
    /// Groups of a queue.
    case groups = 2
    /// The name of a queue that messages came from.
    case origin = 3
    /// What only some messages have, by slot.
    case stray = 4
    /// A move task of a queue.
    case task = 5
    /// A receive of a FIFO queue that may be repeated.
    case attempt = 6
    /// For how long messages of a queue and of its tenants were leased lately.
    case loads = 7
    /// LSNs of parked messages that were taken out of a queue's runs.
    case holes = 8
  }

  private func head(_ section: Section, _ number: UInt32, _ buffer: CommitBuffer) {
    buffer.put(section.rawValue)
    buffer.put(number)
  }

  /// Messages that have a priority, a delay of their own, or came from another queue.
  private func encodeStrays<Failure: Error>(
    _ q: Int, _ buffer: CommitBuffer, _ flush: (CommitBuffer) throws(Failure) -> Void
  ) throws(Failure) {
    for index in active(q) {
      let activity = activities[Int(slab[index].link)]
      guard activity.isTransferred || activity.priority > 0 || activity.hasOwnDelay else {
        continue
      }
      head(.stray, index, buffer)
      buffer.put(
        UInt32(activity.priority) | (activity.hasOwnDelay ? 256 : 0)
          | (activity.isOverdue ? 512 : 0))
      let transfer = transfer(of: slab[index].link)
      buffer.put(transfer?.origin ?? 0)
      buffer.put(transfer?.bytes ?? 0)
      buffer.put(UInt32(transfer?.reason.rawValue ?? 0))
      buffer.put(transfer?.movedAt ?? 0)
      if buffer.count > 1 << 20 { try flush(buffer) }
    }
  }

  func encode<Failure: Error>(
    _ list: SlotList, _ buffer: CommitBuffer, _ flush: (CommitBuffer) throws(Failure) -> Void
  ) throws(Failure) {
    var index = list.head
    while index != Slab.none {
      encode(slab[index], index, buffer)
      if slab[index].state.hasActivity {
        let activity = activities[Int(slab[index].link)]
        buffer.put(activity.deadline)
        buffer.put(activity.leasedAt)
        buffer.put(activity.firstReceivedAt)
        buffer.put(activity.token)
        buffer.put(activity.receiveCount)
      }
      if buffer.count > 1 << 20 { try flush(buffer) }
      index = slab[index].next
    }
    buffer.put(Slab.none)
  }

  private func encode(_ slot: Slot, _ index: UInt32, _ buffer: CommitBuffer) {
    buffer.put(index)
    buffer.put(slot.words.identity)
    buffer.put(slot.words.place)
    buffer.put(slot.sentSecond)
  }

  // MARK: Reading

  /// LSNs that a message can have; the log ends long before the last of them.
  static let messages: Range<UInt64> = 1..<1 << 56 - 1

  /// Reads what `encode` wrote.
  ///
  /// - Throws: when the bytes are no state. They are taken for hostile.
  public init(_ span: borrowing RawSpan) throws(RecordError) {
    self.init()
    do {
      var cursor = ByteCursor()
      try decode(&cursor, span)
      guard cursor.offset == span.byteCount else { throw BytesTooShort() }
    } catch let error as RecordError {
      throw error
    } catch {
      throw RecordError(description: "a checkpoint is shorter or longer than its parts")
    }
  }

  private mutating func decode(_ cursor: inout ByteCursor, _ span: borrowing RawSpan) throws {
    let time = Timestamp(milliseconds: try cursor.i64(span))
    nextQueue = try cursor.u32(span)
    guard nextQueue > 0 else {
      throw RecordError(description: "a checkpoint gives the number 0 to the next queue")
    }
    let capacity = Int(try cursor.u32(span))
    let freeCount = Int(try cursor.u32(span))
    let dyingCount = Int(try cursor.u32(span))
    // Every slot takes four bytes or more, so this bounds what is allocated.
    guard capacity <= span.byteCount / 4, freeCount + dyingCount <= capacity else {
      throw BytesTooShort()
    }
    slab = Slab(capacity: capacity)
    var isTaken = [Bool](repeating: false, count: capacity)
    func take(_ index: UInt32) throws(RecordError) {
      guard Int(index) < capacity, !isTaken[Int(index)] else {
        throw RecordError(description: "a checkpoint names slot \(index) twice or out of range")
      }
      isTaken[Int(index)] = true
    }
    var free: [UInt32] = []
    free.reserveCapacity(freeCount)
    for _ in 0..<freeCount {
      free.append(try cursor.u32(span))
      try take(free[free.count - 1])
    }
    for index in free.reversed() { slab.free(index) }
    var chain = SlotList()
    for _ in 0..<dyingCount {
      guard let index = try decodeSlot(&cursor, span, take) else { throw BytesTooShort() }
      // Its activity is gone: it is freed as one that has none.
      slab[index].state = .ready
      chain.append(index, &slab)
    }
    if !chain.isEmpty { dying = [chain.head] }
    self.dyingCount = dyingCount
    for _ in 0..<Int(try cursor.u32(span)) { try decodeQueue(&cursor, span, take) }
    while cursor.offset < span.byteCount { try decodeSection(&cursor, span, take) }
    // Those that only messages name which wait to be freed.
    origins = origins.filter { $0.value.count > 0 }
    guard isTaken.allSatisfy({ $0 }) else {
      throw RecordError(description: "a checkpoint leaves slots out")
    }
    advance(to: time)
  }

  private mutating func decodeQueue(
    _ cursor: inout ByteCursor, _ span: borrowing RawSpan,
    _ take: (UInt32) throws(RecordError) -> Void
  ) throws {
    let id = try cursor.u32(span)
    let name = try cursor.text(Int(cursor.u32(span)), span)
    guard id > 0, id < nextQueue, places[id] == nil, names[name] == nil else {
      throw RecordError(description: "a checkpoint names a queue twice or wrongly")
    }
    let settings = try QueueSettings(&cursor, span)
    var queue = Queue(
      id: QueueID(id), name: name, settings: settings,
      at: Timestamp(milliseconds: try cursor.i64(span)))
    queue.changedAt = Timestamp(milliseconds: try cursor.i64(span))
    queue.purgedBefore = try cursor.u64(span)
    guard queue.purgedBefore < Self.messages.upperBound else {
      throw RecordError(description: "a checkpoint has a purge that is still to come")
    }
    queue.setAside = try cursor.u64(span)
    queue.expiredThrough = try cursor.u32(span)
    let runCount = Int(try cursor.u32(span))
    var last: UInt64 = 0
    for _ in 0..<runCount {
      let run = Run(
        segment: try cursor.u32(span), count: try cursor.u32(span), first: try cursor.u64(span),
        last: try cursor.u64(span), bytes: try cursor.u64(span),
        oldestSecond: try cursor.u32(span), newestSecond: try cursor.u32(span))
      guard run.first > last, run.first >= queue.purgedBefore, run.last >= run.first,
        run.isPlausible
      else { throw RecordError(description: "a checkpoint's runs are out of order") }
      last = run.last
      queue.runs.append(run)
      queue.parked += Int(run.count)
      reside(run.segment, Int(run.count), Int(run.bytes), of: nil)
      queue.bytes += Int(run.bytes)
    }
    parkedCount += queue.parked
    queue.counts.visible = queue.parked
    add(queue)
    guard let q = places[id] else { return }
    let firstParked = queue.runs.first?.first ?? .max
    for isActive in [false, true] {
      while let index = try decodeSlot(&cursor, span, take) {
        let message = slab[index].message
        guard message >= queue.purgedBefore else {
          throw RecordError(description: "a checkpoint has a message that was purged")
        }
        switch (slab[index].state, isActive) {
        case (.ready, false):
          let tail = table[q].ready.tail
          guard message < firstParked, tail == Slab.none || slab[tail].message < message else {
            throw RecordError(description: "a checkpoint's messages are out of order")
          }
          slab[index].link = id
          table[q].ready.append(index, &slab)
          table[q].readyCount += 1
          table[q].counts.visible += 1
          table[q].bytes += slab[index].size
        case (.delayed, true), (.leased, true), (.returned, true):
          try decodeActive(index, q, &cursor, span)
        default: throw RecordError(description: "a checkpoint has slot \(index) in a wrong list")
        }
      }
    }
    awaitExpiry(q)
  }

  private mutating func decodeSection(
    _ cursor: inout ByteCursor, _ span: borrowing RawSpan,
    _ take: (UInt32) throws(RecordError) -> Void
  ) throws {
    let section = Section(rawValue: try cursor.u32(span))
    let number = try cursor.u32(span)
    switch section {
    case .settings:
      guard let q = places[number], !table[q].settings.hasMore else { throw BytesTooShort() }
      try table[q].settings.decodeMore(&cursor, span)
      guard table[q].settings.hasMore,
        !table[q].settings.isFIFO || table[q].counts == QueueCounts()
      else { throw BytesTooShort() }
    case .groups: try decodeGroups(number, &cursor, span, take)
    case .loads: try decodeLoads(number, &cursor, span)
    case .holes:
      guard let q = places[number], table[q].holes.count == 0, let run = table[q].runs.first
      else { throw BytesTooShort() }
      var last: UInt64 = 0
      for _ in 0..<(try cursor.u32(span)) {
        let hole = try cursor.u64(span)
        guard hole > last, hole >= run.first, Self.messages.contains(hole) else {
          throw RecordError(description: "a checkpoint's holes are out of order")
        }
        table[q].holes.insert(hole)
        last = hole
      }
    case .origin:
      let name = try cursor.text(Int(cursor.u32(span)), span)
      guard number > 0, number < nextQueue, origins[number] == nil else { throw BytesTooShort() }
      origins[number] = (name, 0)
    case .stray: try decodeStray(number, &cursor, span)
    case .task: try decodeTask(number, &cursor, span)
    case .attempt:
      let hash = TextHash(high: try cursor.u64(span), low: try cursor.u64(span))
      var attempt = Attempt(leases: [], expiresAt: try cursor.i64(span))
      for _ in 0..<(try cursor.u32(span)) {
        attempt.leases.append(
          .init(
            slot: try cursor.u32(span), message: try cursor.u64(span),
            token: try cursor.u64(span), deadline: try cursor.i64(span)))
      }
      guard let q = places[number], table[q].settings.isFIFO,
        table[q].groups.attempts.updateValue(attempt, forKey: hash) == nil
      else { throw BytesTooShort() }
      table[q].groups.attemptOrder.append(hash)
    case nil: throw RecordError(description: "a checkpoint has a section of an unknown kind")
    }
  }

  private mutating func decodeTask(
    _ number: UInt32, _ cursor: inout ByteCursor, _ span: borrowing RawSpan
  ) throws {
    let id = MessageID(high: try cursor.u64(span), low: try cursor.u64(span))
    let startedAt = Timestamp(milliseconds: try cursor.i64(span))
    let (rate, toMove) = (Int(clamping: try cursor.u64(span)), Int(clamping: try cursor.u64(span)))
    let moved = Int(clamping: try cursor.u64(span))
    let status = UInt8(exactly: try cursor.u64(span)).flatMap(MoveTask.Status.init)
    let destination = try cursor.text(Int(cursor.u32(span)), span)
    guard places[number] != nil, let status, rate <= UInt32.max, moved < 1 << 56,
      (tasks[number]?.count ?? 0) < Self.tasksPerQueue
    else { throw RecordError(description: "a checkpoint has a move task that cannot be") }
    tasks[number, default: []].append(
      MoveTask(
        id: id, source: QueueID(number), destination: destination.isEmpty ? nil : destination,
        rate: rate == 0 ? nil : rate, toMove: toMove, moved: moved, startedAt: startedAt,
        status: status))
  }

  private mutating func decodeStray(
    _ index: UInt32, _ cursor: inout ByteCursor, _ span: borrowing RawSpan
  ) throws {
    let flags = try cursor.u32(span)
    var transfer = Transfer()
    transfer.origin = try cursor.u32(span)
    transfer.bytes = try cursor.u32(span)
    let reason = try cursor.u32(span)
    transfer.movedAt = try cursor.i64(span)
    guard slab.contains(index), slab[index].state.hasActivity, flags < 1024,
      let q = places[queueNumber(of: index)]
    else { throw RecordError(description: "a checkpoint has a stray that is no message") }
    let activity = slab[index].link
    let known = activities[Int(activity)]
    guard !known.isTransferred, known.priority == 0, !known.hasOwnDelay else {
      throw BytesTooShort()
    }
    let isShown = slab[index].state == .returned && known.group == Slab.none
    if isShown { hide(q, activity) }
    activities[Int(activity)].priority = UInt8(truncatingIfNeeded: flags)
    if flags & 255 > 0 { urgentCount += 1 }
    activities[Int(activity)].hasOwnDelay = flags & 256 != 0
    activities[Int(activity)].isOverdue = flags & 512 != 0
    if reason != 0 {
      guard let reason = UInt8(exactly: reason).flatMap(TransferReason.init),
        let origin = origins[transfer.origin]
      else { throw BytesTooShort() }
      transfer.reason = reason
      transfer.activity = activity
      activities[Int(activity)].isTransferred = true
      remember(transfer, from: origin.name)
    }
    // Groups know no strays, other queues no delays to follow; nothing hidden is overdue.
    let ours: UInt32 = known.group == Slab.none ? 255 | (isShown ? 512 : 0) : 256
    guard flags & ~ours == 0, flags & 512 == 0 || activities[Int(activity)].isStray else {
      throw BytesTooShort()
    }
    if isShown {
      show(q, activity)
      setTimer(activity)
      // Another one may be the first of the queue now.
      awaitExpiry(q)
    }
  }

  mutating func decodeActive(
    _ index: UInt32, _ q: Int, group: UInt32 = Slab.none, _ cursor: inout ByteCursor,
    _ span: borrowing RawSpan
  ) throws {
    let activity = activate(q, index, slab[index].state, group: group)
    table[q].bytes += slab[index].size
    activities[Int(activity)].deadline = try cursor.i64(span)
    activities[Int(activity)].leasedAt = try cursor.i64(span)
    activities[Int(activity)].firstReceivedAt = try cursor.i64(span)
    activities[Int(activity)].token = try cursor.u64(span)
    activities[Int(activity)].receiveCount = try cursor.u32(span)
    table[q].counts.add(slab[index].state)
    if slab[index].state == .returned { return show(q, activity) }
    if slab[index].state == .leased { leaseBegins(activity) }
    setTimer(activity)
  }

  /// Reads the next slot of a list; nil at its end.
  mutating func decodeSlot(
    _ cursor: inout ByteCursor, _ span: borrowing RawSpan,
    _ take: (UInt32) throws(RecordError) -> Void
  ) throws -> UInt32? {
    let index = try cursor.u32(span)
    if index == Slab.none { return nil }
    try take(index)
    slab[index] = Slot(words: (try cursor.u64(span), try cursor.u64(span)))
    slab[index].sentSecond = try cursor.u32(span)
    guard slab[index].state != .free, State.messages.contains(slab[index].message),
      slab[index].size <= 1 << 31
    else {
      throw RecordError(description: "a checkpoint has slot \(index) in a list, and it is none")
    }
    reside(slab[index].segment, 1, slab[index].size, of: nil)
    return index
  }
}

extension State.Run {
  /// Whether what is counted by it, and moved on from it, stays in range.
  fileprivate var isPlausible: Bool {
    let isInRange = State.messages.contains(last) && UInt64(segment) <= Slot.segmentMask
    // A record takes 40 bytes at least.
    return isInRange && count > 0 && bytes < 1 << 31 && UInt64(count) * 40 <= bytes
  }
}
