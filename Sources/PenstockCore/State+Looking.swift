// SPDX-License-Identifier: Apache-2.0
public import PenstockSystem

// Looks at messages without receiving them: nothing is logged and nothing changes.

/// What a message does at the moment.
public enum MessageState: Hashable, Sendable {
  /// Can be received; in a FIFO queue when those before it in its group are gone.
  case visible
  /// Hidden until its delay ends.
  case delayed(until: Timestamp)
  /// Hidden until its lease ends.
  case leased(until: Timestamp)
}

/// Where a walk over the messages of a queue goes on.
public struct WalkCursor: Hashable, Sendable {
  /// LSNs that were looked at in the log, then slots in memory: messages only come from there to
  /// here, so none is passed over.
  package var message: UInt64 = 0
  package var isInMemory = false
  var slot: Int = 0
  /// The beginning.
  public init() {}
}

extension State {
  /// A message in memory as a look finds it.
  public struct Sight: Sendable {
    /// Where its bytes are.
    public var resident: Resident
    /// What it does.
    public var state = MessageState.visible
    /// How often it was received.
    public var receiveCount = 0
    /// Where it was before; nil if it was sent here.
    public var origin: MessageOrigin?

    /// Set when it waits in the log alone.
    package private(set) var parked: WaitingMessage?

    fileprivate init(_ resident: Resident) { self.resident = resident }

    /// A message that waits in the log alone.
    public init(parked message: WaitingMessage, position: UInt64, bytesQueue: QueueID) {
      resident = Resident(
        slot: 0, message: message.message, position: position, size: Int(message.size),
        bytesQueue: bytesQueue)
      parked = message
    }
  }

  private func sight(_ index: UInt32) -> Sight {
    var sight = Sight(resident(index))
    guard slab[index].state.hasActivity else { return sight }
    let activity = activities[Int(slab[index].link)]
    let end = Timestamp(milliseconds: activity.deadline)
    switch slab[index].state {
    case .delayed: sight.state = .delayed(until: end)
    case .leased: sight.state = .leased(until: end)
    default: break
    }
    (sight.receiveCount, sight.origin) = (Int(activity.receiveCount), origin(index))
    return sight
  }

  /// What receives would get next, in order, of what is in memory.
  public mutating func next(_ id: QueueID, limit: Int) -> [Sight] {
    candidates(id, limit: limit).map { sight($0.slot) }
  }

  /// Messages of a queue in memory, by their slots from a cursor on, which is moved.
  ///
  /// - Parameter bytes: about as many are found as have so many together.
  /// - Returns: nil when all slots were looked at.
  /// - Complexity: O(slots that are looked at), 8,192 at most.
  public func walk(_ id: QueueID, _ cursor: inout WalkCursor, bytes: Int) -> [Sight]? {
    guard let q = places[id.value], cursor.slot < slab.capacity else { return nil }
    let end = min(slab.capacity, cursor.slot + 8192)
    var (found, size) = ([Sight](), 0)
    while cursor.slot < end, size < bytes {
      let slot = UInt32(cursor.slot)
      cursor.slot += 1
      guard slab[slot].state != .free, isLive(q, slot: slot, message: slab[slot].message) else {
        continue
      }
      if slab[slot].state.hasActivity, activities[Int(slab[slot].link)].isOverdue { continue }
      found.append(sight(slot))
      size += slab[slot].size
    }
    return found
  }

  /// The next parked messages of a queue, from a cursor on; nil when there are none.
  public func walkParked(_ id: QueueID, _ cursor: WalkCursor, limit: Int) -> Draw? {
    guard let q = places[id.value],
      let run = table[q].runs.first(where: { $0.last >= cursor.message })
    else { return nil }
    return Draw(
      queue: id, segment: run.segment, first: max(run.first, cursor.message), last: run.last,
      limit: limit)
  }
}
