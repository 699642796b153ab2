// SPDX-License-Identifier: Apache-2.0

// Messages that go from one queue to another. A record of a few bytes moves them: the bytes stay in
// the log where they are. In its new queue a message counts as sent by that record, so what orders,
// purges and numbers messages there needs to know nothing of where they came from. Its retention
// goes on, except in a FIFO queue: it may end before that of older ones, so it is a stray.

/// Why a message was moved.
public enum TransferReason: UInt8, Hashable, Sendable {
  /// It was received as often as its queue allows.
  case receivedTooOften = 1
  /// Who had it leased gave it up.
  case rejected = 2
}

/// Where a message was before.
public struct MessageOrigin: Hashable, Sendable {
  /// Name of the queue, which may be gone by now.
  public var queue: String
  /// Why it was moved.
  public var reason: TransferReason
  /// When it was moved.
  public var movedAt: Timestamp
}

extension State {
  struct Transfer: Sendable {
    var movedAt: Int64 = 0
    var activity: UInt32 = Slab.none
    /// Number of the queue it was in before.
    var origin: UInt32 = 0
    /// Number of the queue that the message's bytes name.
    var bytes: UInt32 = 0
    var reason = TransferReason.receivedTooOften
  }

  // MARK: Apply

  mutating func transfer(
    _ q: Int, _ transferred: Record.Transferred, _ lsn: UInt64
  ) throws(RecordError) {
    let index = transferred.slot
    try check(q, index, transferred.message, lsn)
    guard let target = places[transferred.target.value],
      table[target].settings.isFIFO == table[q].settings.isFIFO
    else {
      throw RecordError(
        description:
          "LSN \(lsn) moves a message to queue \(transferred.target.value), which is none "
          + "or of another kind")
    }
    let group = table[q].settings.isFIFO ? group(of: index).map { groups[Int($0)].hash } : nil
    let (bytes, origin) = (bytesQueue(of: index), table[q].id.value)
    detach(q, index)
    let activity: UInt32
    if slab[index].state.hasActivity {
      activity = slab[index].link
      if activities[Int(activity)].isTransferred { forget(transferOf: activity) }
      if group == nil { table[target].active.append(index, &slab) }
    } else {
      activity = activate(target, index, .returned, group: group == nil ? Slab.none : 0)
    }
    timers.remove(activity, &timerPlaces)
    slab[index].state = .returned
    slab[index].message = lsn
    table[q].bytes -= slab[index].size
    table[target].bytes += slab[index].size
    table[target].counts.visible += 1
    activities[Int(activity)].isTransferred = true
    activities[Int(activity)].isOverdue = false
    remember(
      Transfer(
        movedAt: time.milliseconds, activity: activity, origin: origin, bytes: bytes,
        reason: transferred.reason),
      from: table[q].name)
    if let group {
      slab[index].sentSecond = time.secondRoundedUp
      let group = join(target, group, index)
      activities[Int(activity)].group = group
      groupChanged(target, group)
    } else {
      activities[Int(activity)].belong(to: table[target].id.value)
      show(target, activity)
      setTimer(activity)
      advance(to: time)
    }
    awaitExpiry(target)
  }

  private static func hash(_ activity: UInt32) -> UInt64 {
    (UInt64(activity) &* 0x9e37_79b9_7f4a_7c15) >> 16
  }

  private func place(ofTransfer activity: UInt32) -> UInt32? {
    transferIndex.first(Self.hash(activity)) { transfers[Int($0)].activity == activity }
  }

  mutating func remember(_ transfer: Transfer, from name: String) {
    let place = transfers.put(transfer, free: &freeTransfer) { $0.origin }
    let table = transfers
    transferIndex.insert(place, hash: Self.hash(transfer.activity)) {
      Self.hash(table[Int($0)].activity)
    }
    origins[transfer.origin, default: (name, 0)].count += 1
  }

  func transfer(of activity: UInt32) -> Transfer? {
    guard activities[Int(activity)].isTransferred else { return nil }
    return place(ofTransfer: activity).map { transfers[Int($0)] }
  }

  mutating func forget(transferOf activity: UInt32) {
    guard let place = place(ofTransfer: activity) else { return }
    let origin = transfers[Int(place)].origin
    transferIndex.remove(place, hash: Self.hash(activity))
    transfers[Int(place)] = Transfer(origin: freeTransfer)
    freeTransfer = place
    origins[origin]?.count -= 1
    if origins[origin]?.count == 0 { origins[origin] = nil }
  }

  /// After compaction wrote a message again, its bytes name the queue that it is in.
  mutating func noteBytes(of slot: UInt32, are queue: UInt32) {
    guard slab[slot].state.hasActivity, let place = place(ofTransfer: slab[slot].link) else {
      return
    }
    transfers[Int(place)].bytes = queue
  }

  // MARK: Looking

  /// The group of a message; in a standard queue its tenant.
  func group(of slot: UInt32) -> UInt32? {
    switch slab[slot].state {
    case .grouped: return slab[slot].link
    case .delayed, .leased, .returned:
      let group = activities[Int(slab[slot].link)].group
      return group == Slab.none ? nil : group
    case .free, .ready: return nil
    }
  }

  /// Number of the queue that a message's bytes name: not its own when it was moved.
  func bytesQueue(of slot: UInt32) -> UInt32 {
    let transfer = slab[slot].state.hasActivity ? transfer(of: slab[slot].link) : nil
    return transfer?.bytes ?? queueNumber(of: slot)
  }

  /// Where a message was before it was moved to the queue that it is in; nil if it was sent there.
  public func origin(_ slot: UInt32) -> MessageOrigin? {
    guard slab.contains(slot), slab[slot].state.hasActivity,
      let transfer = transfer(of: slab[slot].link)
    else { return nil }
    return MessageOrigin(
      queue: origins[transfer.origin]?.name ?? "", reason: transfer.reason,
      movedAt: Timestamp(milliseconds: transfer.movedAt))
  }

  // MARK: Decide

  /// The queue that takes messages of another which were received too often; nil if there is none.
  public func deadLetterQueue(of id: QueueID) -> QueueID? {
    guard let q = places[id.value], !table[q].settings.deadLetterQueue.isEmpty,
      table[q].settings.maximumReceives > 0, let target = names[table[q].settings.deadLetterQueue],
      let t = places[target.value], table[t].settings.isFIFO == table[q].settings.isFIFO
    else { return nil }
    return target
  }

  /// Whether a message was received as often as its queue allows.
  public func isExhausted(_ id: QueueID, _ candidate: Resident) -> Bool {
    guard let q = places[id.value], slab[candidate.slot].state.hasActivity else { return false }
    let count = activities[Int(slab[candidate.slot].link)].receiveCount
    return Int(count) >= table[q].settings.maximumReceives
  }

  /// The record that moves a message to another queue.
  public func decideTransfer(
    _ id: QueueID, _ candidate: Resident, to target: QueueID, _ reason: TransferReason
  ) -> Entry {
    Entry(
      queue: id, time: time,
      record: .transferred(
        .init(message: candidate.message, slot: candidate.slot, target: target, reason: reason)))
  }

  /// Whether a queue may name this one for its dead letters.
  func checkDeadLetters(
    _ settings: QueueSettings, of name: String, isNew: Bool = true
  ) throws(Refusal) {
    guard !settings.deadLetterQueue.isEmpty else { return }
    guard settings.maximumReceives > 0 else { throw .deadLetterCountMissing }
    guard isNew else { return }
    // A queue may name itself before it is there.
    let isItself = settings.deadLetterQueue == name
    guard let target = names[settings.deadLetterQueue], let t = places[target.value] else {
      if isItself { return }
      throw .deadLetterQueueMissing
    }
    guard isItself || table[t].settings.isFIFO == settings.isFIFO else {
      throw .deadLetterQueueOfAnotherKind
    }
    let sources = isItself ? settings.deadLetterSources : table[t].settings.deadLetterSources
    guard sources?.contains(name) ?? true else { throw .deadLetterQueueRefuses }
  }

  /// Names of the queues whose dead-letter queue has this name, in order, after `after`.
  ///
  /// - Complexity: O(queues).
  public func deadLetterSources(of name: String, after: String? = nil, limit: Int) -> [String] {
    let sources = sortedNames.lazy.filter { source in
      guard source > after ?? "", let q = names[source].flatMap({ places[$0.value] }) else {
        return false
      }
      return table[q].settings.deadLetterQueue == name
    }
    return Array(sources.prefix(max(0, limit)))
  }

  // MARK: Urgency

  /// What messages with and without a priority are compared by, least first: the second of the
  /// send, made earlier by the priority, then the LSN.
  func urgency(_ q: Int, _ activity: UInt32) -> UInt64 {
    let slot = slab[activities[Int(activity)].slot]
    let (lead, overflow) = table[q].settings.priorityStep.wholeMilliseconds
      .multipliedReportingOverflow(by: Int64(activities[Int(activity)].priority))
    let second = overflow ? 0 : UInt32(clamping: Int64(slot.sentSecond) &- lead / 1000)
    return UInt64(second) << 32 | slot.message & 0xffff_ffff
  }

  /// The same of a message without a priority.
  func urgency(of slot: UInt32) -> UInt64 {
    UInt64(slab[slot].sentSecond) << 32 | slab[slot].message & 0xffff_ffff
  }

  /// Follows another step of priorities.
  mutating func orderUrgent(_ q: Int) {
    for index in messages(table[q].active) where slab[index].state == .returned {
      let activity = slab[index].link
      guard activities[Int(activity)].priority > 0 else { continue }
      hide(q, activity)
      show(q, activity)
    }
  }
}
