// SPDX-License-Identifier: Apache-2.0
package import PenstockCore
internal import PenstockSystem

/// Makes records as an input says: mostly ones that fit those before, so that a replay gets far.
package struct EntryProgram {
  /// LSN of the next record.
  package var lsn: UInt64
  private var now: Int64 = 1_700_000_000_000
  private var nextQueue: UInt32 = 1
  /// Messages with the places that a replay gives them, as long as nothing odd came before.
  private var sent: [(lsn: UInt64, slot: UInt32, queue: UInt32)] = []
  private var freeSlots: [UInt32] = []
  private var slots: UInt32 = 0
  /// Parked messages, oldest first, and whether each was copied.
  private var parked: [(lsn: UInt64, queue: UInt32, isCopy: Bool)] = []

  package init(lsn: UInt64) { self.lsn = lsn }

  /// The payload of the next record.
  package mutating func next(_ input: inout Input) -> [UInt8] {
    defer { lsn &+= 1 }
    let choice = input.byte()
    if choice & 0xf0 == 0xf0 { return input.take(Int(input.byte())) }
    if choice & 0xf0 == 0xe0 { now = input.awkward() } else { now &+= Int64(choice >> 4) * 500 }
    let buffer = CommitBuffer(capacity: 4096)
    let (entry, content) = choice & 0xf0 == 0xd0 ? keeping(&input) : make(choice, &input)
    entry.encode(content, into: buffer)
    return buffer.withBytes { $0.array }
  }

  private mutating func make(
    _ choice: UInt8, _ input: inout Input
  ) -> (Entry, MessageContent?) {
    var content: MessageContent?
    var queue = nextQueue > 1 ? UInt32(input.below(Int(min(nextQueue, 6)))) : 1
    var record: Record
    switch choice & 0x0f {
    case 0, 10, 11, 12:
      content = Self.content(&input)
      let delay = input.below(3) == 0 ? input.awkward() : 0
      let id = MessageID(randomHigh: lsn, randomLow: input.number(bytes: 1))
      let visibleAt = delay == 0 ? nil : Timestamp(milliseconds: now &+ delay)
      record = .sent(.init(id: id, visibleAt: visibleAt))
      let slot = freeSlots.popLast() ?? slots
      if slot == slots { slots += 1 }
      sent.append((lsn, slot, queue))
    case 1:
      queue = input.below(8) == 7 ? UInt32(truncatingIfNeeded: input.awkward()) : nextQueue
      nextQueue = queue &+ 1
      let letters = Array(input.take(input.below(4)))
      record = .queueCreated(
        name: "q\(queue % 5)" + String(decoding: letters, as: UTF8.self),
        settings: Self.settings(&input))
    case 2: record = .queueChanged(settings: Self.settings(&input))
    case 3: record = .queueDeleted
    case 4: record = .purged
    case 5: record = .expired(through: UInt64(bitPattern: input.awkward()))
    case 6: record = .logCreated
    default:
      let (message, slot, owner, deadline) = lease(&input)
      queue = owner ?? queue
      switch choice & 0x0f {
      case 7, 13: record = .leased(message: message, slot: slot, deadline: deadline)
      case 8, 14: record = .leaseChanged(message: message, slot: slot, deadline: deadline)
      default:
        record = .deleted(message: message, slot: slot)
        if let place = sent.firstIndex(where: { $0.lsn == message }) {
          freeSlots.append(sent.remove(at: place).slot)
        }
      }
    }
    return (
      Entry(queue: QueueID(queue), time: Timestamp(milliseconds: now), record: record), content
    )
  }

  /// Records of parking and compaction, about messages without a body.
  private mutating func keeping(_ input: inout Input) -> (Entry, MessageContent?) {
    var queue = UInt32(1 + input.below(3))
    let id = MessageID(randomHigh: lsn, randomLow: 0)
    let record: Record
    switch input.below(8) {
    case 0, 1, 2:
      record = .sent(.init(id: id, visibleAt: nil, isParked: true))
      parked.append((lsn, queue, false))
    case 3 where !parked.isEmpty:
      let first = parked[0]
      queue = first.queue
      let size: UInt32 = input.below(8) == 7 ? UInt32(input.byte()) : first.isCopy ? 48 : 40
      let found = WaitingMessage(
        message: first.lsn, offset: UInt32(input.byte()) * 64, size: size, sentSecond: 1_700_000_000
      )
      record = .drawn(segment: UInt32(input.below(4)), [found])
      parked.removeFirst()
      let slot = freeSlots.popLast() ?? slots
      if slot == slots { slots += 1 }
      sent.append((first.lsn, slot, queue))
    case 4 where !parked.isEmpty:
      let first = parked[0]
      queue = first.queue
      record = .moved(.init(id: id, message: first.lsn, slot: nil, isAgain: first.isCopy))
      parked[0].isCopy = true
    case 5:
      let (message, slot, owner, _) = lease(&input)
      queue = owner ?? queue
      record = .moved(.init(id: id, message: message, slot: slot))
    case 6:
      let (message, slot, owner, _) = lease(&input)
      queue = owner ?? queue
      let isParked = input.below(3) == 0
      record = .setAside(
        message: isParked ? parked.first?.lsn ?? 0 : message, slot: isParked ? nil : slot,
        size: isParked ? 40 : 0)
    default:
      queue = 0
      record = .cleared
    }
    return (Entry(queue: QueueID(queue), time: Timestamp(milliseconds: now), record: record), nil)
  }

  /// Names a message, mostly one that is there.
  private mutating func lease(
    _ input: inout Input
  ) -> (message: UInt64, slot: UInt32, queue: UInt32?, deadline: Timestamp) {
    let choice = input.byte()
    let deadline = Timestamp(milliseconds: now &+ input.awkward())
    guard choice < 240, !sent.isEmpty else {
      return (
        UInt64(bitPattern: input.awkward()), UInt32(truncatingIfNeeded: input.awkward()), nil,
        deadline
      )
    }
    let known = sent[Int(choice) % sent.count]
    return (known.lsn, known.slot, known.queue, deadline)
  }

  private static func settings(_ input: inout Input) -> QueueSettings {
    guard input.below(2) == 1 else { return QueueSettings() }
    return QueueSettings(
      visibilityTimeout: .milliseconds(input.awkward()), delay: .milliseconds(input.awkward()),
      maximumMessageBytes: Int(input.awkward()), retention: .milliseconds(input.awkward()),
      receiveWait: .milliseconds(input.awkward()))
  }

  /// A body with or without what travels beside it.
  package static func content(_ input: inout Input) -> MessageContent {
    func text(_ input: inout Input) -> String {
      String(decoding: input.take(input.below(6)), as: UTF8.self)
    }
    let parts = input.byte()
    var content = MessageContent(body: input.take(Int(parts & 7)))
    if parts & 8 != 0 { content.groupID = text(&input) }
    if parts & 16 != 0 { content.traceHeader = text(&input) }
    if parts & 32 != 0 { content.senderID = text(&input) }
    for _ in 0..<Int(parts >> 6) {
      let (name, type) = (text(&input), text(&input))
      let value: MessageAttribute.Value =
        input.below(2) == 0 ? .string(text(&input)) : .binary(input.take(input.below(6)))
      content.attributes.append(MessageAttribute(name: name, type: type, value: value))
    }
    return content
  }
}
