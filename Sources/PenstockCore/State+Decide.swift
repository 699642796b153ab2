// SPDX-License-Identifier: Apache-2.0
internal import PenstockSystem

// What a command would do, as records. Nothing here changes the state. Callers `advance` to the
// present first.

/// Why a command is refused. Nothing happened.
public enum Refusal: Error, Hashable, Sendable {
  case queueNotFound
  /// The existing queue differs first in this setting.
  case queueExists(setting: QueueSetting)
  case invalidHandle
  case messageNotFound
  case leaseLimitExceeded
  case messageTooLarge(limit: Int)
  /// Every number that a queue can have was used.
  case outOfQueueNumbers
  /// A message for a FIFO queue without a group.
  case groupMissing
  /// A queue stays standard or FIFO.
  case kindIsFixed
  /// A priority is for standard queues, from 0 to 255.
  case priorityInGroup
  /// The queue holds as many messages as it may, or bytes.
  case queueFull(setting: QueueSetting, limit: Int)
  /// A move within a queue, or to one of another kind.
  case moveIsImpossible
  /// A queue has one move task at a time.
  case moveIsRunning
  case taskNotFound
  case taskIsOver
  /// The lease has ended, or another one followed it.
  case leaseLost
  case deadLetterCountMissing
  case deadLetterQueueMissing
  case deadLetterQueueOfAnotherKind
  /// The dead-letter queue does not take messages of this queue.
  case deadLetterQueueRefuses
}

extension State {
  /// The queue of this name; nil when there is none.
  public func queue(named name: String) -> QueueID? { names[name] }

  /// What the queue is now; nil when there is none.
  public func describe(_ id: QueueID) -> QueueDescription? {
    guard let q = place(id.value) else { return nil }
    return QueueDescription(
      id: id, name: table[q].name, settings: table[q].settings, createdAt: table[q].createdAt,
      changedAt: table[q].changedAt, counts: table[q].counts, setAside: table[q].setAside)
  }

  /// The queue's settings; nil when there is none.
  public func settings(_ id: QueueID) -> QueueSettings? {
    place(id.value).map { table[$0].settings }
  }

  /// Whether there is such a queue, and it is FIFO.
  public func isFIFO(_ id: QueueID) -> Bool {
    place(id.value).map { table[$0].settings.isFIFO } ?? false
  }

  /// The key that messages of the queue are sealed with; empty for none.
  public func encryptionKey(_ id: QueueID) -> String {
    place(id.value).map { table[$0].settings.encryptionKey } ?? ""
  }

  /// Whether there is such a queue.
  public func exists(_ id: QueueID) -> Bool { place(id.value) != nil }

  /// Messages of the queue by state; nil when there is none.
  public func counts(_ id: QueueID) -> QueueCounts? { place(id.value).map { table[$0].counts } }

  /// The queue's receive wait and visibility timeout, in milliseconds.
  public func receiveDefaults(_ id: QueueID) -> (wait: Int64, visibility: Int64)? {
    guard let q = place(id.value) else { return nil }
    return (table[q].settings.receiveWait.wholeMilliseconds, table[q].visibilityMilliseconds)
  }

  /// Names that begin with `prefix`, ascending, after `after`, at most `limit`.
  ///
  /// - Complexity: O(log queues + limit).
  public func queueNames(prefix: String, after: String?, limit: Int) -> [String] {
    let start = sortedNames.firstPlace { name in
      name < prefix || after.map { name <= $0 } ?? false
    }
    return Array(sortedNames[start...].prefix { $0.hasPrefix(prefix) }.prefix(max(0, limit)))
  }

  // MARK: Queues

  /// The record that creates a queue, or nil when one with these settings is there already.
  ///
  /// - Parameter defaults: what a new queue has beside `change`; an old one may differ.
  public func decideCreate(
    _ name: String, _ change: QueueSettingsChange, beside defaults: QueueSettings = .init()
  ) throws(Refusal) -> Entry? {
    guard let id = names[name], let q = place(id.value) else {
      guard nextQueue < .max else { throw .outOfQueueNumbers }
      let settings = change.applied(to: defaults)
      try checkDeadLetters(settings, of: name)
      return Entry(
        queue: QueueID(nextQueue), time: time,
        record: .queueCreated(name: name, settings: settings))
    }
    if let setting = change.firstDifference(from: table[q].settings) {
      throw .queueExists(setting: setting)
    }
    return nil
  }

  /// The record that changes settings of a queue.
  public func decideChange(_ id: QueueID, _ change: QueueSettingsChange) throws(Refusal) -> Entry {
    guard let q = place(id.value) else { throw .queueNotFound }
    let settings = change.applied(to: table[q].settings)
    guard settings.isFIFO == table[q].settings.isFIFO else { throw .kindIsFixed }
    if change.deadLetterQueue != nil || change.maximumReceives != nil {
      try checkDeadLetters(settings, of: table[q].name, isNew: change.deadLetterQueue != nil)
    }
    return Entry(queue: id, time: time, record: .queueChanged(settings: settings))
  }

  /// The record that deletes a queue.
  public func decideDeleteQueue(_ id: QueueID) throws(Refusal) -> Entry {
    guard place(id.value) != nil else { throw .queueNotFound }
    return Entry(queue: id, time: time, record: .queueDeleted)
  }

  /// The record that purges a queue.
  public func decidePurge(_ id: QueueID) throws(Refusal) -> Entry {
    guard place(id.value) != nil else { throw .queueNotFound }
    return Entry(queue: id, time: time, record: .purged)
  }

  // MARK: Messages

  /// What a send comes to.
  public enum Send {
    case record(Entry)
    /// It repeats another one: the id and LSN of that.
    case duplicate(MessageID, UInt64)
  }

  /// - Parameters:
  ///   - delay: milliseconds; nil takes the queue's.
  ///   - group: of the message, for a FIFO queue.
  ///   - deduplication: what a repetition has in common with it, for a FIFO queue.
  ///   - ahead: messages that will be sent before it without being asked about; nil when it was
  ///     asked about before, so that no limit is looked at.
  public func decideSend(
    _ id: QueueID, messageID: MessageID, size: Int, delay: Int64?, group: TextHash?,
    deduplication: TextHash?, priority: UInt8 = 0, ahead: Int? = 0
  ) throws(Refusal) -> Send {
    guard let q = place(id.value) else { throw .queueNotFound }
    guard size <= table[q].settings.maximumMessageBytes else {
      throw .messageTooLarge(limit: table[q].settings.maximumMessageBytes)
    }
    let isFIFO = table[q].settings.isFIFO
    guard !isFIFO || group != nil else { throw .groupMissing }
    if isFIFO, let deduplication, let first = duplicate(q, deduplication) {
      return .duplicate(first.id, first.message)
    }
    guard !isFIFO || priority == 0 else { throw .priorityInGroup }
    if let ahead { try checkLimits(q, ahead) }
    let milliseconds = delay ?? table[q].settings.delay.wholeMilliseconds
    let visibleAt = milliseconds > 0 ? time.adding(milliseconds) : nil
    let group = isFIFO || table[q].settings.isFair && priority == 0 ? group : nil
    let isParked = group == nil && visibleAt == nil && priority == 0 && parksNext(q)
    return .record(
      Entry(
        queue: id, time: time,
        record: .sent(
          .init(
            id: messageID, visibleAt: visibleAt, isParked: isParked, group: group,
            deduplication: isFIFO ? deduplication : nil, priority: priority,
            hasOwnDelay: isFIFO && visibleAt != nil && delay != nil))))
  }

  private func checkLimits(_ q: Int, _ ahead: Int) throws(Refusal) {
    let (messages, bytes) = (table[q].settings.maximumMessages, table[q].settings.maximumBytes)
    if messages > 0, table[q].counts.total + ahead >= messages {
      throw .queueFull(setting: .maximumMessages, limit: messages)
    }
    if bytes > 0, table[q].bytes >= bytes { throw .queueFull(setting: .maximumBytes, limit: bytes) }
  }

  /// Up to `limit` visible messages, oldest send first, as priorities make them older and noisy
  /// tenants wait; none that was sent behind parked ones.
  ///
  /// - Complexity: O(limit · log active).
  public mutating func candidates(_ id: QueueID, limit: Int) -> [Resident] {
    guard let q = place(id.value) else { return [] }
    if table[q].settings.isFIFO { return groupedCandidates(q, limit: limit) }
    var found: [Resident] = []
    var taken: [UInt32] = []
    var turns = Turns()
    var ready = table[q].ready.head
    let firstParked = table[q].runs.first
    while found.count < limit {
      var index = ready
      let returned = table[q].returned.first
      if let returned,
        returned.key < (ready == Slab.none ? firstParked?.first ?? .max : slab[ready].message)
      {
        index = activities[Int(returned.item)].slot
      }
      var group = Slab.none
      if table[q].groups.count > 0 {
        let other = index == Slab.none ? firstParked?.first ?? .max : slab[index].message
        if let turn = nextTurn(q, before: other, &turns) {
          (group, index) = (turn.group, turn.message)
        }
      }
      if let urgent = table[q].urgent.first {
        let next =
          index == Slab.none
          ? firstParked.map { UInt64($0.oldestSecond) << 32 } ?? .max : urgency(of: index)
        if urgent.key < next { (index, group) = (activities[Int(urgent.item)].slot, Slab.none) }
      }
      guard index != Slab.none else { break }
      if index == ready {
        ready = slab[index].next
      } else if slab[index].state != .grouped {
        taken.append(slab[index].link)
        hide(q, slab[index].link)
      }
      if group != Slab.none { take(index, of: group, q, &turns) }
      turns.taken += 1
      found.append(resident(index))
    }
    for activity in taken { show(q, activity) }
    end(q, turns)
    return found
  }

  /// How many more messages of a queue may be leased now.
  public func leaseAllowance(_ id: QueueID) -> Int {
    guard let q = place(id.value), table[q].settings.maximumLeased > 0 else { return .max }
    return max(0, table[q].settings.maximumLeased - table[q].counts.leased)
  }

  /// The record that leases a candidate; `timeout` in milliseconds, not below zero.
  public func decideLease(_ id: QueueID, _ candidate: Resident, timeout: Int64) -> Entry {
    Entry(
      queue: id, time: time,
      record: .leased(
        message: candidate.message, slot: candidate.slot, deadline: time.adding(max(0, timeout))))
  }

  /// What a receiver is told of a message that was just leased.
  public func lease(_ candidate: Resident) -> (
    token: UInt64, receiveCount: UInt32, firstReceivedAt: Timestamp, deadline: Timestamp
  ) {
    let activity = activities[Int(slab[candidate.slot].link)]
    return (
      activity.token, activity.receiveCount,
      Timestamp(milliseconds: activity.firstReceivedAt), Timestamp(milliseconds: activity.deadline)
    )
  }

  /// The record that deletes a message, or nil when it is gone already, which is success.
  ///
  /// In a standard queue any handle of the message will do, also one whose lease ended or was
  /// followed by another; in a FIFO queue the lease must still be held.
  ///
  /// - Parameter isFenced: refuse when the lease is not held any more, in whatever queue, and
  ///   when the message is gone.
  public func decideDelete(
    _ handle: LeaseHandle, from id: QueueID, isFenced: Bool = false
  ) throws(Refusal) -> Entry? {
    guard let q = place(id.value) else { throw .queueNotFound }
    guard handle.queue == id else { throw .invalidHandle }
    guard isLive(q, slot: handle.slot, message: handle.message) else {
      if isFenced { throw .leaseLost }
      return nil
    }
    guard !isFenced && !table[q].settings.isFIFO || isHeld(handle) else { throw .leaseLost }
    return Entry(
      queue: id, time: time, record: .deleted(message: handle.message, slot: handle.slot))
  }

  /// Whether a handle of a live message names its newest lease, and that has not ended.
  func isHeld(_ handle: LeaseHandle) -> Bool {
    slab[handle.slot].state == .leased
      && activities[Int(slab[handle.slot].link)].token == handle.token
  }

  /// When the lease that a handle names ends; nil when it is not held any more.
  package func leaseEnd(_ handle: LeaseHandle) -> Timestamp? {
    guard let q = place(handle.queue.value),
      isLive(q, slot: handle.slot, message: handle.message), isHeld(handle)
    else { return nil }
    return Timestamp(milliseconds: activities[Int(slab[handle.slot].link)].deadline)
  }

  /// The record that moves a leased message to its queue's dead letters.
  public func decideReject(_ handle: LeaseHandle) throws(Refusal) -> Entry {
    guard let q = place(handle.queue.value) else { throw .queueNotFound }
    guard isLive(q, slot: handle.slot, message: handle.message), isHeld(handle) else {
      throw .leaseLost
    }
    guard let target = deadLetterQueue(of: handle.queue) else { throw .deadLetterQueueMissing }
    return decideTransfer(handle.queue, resident(handle.slot), to: target, .rejected)
  }

  /// - Parameters:
  ///   - timeout: milliseconds from now.
  ///   - totalLimit: milliseconds from the newest lease that its end may not pass; nil for no
  ///     limit.
  ///   - isFenced: refuse when the lease is not held any more, as in a FIFO queue.
  public func decideChangeVisibility(
    _ handle: LeaseHandle, of id: QueueID, timeout: Int64, totalLimit: Int64?,
    isFenced: Bool = false
  ) throws(Refusal) -> Entry {
    guard let q = place(id.value) else { throw .queueNotFound }
    guard handle.queue == id else { throw .invalidHandle }
    guard isLive(q, slot: handle.slot, message: handle.message) else { throw .messageNotFound }
    guard !isFenced && !table[q].settings.isFIFO || isHeld(handle) else { throw .leaseLost }
    let state = slab[handle.slot].state
    guard state == .leased || state == .returned else { throw .messageNotFound }
    let activity = activities[Int(slab[handle.slot].link)]
    guard activity.receiveCount > 0, retentionEnd(handle.slot, q) > time.milliseconds else {
      throw .messageNotFound
    }
    let deadline = time.adding(max(0, timeout))
    if let totalLimit,
      deadline > Timestamp(milliseconds: activity.leasedAt).adding(totalLimit)
    {
      throw .leaseLimitExceeded
    }
    return Entry(
      queue: id, time: time,
      record: .leaseChanged(message: handle.message, slot: handle.slot, deadline: deadline))
  }

  /// The record that takes a damaged message out of its queue; nil when it is gone or moved.
  public func decideSetAside(_ resident: Resident) -> Entry? {
    guard let id = owner(of: resident) else { return nil }
    return Entry(
      queue: id, time: time,
      record: .setAside(message: resident.message, slot: resident.slot, size: 0))
  }
}
