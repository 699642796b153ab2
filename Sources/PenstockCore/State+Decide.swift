// SPDX-License-Identifier: Apache-2.0

// What a command would do, as records. Nothing here changes the state, but for bookkeeping of when
// to look at a queue's retention. Callers `advance` to the present first.

/// Why a command is refused. Nothing happened.
public enum Refusal: Error, Hashable, Sendable {
  case queueNotFound
  /// The existing queue differs first in this setting.
  case queueExists(setting: String)
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
}

extension State {
  /// A message that can be received now.
  public struct Candidate: Sendable {
    public var slot: UInt32
    public var message: UInt64
    /// Where the log holds it.
    public var position: UInt64
  }

  public func queue(named name: String) -> QueueID? { names[name] }

  public func describe(_ id: QueueID) -> QueueDescription? {
    guard let q = places[id.value] else { return nil }
    return QueueDescription(
      id: id, name: table[q].name, settings: table[q].settings, createdAt: table[q].createdAt,
      changedAt: table[q].changedAt, counts: table[q].counts, setAside: table[q].setAside)
  }

  public func settings(_ id: QueueID) -> QueueSettings? {
    places[id.value].map { table[$0].settings }
  }

  public func exists(_ id: QueueID) -> Bool { places[id.value] != nil }

  public func counts(_ id: QueueID) -> QueueCounts? { places[id.value].map { table[$0].counts } }

  /// The queue's receive wait and visibility timeout, in milliseconds.
  public func receiveDefaults(_ id: QueueID) -> (wait: Int64, visibility: Int64)? {
    guard let q = places[id.value] else { return nil }
    return (table[q].settings.receiveWait.wholeMilliseconds, table[q].visibilityMilliseconds)
  }

  /// Names that begin with `prefix`, ascending, after `after`, at most `limit`.
  ///
  /// - Complexity: O(log queues + limit).
  public func queueNames(prefix: String, after: String?, limit: Int) -> [String] {
    let start = max(prefix, after ?? prefix)
    var low = 0
    var high = sortedNames.count
    while low < high {
      let middle = (low + high) / 2
      if sortedNames[middle] < start { low = middle + 1 } else { high = middle }
    }
    if let after, low < sortedNames.count, sortedNames[low] == after { low += 1 }
    return sortedNames[low...].prefix { $0.hasPrefix(prefix) }.prefix(max(0, limit)).map { $0 }
  }

  // MARK: Queues

  /// The record that creates a queue, or nil when one with these settings is there already.
  public func decideCreate(
    _ name: String, _ change: QueueSettingsChange
  ) throws(Refusal) -> Entry? {
    guard let id = names[name], let q = places[id.value] else {
      guard nextQueue < .max else { throw .outOfQueueNumbers }
      return Entry(
        queue: QueueID(nextQueue), time: time,
        record: .queueCreated(name: name, settings: change.applied(to: QueueSettings())))
    }
    if let setting = change.firstDifference(from: table[q].settings) {
      throw .queueExists(setting: setting)
    }
    return nil
  }

  public func decideChange(
    _ id: QueueID, _ change: QueueSettingsChange
  ) throws(Refusal) -> Entry {
    guard let q = places[id.value] else { throw .queueNotFound }
    let settings = change.applied(to: table[q].settings)
    guard settings.isFIFO == table[q].settings.isFIFO else { throw .kindIsFixed }
    return Entry(queue: id, time: time, record: .queueChanged(settings: settings))
  }

  public func decideRemove(_ id: QueueID) throws(Refusal) -> Entry {
    guard places[id.value] != nil else { throw .queueNotFound }
    return Entry(queue: id, time: time, record: .queueDeleted)
  }

  public func decidePurge(_ id: QueueID) throws(Refusal) -> Entry {
    guard places[id.value] != nil else { throw .queueNotFound }
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
  public func decideSend(
    _ id: QueueID, messageID: MessageID, size: Int, delay: Int64?, group: TextHash?,
    deduplication: TextHash?
  ) throws(Refusal) -> Send {
    guard let q = places[id.value] else { throw .queueNotFound }
    guard size <= table[q].settings.maximumMessageBytes else {
      throw .messageTooLarge(limit: table[q].settings.maximumMessageBytes)
    }
    let isFIFO = table[q].settings.isFIFO
    guard !isFIFO || group != nil else { throw .groupMissing }
    if isFIFO, let deduplication, let first = duplicate(q, deduplication) {
      return .duplicate(first.id, first.message)
    }
    let delay = delay ?? table[q].settings.delay.wholeMilliseconds
    let visibleAt = delay > 0 ? time.adding(delay) : nil
    let isParked = !isFIFO && visibleAt == nil && parksNext(q)
    return .record(
      Entry(
        queue: id, time: time,
        record: .sent(
          .init(
            id: messageID, visibleAt: visibleAt, isParked: isParked, group: isFIFO ? group : nil,
            deduplication: isFIFO ? deduplication : nil))))
  }

  /// Up to `limit` visible messages, oldest send first; none that was sent behind parked ones.
  ///
  /// - Complexity: O(limit · log active).
  public mutating func candidates(_ id: QueueID, limit: Int) -> [Candidate] {
    guard let q = places[id.value] else { return [] }
    if table[q].settings.isFIFO { return groupedCandidates(q, limit: limit) }
    var found: [Candidate] = []
    var taken: [IndexedHeap.Node] = []
    var ready = table[q].ready.head
    let firstParked = table[q].runs.first?.first ?? .max
    while found.count < limit {
      let index: UInt32
      if let first = table[q].returned.first,
        first.key < (ready == Slab.none ? firstParked : slab[ready].message)
      {
        taken.append(first)
        index = activities[Int(first.item)].slot
        hideReturned(q, first.item)
      } else if ready != Slab.none {
        index = ready
        ready = slab[ready].next
      } else {
        break
      }
      found.append(
        Candidate(slot: index, message: slab[index].message, position: slab[index].position))
    }
    for node in taken { showReturned(q, node) }
    return found
  }

  /// Bytes of a message's record.
  public func size(_ candidate: Candidate) -> Int { slab[candidate.slot].size }

  public func decideLease(
    _ id: QueueID, _ candidate: Candidate, timeout: Int64
  ) -> Entry {
    Entry(
      queue: id, time: time,
      record: .leased(
        message: candidate.message, slot: candidate.slot, deadline: time.adding(max(0, timeout))))
  }

  /// What a receiver is told of a message that was just leased.
  public func lease(_ candidate: Candidate) -> (
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
  /// Any handle of the message will do, also one whose lease ended or was followed by another.
  public func decideDelete(_ handle: LeaseHandle, from id: QueueID) throws(Refusal) -> Entry? {
    guard let q = places[id.value] else { throw .queueNotFound }
    guard handle.queue == id else { throw .invalidHandle }
    guard isLive(q, slot: handle.slot, message: handle.message) else { return nil }
    return Entry(
      queue: id, time: time, record: .deleted(message: handle.message, slot: handle.slot))
  }

  /// - Parameters:
  ///   - timeout: milliseconds from now.
  ///   - totalLimit: milliseconds from the newest lease that its end may not pass; nil for no
  ///     limit.
  public func decideChangeVisibility(
    _ handle: LeaseHandle, of id: QueueID, timeout: Int64, totalLimit: Int64?
  ) throws(Refusal) -> Entry {
    guard let q = places[id.value] else { throw .queueNotFound }
    guard handle.queue == id else { throw .invalidHandle }
    guard isLive(q, slot: handle.slot, message: handle.message) else { throw .messageNotFound }
    let state = slab[handle.slot].state
    guard state == .leased || state == .returned else { throw .messageNotFound }
    let activity = activities[Int(slab[handle.slot].link)]
    guard activity.receiveCount > 0, retentionEnd(handle.slot, table[q]) > time.milliseconds else {
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

  // MARK: Retention

  /// The record that removes what has outlived its queue's retention; nil when nothing has.
  ///
  /// - Parameter limit: how many messages one record may remove, so that none takes long.
  public func decideExpire(_ id: QueueID, limit: Int = 1000) -> Entry? {
    guard let q = places[id.value] else { return nil }
    return decideExpire(q, limit)
  }

  private func decideExpire(_ q: Int, _ limit: Int) -> Entry? {
    // Sends are in the order of time, so all that was sent before an expired message has expired
    // too.
    var through: UInt64 = 0
    if let index = oldestGrouped(q) {
      guard slab[index].state.isVisible, retentionEnd(index, table[q]) <= time.milliseconds else {
        return nil
      }
      return Entry(
        queue: table[q].id, time: time, record: .expired(through: slab[index].message))
    }
    var index = table[q].ready.head
    let returned = table[q].returned.first
    if index == Slab.none, let run = table[q].runs.first, returned?.key ?? .max > run.last {
      if table[q].retentionEnd(sentSecond: run.newestSecond) <= time.milliseconds {
        through = run.last
      }
    } else if let returned, index == Slab.none || returned.key < slab[index].message {
      let slot = activities[Int(returned.item)].slot
      if retentionEnd(slot, table[q]) <= time.milliseconds { through = returned.key }
    } else {
      var count = 0
      while index != Slab.none, count < limit, retentionEnd(index, table[q]) <= time.milliseconds,
        slab[index].message < returned?.key ?? .max
      {
        through = slab[index].message
        index = slab[index].next
        count += 1
      }
    }
    guard through > 0 else { return nil }
    return Entry(queue: table[q].id, time: time, record: .expired(through: through))
  }

  /// The next queue whose oldest message may have expired, with the record to apply, if any.
  public mutating func nextExpired(limit: Int = 1000) -> Entry? {
    while let q = takeExpiry() {
      let entry = decideExpire(q, limit)
      returnExpiry(q)
      if let entry { return entry }
    }
    return nil
  }

  /// When the next look at retention is due; nil when nothing waits for it.
  public var nextExpiry: Timestamp? {
    expiries.first.map { Timestamp(milliseconds: Int64(clamping: $0.key)) }
  }
}

extension QueueSettingsChange {
  /// The first supplied setting that differs, by the order of the properties.
  func firstDifference(from settings: QueueSettings) -> String? {
    func differs(_ value: Duration?, _ other: Duration) -> Bool {
      value.map { $0.wholeMilliseconds != other.wholeMilliseconds } ?? false
    }
    if differs(visibilityTimeout, settings.visibilityTimeout) { return "visibilityTimeout" }
    if differs(delay, settings.delay) { return "delay" }
    if let bytes = maximumMessageBytes, bytes != settings.maximumMessageBytes {
      return "maximumMessageBytes"
    }
    if differs(retention, settings.retention) { return "retention" }
    if differs(receiveWait, settings.receiveWait) { return "receiveWait" }
    if let isFIFO, isFIFO != settings.isFIFO { return "isFIFO" }
    if let deduplicatesByContent, deduplicatesByContent != settings.deduplicatesByContent {
      return "deduplicatesByContent"
    }
    if let deduplicatesByGroup, deduplicatesByGroup != settings.deduplicatesByGroup {
      return "deduplicatesByGroup"
    }
    if let showsGroupScope, showsGroupScope != settings.showsGroupScope { return "showsGroupScope" }
    if let showsGroupLimit, showsGroupLimit != settings.showsGroupLimit { return "showsGroupLimit" }
    if differs(deduplicationWindow, settings.deduplicationWindow) { return "deduplicationWindow" }
    return nil
  }
}
