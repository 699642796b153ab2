// SPDX-License-Identifier: Apache-2.0
public import PenstockSystem

/// What moves state. Everything a store knows follows from its records in order.
///
/// **Layout** of a payload: kind 0/1, flags 1/1, zero 2/2, queue 4/4, time 8/8 (milliseconds), then
/// what the kind adds; see `Docs/format.md`.
public enum Record: Hashable, Sendable {
  /// Written by the log itself as LSN 1.
  case logCreated
  case sent(Sent)
  // Large and rare: behind a reference, so that other records are small.
  indirect case queueCreated(name: String, settings: QueueSettings)
  indirect case queueChanged(settings: QueueSettings)
  case queueDeleted
  case leased(message: UInt64, slot: UInt32, deadline: Timestamp)
  case leaseChanged(message: UInt64, slot: UInt32, deadline: Timestamp)
  /// A message leaves its queue for another one, where it is as new as this record.
  case transferred(Transferred)
  /// A move task starts, comes on or ends.
  indirect case task(Task)
  /// A receive from a FIFO queue that may be repeated: its id, and what was leased just before.
  case attempted(TextHash, [LeasedMessage])
  case deleted(message: UInt64, slot: UInt32)
  case purged
  /// Retention ended for every message of the queue that nobody holds, up to this LSN.
  case expired(through: UInt64)
  /// A copy of a message behind which the one before it may go. A parked one names no slot.
  case moved(Moved)
  /// Waiting messages of one segment that are taken into memory, in the order of their sends.
  case drawn(segment: UInt32, [WaitingMessage])
  /// A message that waits in a segment leaves its queue, wherever in it it stands.
  case excised(message: UInt64, segment: UInt32, size: UInt32)
  /// A message whose bytes are damaged leaves its queue; `slot` is nil for a parked one.
  case setAside(message: UInt64, slot: UInt32?, size: UInt32)
  /// Says nothing; frees memory of messages that are gone. Concerns no queue.
  case cleared

  /// A message without what the state machine never looks at.
  public struct Sent: Hashable, Sendable {
    /// The message's id.
    public var id: MessageID
    /// When it becomes visible; nil at once.
    public var visibleAt: Timestamp?
    /// Behind the part of the queue that is in memory: it waits in its segment alone.
    public var isParked: Bool
    /// Of a message in a FIFO queue.
    public var group: TextHash?
    /// What repetitions have in common; only with a group.
    public var deduplication: TextHash?
    /// More is received earlier; only without a group.
    public var priority: UInt8
    /// Whether the delay is the message's own, not its queue's; only with one.
    public var hasOwnDelay: Bool
    /// A message that is sent.
    public init(
      id: MessageID, visibleAt: Timestamp?, isParked: Bool = false, group: TextHash? = nil,
      deduplication: TextHash? = nil, priority: UInt8 = 0, hasOwnDelay: Bool = false
    ) {
      self.priority = priority
      self.hasOwnDelay = hasOwnDelay
      self.id = id
      self.visibleAt = visibleAt
      self.isParked = isParked
      self.group = group
      self.deduplication = deduplication
    }
  }

  /// A message of a receive that may be repeated.
  public struct LeasedMessage: Hashable, Sendable {
    /// LSN of the send.
    public var message: UInt64
    /// The message's slot.
    public var slot: UInt32
    /// A message that was leased.
    public init(message: UInt64, slot: UInt32) {
      self.message = message
      self.slot = slot
    }
  }

  /// A message that goes to another queue.
  public struct Transferred: Hashable, Sendable {
    /// LSN of the send, or of the move before.
    public var message: UInt64
    /// The message's slot.
    public var slot: UInt32
    /// The queue that it goes to.
    public var target: QueueID
    /// Why it goes.
    public var reason: TransferReason
    /// A message that is moved.
    public init(message: UInt64, slot: UInt32, target: QueueID, reason: TransferReason) {
      self.message = message
      self.slot = slot
      self.target = target
      self.reason = reason
    }
  }

  /// A message that was written again, with the same content.
  public struct Moved: Hashable, Sendable {
    /// The message's id.
    public var id: MessageID
    /// LSN of the send: the message's identity stays.
    public var message: UInt64
    /// The message's slot; nil when it is parked.
    public var slot: UInt32?
    /// Whether the copied record was a copy itself.
    public var isAgain: Bool
    /// Whether there is more than the body behind it.
    public var hasExtras: Bool
    /// A message that is written again.
    public init(
      id: MessageID, message: UInt64, slot: UInt32?, isAgain: Bool = false, hasExtras: Bool = false
    ) {
      self.id = id
      self.message = message
      self.slot = slot
      self.isAgain = isAgain
      self.hasExtras = hasExtras
    }
  }
}

extension WaitingMessage {
  static let encodedSize = 20
}

/// A record with the queue it is about and its time.
public struct Entry: Hashable, Sendable {
  /// The queue; of no meaning in a record that is about none.
  public var queue: QueueID
  /// When it was logged.
  public var time: Timestamp
  /// What happened.
  public var record: Record

  /// A record of what happened.
  public init(queue: QueueID, time: Timestamp, record: Record) {
    self.queue = queue
    self.time = time
    self.record = record
  }
}

/// Bytes in the log that are no record of this format.
public struct RecordError: Error, Hashable, Sendable, CustomStringConvertible {
  public var description: String
  /// Words for people, with the LSN where it is known.
  public init(description: String) { self.description = description }
}

extension Entry {
  enum Kind: UInt8 {
    case logCreated = 0
    case sent = 1
    case queueCreated = 2
    case queueChanged = 3
    case queueDeleted = 4
    case leased = 5
    case leaseChanged = 6
    case deleted = 7
    case purged = 8
    case expired = 9
    case drawn = 10
    case setAside = 11
    case cleared = 12
    case transferred = 13
    case task = 14
    case attempted = 15
    case excised = 16
  }

  static let prefixSize = 16
  static let flagDelayed: UInt8 = 1
  static let flagExtras: UInt8 = 2
  /// A copy: the LSN of the send follows the message's id.
  static let flagMoved: UInt8 = 4
  /// A copy of a message in memory: its slot follows.
  static let flagSlot: UInt8 = 8
  static let flagParked: UInt8 = 16
  /// A copy of a copy.
  static let flagAgain: UInt8 = 32
  /// A message of a FIFO queue: the hash of its group follows.
  static let flagGroup: UInt8 = 64
  /// And the hash of its deduplication id.
  static let flagDeduplication: UInt8 = 128
  /// Beside the flags: the priority of a message in the low byte, and whether its delay is its own.
  static let moreOwnDelay: UInt16 = 256
  /// Of a queue's settings: others follow the five that are always there.
  static let flagMore: UInt8 = 1

  /// Payload bytes; `content` belongs to a sent message.
  public func payloadSize(_ content: MessageContent? = nil) -> Int {
    switch record {
    case .logCreated, .queueDeleted, .purged, .cleared: Self.prefixSize
    // What is copied follows it.
    case .moved(let moved): Self.prefixSize + 24 + (moved.slot == nil ? 0 : 8)
    case .drawn(_, let messages): Self.prefixSize + 8 + messages.count * WaitingMessage.encodedSize
    case .attempted(_, let messages): Self.prefixSize + 24 + messages.count * 16
    case .task(let task): Self.prefixSize + 32 + task.destination.utf8.count
    case .sent(let sent):
      Self.contentOffset(sent) + (content?.storedSize ?? 0)
    case .queueCreated(let name, let settings):
      Self.prefixSize + settings.encodedSize + name.utf8.count
    case .queueChanged(let settings): Self.prefixSize + settings.encodedSize
    case .leased, .leaseChanged, .transferred: Self.prefixSize + 24
    case .deleted, .setAside, .excised: Self.prefixSize + 16
    case .expired: Self.prefixSize + 8
    }
  }

  /// Puts exactly `payloadSize` bytes.
  public func encode(_ content: MessageContent? = nil, into buffer: CommitBuffer) {
    encode(hasExtras: content?.rest != nil, into: buffer)
    content?.put(into: buffer)
  }

  /// Puts all but the content of a sent message.
  func encode(hasExtras: Bool, into buffer: CommitBuffer) {
    func prefix(_ kind: Kind, _ flags: UInt8 = 0, _ more: UInt16 = 0) {
      buffer.put(kind.rawValue)
      buffer.put(flags)
      buffer.put(more)
      buffer.put(queue.value)
      buffer.put(time.milliseconds)
    }
    switch record {
    case .logCreated: prefix(.logCreated)
    case .queueDeleted: prefix(.queueDeleted)
    case .purged: prefix(.purged)
    case .cleared: prefix(.cleared)
    case .sent(let sent):
      prefix(
        .sent,
        (sent.visibleAt == nil ? 0 : Self.flagDelayed) | (hasExtras ? Self.flagExtras : 0)
          | (sent.isParked ? Self.flagParked : 0) | (sent.group == nil ? 0 : Self.flagGroup)
          | (sent.deduplication == nil ? 0 : Self.flagDeduplication),
        UInt16(sent.priority) | (sent.hasOwnDelay ? Self.moreOwnDelay : 0))
      buffer.put(sent.id)
      if let visibleAt = sent.visibleAt { buffer.put(visibleAt.milliseconds) }
      if let group = sent.group { buffer.put(group) }
      if let hash = sent.deduplication { buffer.put(hash) }
    case .queueCreated(let name, let settings):
      prefix(.queueCreated, settings.hasMore ? Self.flagMore : 0)
      settings.encode(into: buffer)
      buffer.put(name)
    case .queueChanged(let settings):
      prefix(.queueChanged, settings.hasMore ? Self.flagMore : 0)
      settings.encode(into: buffer)
    case .leased(let message, let slot, let deadline),
      .leaseChanged(let message, let slot, let deadline):
      if case .leased = record { prefix(.leased) } else { prefix(.leaseChanged) }
      buffer.put(message)
      buffer.put(slot)
      buffer.put(UInt32(0))
      buffer.put(deadline.milliseconds)
    case .deleted(let message, let slot):
      prefix(.deleted)
      buffer.put(message)
      buffer.put(slot)
      buffer.put(UInt32(0))
    case .transferred(let transferred):
      prefix(.transferred)
      buffer.put(transferred.message)
      buffer.put(transferred.slot)
      buffer.put(transferred.target.value)
      buffer.put(UInt64(transferred.reason.rawValue))
    case .task(let task):
      prefix(.task)
      buffer.put(task.id)
      buffer.put(task.event.rawValue)
      buffer.put(task.number)
      buffer.put(task.count)
      buffer.put(task.destination)
    case .attempted(let hash, let messages):
      prefix(.attempted)
      buffer.put(hash)
      buffer.put(UInt64(messages.count))
      for leased in messages {
        buffer.put(leased.message)
        buffer.put(UInt64(leased.slot))
      }
    case .expired(let through):
      prefix(.expired)
      buffer.put(through)
    case .moved(let moved):
      let place = moved.slot == nil ? Self.flagParked : Self.flagSlot
      let content = moved.hasExtras ? Self.flagExtras : 0
      prefix(.sent, Self.flagMoved | place | content | (moved.isAgain ? Self.flagAgain : 0))
      buffer.put(moved.id)
      buffer.put(moved.message)
      if let slot = moved.slot {
        buffer.put(slot)
        buffer.put(UInt32(0))
      }
    case .excised(let message, let segment, let size):
      prefix(.excised)
      buffer.put(message)
      buffer.put(segment)
      buffer.put(size)
    case .drawn(let segment, let messages):
      prefix(.drawn)
      buffer.put(segment)
      buffer.put(UInt32(messages.count))
      for message in messages {
        buffer.put(message.message)
        buffer.put(message.offset)
        buffer.put(message.size)
        buffer.put(message.sentSecond)
      }
    case .setAside(let message, let slot, let size):
      prefix(.setAside)
      buffer.put(message)
      buffer.put(slot ?? .max)
      buffer.put(size)
    }
  }

  /// Reads a payload; of a sent message only what the state machine needs.
  public init(_ span: borrowing RawSpan) throws(RecordError) {
    do {
      var cursor = ByteCursor()
      let number = try cursor.u8(span)
      guard let kind = Kind(rawValue: number) else {
        throw RecordError(description: "a record has the unknown kind \(number)")
      }
      let flags = try cursor.u8(span)
      let known: UInt8 =
        switch kind {
        case .sent: 255
        case .queueCreated, .queueChanged: Self.flagMore
        default: 0
        }
      let more = try cursor.u16(span)
      guard flags & ~known == 0, more == 0 || kind == .sent else { throw Self.notZero }
      queue = QueueID(try cursor.u32(span))
      time = Timestamp(milliseconds: try cursor.i64(span))
      record = try Self.body(kind, flags, more, &cursor, span)
      // A message's content is read by those who want it.
      guard kind == .sent || cursor.offset == span.byteCount else {
        throw RecordError(description: "a record is longer than its kind needs")
      }
    } catch let error as RecordError {
      throw error
    } catch {
      throw RecordError(description: "a record is shorter than its kind needs")
    }
  }

  private static let notZero = RecordError(
    description: "a record has other bytes where zeros belong")

  private static func body(
    _ kind: Kind, _ flags: UInt8, _ more: UInt16, _ cursor: inout ByteCursor,
    _ span: borrowing RawSpan
  ) throws -> Record {
    switch kind {
    case .logCreated: return .logCreated
    case .queueDeleted: return .queueDeleted
    case .purged: return .purged
    case .cleared: return .cleared
    case .sent:
      let id = MessageID(high: try cursor.u64(span), low: try cursor.u64(span))
      let isParked = flags & flagParked != 0
      let hasSlot = flags & flagSlot != 0
      let delayed = flags & flagDelayed != 0
      let (grouped, remembered) = (flags & flagGroup != 0, flags & flagDeduplication != 0)
      guard flags & flagMoved != 0 else {
        guard flags & (flagSlot | flagAgain) == 0, !delayed || !isParked, grouped || !remembered,
          !grouped || !isParked, more < 512, more < 256 || delayed && grouped,
          more & 255 == 0 || !grouped && !isParked
        else { throw notZero }
        let visibleAt = delayed ? Timestamp(milliseconds: try cursor.i64(span)) : nil
        func hash() throws -> TextHash {
          TextHash(high: try cursor.u64(span), low: try cursor.u64(span))
        }
        let group = grouped ? try hash() : nil
        return .sent(
          .init(
            id: id, visibleAt: visibleAt, isParked: isParked, group: group,
            deduplication: remembered ? try hash() : nil,
            priority: UInt8(truncatingIfNeeded: more), hasOwnDelay: more & moreOwnDelay != 0))
      }
      guard !grouped, !remembered, more == 0 else { throw notZero }
      guard !delayed, isParked != hasSlot else { throw notZero }
      let message = try cursor.u64(span)
      let slot = hasSlot ? try cursor.u32(span) : nil
      guard try !hasSlot || cursor.u32(span) == 0 else { throw notZero }
      return .moved(
        .init(
          id: id, message: message, slot: slot, isAgain: flags & flagAgain != 0,
          hasExtras: flags & flagExtras != 0))
    case .excised:
      return .excised(
        message: try cursor.u64(span), segment: try cursor.u32(span), size: try cursor.u32(span))
    case .drawn:
      let segment = try cursor.u32(span)
      let count = Int(try cursor.u32(span))
      guard count == (span.byteCount - cursor.offset) / WaitingMessage.encodedSize else {
        throw notZero
      }
      var messages: [WaitingMessage] = []
      messages.reserveCapacity(count)
      for _ in 0..<count {
        messages.append(
          WaitingMessage(
            message: try cursor.u64(span), offset: try cursor.u32(span),
            size: try cursor.u32(span), sentSecond: try cursor.u32(span)))
      }
      return .drawn(segment: segment, messages)
    case .setAside:
      let message = try cursor.u64(span)
      let slot = try cursor.u32(span)
      return .setAside(
        message: message, slot: slot == .max ? nil : slot, size: try cursor.u32(span))
    case .queueCreated:
      let settings = try QueueSettings(&cursor, span, hasMore: flags & flagMore != 0)
      return .queueCreated(
        name: try cursor.text(span.byteCount - cursor.offset, span), settings: settings)
    case .queueChanged:
      return .queueChanged(
        settings: try QueueSettings(&cursor, span, hasMore: flags & flagMore != 0))
    case .leased, .leaseChanged:
      let message = try cursor.u64(span)
      let slot = try cursor.u32(span)
      guard try cursor.u32(span) == 0 else { throw notZero }
      let deadline = Timestamp(milliseconds: try cursor.i64(span))
      return kind == .leased
        ? .leased(message: message, slot: slot, deadline: deadline)
        : .leaseChanged(message: message, slot: slot, deadline: deadline)
    case .deleted:
      let message = try cursor.u64(span)
      let slot = try cursor.u32(span)
      guard try cursor.u32(span) == 0 else { throw notZero }
      return .deleted(message: message, slot: slot)
    case .transferred:
      let message = try cursor.u64(span)
      let slot = try cursor.u32(span)
      let target = QueueID(try cursor.u32(span))
      guard let reason = UInt8(exactly: try cursor.u64(span)).flatMap(TransferReason.init) else {
        throw RecordError(description: "a message was moved for an unknown reason")
      }
      return .transferred(.init(message: message, slot: slot, target: target, reason: reason))
    case .task:
      let id = MessageID(high: try cursor.u64(span), low: try cursor.u64(span))
      guard let event = Record.TaskEvent(rawValue: try cursor.u32(span)) else {
        throw RecordError(description: "a move task has an unknown event")
      }
      return .task(
        .init(
          id: id, event: event, number: try cursor.u32(span), count: try cursor.u64(span),
          destination: try cursor.text(span.byteCount - cursor.offset, span)))
    case .attempted:
      let hash = TextHash(high: try cursor.u64(span), low: try cursor.u64(span))
      let count = try cursor.u64(span)
      guard count == (span.byteCount - cursor.offset) / 16 else { throw notZero }
      var messages: [Record.LeasedMessage] = []
      for _ in 0..<count {
        let message = try cursor.u64(span)
        guard let slot = UInt32(exactly: try cursor.u64(span)) else { throw notZero }
        messages.append(.init(message: message, slot: slot))
      }
      return .attempted(hash, messages)
    case .expired: return .expired(through: try cursor.u64(span))
    }
  }
}

extension CommitBuffer {
  func put(_ id: MessageID) {
    put(id.high)
    put(id.low)
  }

  func put(_ hash: TextHash) {
    put(hash.high)
    put(hash.low)
  }
}
